//! Who leads, as it changes. It must never go back to a smaller token, whatever replica it is told by.

use std::time::Duration;

use tenure_proto::v1::{Lease, WatchRequest, event::Type, lease::State};

use crate::{client::Client, error::Error, hold::length, watch::Watch};

/// An elected leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its identity.
    pub holder: String,
    /// What it published ([`ElectionBuilder::data`](crate::ElectionBuilder::data)); often an address.
    pub data: Vec<u8>,
    /// Its fencing token.
    pub token: u64,
}

/// A stream of who leads; made by [`LeaderElection::observe`](crate::LeaderElection::observe). Resumes by itself on another replica.
#[derive(Debug)]
pub struct Observation {
    client: Client,
    request: WatchRequest,
    watch: Watch,
    seen: Seen,
    ready: std::collections::VecDeque<Option<Leader>>,
}

impl Observation {
    pub(crate) async fn open(client: Client, namespace: String, name: String) -> Result<Self, Error> {
        let request = WatchRequest { namespace, name, send_initial: true, ..WatchRequest::default() };
        let watch = client.watch(request.clone()).await?;
        Ok(Self { client, request, watch, seen: Seen::default(), ready: std::collections::VecDeque::new() })
    }

    /// The present elected leader, then each change of it; `None` while nobody leads. Tokens only grow. What changed and changed back while the
    /// connection was gone may be left out. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NotApplied`] when no replica answered within the request timeout: who leads is then not known; calling again goes on trying.
    pub async fn next(&mut self) -> Result<Option<Leader>, Error> {
        loop {
            if let Some(leader) = self.ready.pop_front() {
                return Ok(leader);
            }
            let answer = match self.watch.next().await {
                Ok(answer) => answer,
                Err(Error::Relist(_)) => {
                    self.watch = self.client.watch(self.request.clone()).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for event in &answer.events {
                let gone = event.r#type() == Type::Deleted;
                let told = event.lease.as_ref().and_then(|lease| self.seen.told(lease, gone));
                self.ready.extend(told);
            }
            if answer.events.is_empty() && !self.seen.anything {
                // The initial state, and there is no such lease.
                self.seen.anything = true;
                self.ready.push_back(None);
            }
        }
    }

    /// How long an elected leader that has died may still be shown: its lease's duration.
    #[must_use]
    pub fn lease_duration(&self) -> Option<Duration> {
        self.seen.duration
    }
}

/// For the fuzz target: everything that is news, in states as they come.
#[cfg(feature = "fuzzing")]
pub(crate) fn told(states: &[(Lease, bool)]) -> Vec<Option<Leader>> {
    let mut seen = Seen::default();
    states.iter().filter_map(|(lease, gone)| seen.told(lease, *gone)).collect()
}

#[derive(Debug, Default)]
struct Seen {
    anything: bool,
    token: u64,
    led: bool,
    duration: Option<Duration>,
}

impl Seen {
    /// What is news.
    fn told(&mut self, lease: &Lease, gone: bool) -> Option<Option<Leader>> {
        if lease.token < self.token {
            return None;
        }
        let leads = !gone && lease.state() == State::Held;
        if self.anything && leads == self.led && (!leads || lease.token == self.token) {
            return None;
        }
        // Who was seen to end does not lead again under the same token.
        if leads && self.anything && !self.led && lease.token == self.token {
            return None;
        }
        (self.anything, self.led, self.token) = (true, leads, lease.token);
        self.duration = lease.duration.and_then(|duration| length(duration.seconds, duration.nanos));
        Some(leads.then(|| Leader { holder: lease.holder.clone(), data: lease.holder_data.to_vec(), token: lease.token }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(token: u64, state: State) -> Lease {
        Lease { token, state: state.into(), holder: format!("h{token}"), ..Lease::default() }
    }

    #[test]
    fn it_never_goes_back_to_a_smaller_token() {
        let mut seen = Seen::default();
        assert_eq!(seen.told(&lease(5, State::Held), false).unwrap().unwrap().token, 5);
        assert_eq!(seen.told(&lease(4, State::Held), false), None);
        assert_eq!(seen.told(&lease(5, State::Held), false), None, "said before");
        assert_eq!(seen.told(&lease(5, State::Free), false), Some(None));
        assert_eq!(seen.told(&lease(5, State::Held), false), None, "it has ended");
        assert_eq!(seen.told(&lease(9, State::Held), false).unwrap().unwrap().holder, "h9");
        assert_eq!(seen.told(&lease(9, State::Held), true), Some(None));
    }
}
