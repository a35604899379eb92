//! Who is alive: a live view of the leases that nodes keep. It must never miss a change for good, nor invent one.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tenure_proto::v1::{Event, Lease, WatchRequest, event::Type, lease::State};
use tokio::sync::watch;

use crate::{client::Client, error::Error, hold::length};

/// Between attempts while no replica answers.
const PAUSE: Duration = Duration::from_millis(500);

/// What the cluster says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its heartbeats arrive.
    Ready,
    /// They stopped: it crashed, or cannot reach the cluster. `since` is the wall-clock time of the raft leader at which its last heartbeat ran out.
    Unknown {
        /// For people to read; `None` when the cluster did not say.
        since: Option<SystemTime>,
    },
    /// It said goodbye, or was never there.
    Left,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Ready, unknown or left.
    pub condition: Condition,
    /// Everything else: labels, holder data, token, times.
    pub lease: Lease,
}

impl Member {
    pub(crate) fn of(lease: Lease) -> Self {
        let condition = match lease.state() {
            State::Held => Condition::Ready,
            State::Expired => Condition::Unknown { since: ran_out(&lease) },
            State::Free | State::Unspecified => Condition::Left,
        };
        Self { condition, lease }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.lease.name
    }
}

fn ran_out(lease: &Lease) -> Option<SystemTime> {
    let renewed = SystemTime::try_from(lease.renew_time.or(lease.acquire_time)?).ok()?;
    let duration = lease.duration?;
    renewed.checked_add(length(duration.seconds, duration.nanos)?)
}

/// All members at one moment, by namespace and name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Of the cluster: everything up to here is in it.
    pub revision: u64,
    /// Sorted by namespace and name.
    pub members: Vec<Member>,
    /// Why the view may be out of date: no replica answers. `None` while it is live.
    pub error: Option<Error>,
}

/// Settings of [`Members`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MembersBuilder {
    client: Client,
    request: WatchRequest,
}

impl MembersBuilder {
    /// Only those with these labels, in Kubernetes' syntax: `zone=a,tier in (web,db)`.
    pub fn selector(mut self, selector: impl Into<String>) -> Self {
        self.request.label_selector = selector.into();
        self
    }

    /// Lists once, and goes on watching in the background.
    ///
    /// # Errors
    /// As every read: [`Error::Misuse`] for a selector that is none, [`Error::NotApplied`] when no replica answers.
    pub async fn open(self) -> Result<Members, Error> {
        let mut view = View { client: self.client, request: self.request, watch: None, known: BTreeMap::new() };
        view.advance().await?;
        let (told, now) = watch::channel(view.snapshot(None));
        Ok(Members { now, task: tokio::spawn(view.run(told)) })
    }
}

/// A live view of the members in a namespace. The task behind it ends when this is dropped.
#[derive(Debug)]
pub struct Members {
    now: watch::Receiver<Snapshot>,
    task: tokio::task::JoinHandle<()>,
}

impl Members {
    /// Settings first. An empty namespace is `default`.
    pub fn builder(client: &Client, namespace: impl Into<String>) -> MembersBuilder {
        let request = WatchRequest { namespace: namespace.into(), send_initial: true, ..WatchRequest::default() };
        MembersBuilder { client: client.clone(), request }
    }

    /// As it is known now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.now.borrow().clone()
    }

    /// Waits for a change that was not returned yet, and returns what is known then; several changes may be one. Cancel-safe.
    pub async fn changed(&mut self) -> Snapshot {
        if self.now.changed().await.is_err() {
            // Its runtime is gone, and nothing will ever change.
            std::future::pending::<()>().await;
        }
        self.now.borrow_and_update().clone()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct View {
    client: Client,
    request: WatchRequest,
    watch: Option<crate::Watch>,
    known: BTreeMap<(String, String), Lease>,
}

impl View {
    async fn run(mut self, told: watch::Sender<Snapshot>) {
        loop {
            match self.advance().await {
                Ok(true) => drop(told.send_replace(self.snapshot(None))),
                Ok(false) if told.borrow().error.is_some() => drop(told.send_replace(self.snapshot(None))),
                Ok(false) => {}
                Err(error) => {
                    told.send_replace(self.snapshot(Some(error)));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn snapshot(&self, error: Option<Error>) -> Snapshot {
        let revision = self.watch.as_ref().map_or(0, crate::Watch::revision);
        Snapshot { revision, members: self.known.values().cloned().map(Member::of).collect(), error }
    }

    /// Takes the next news; whether there was any.
    async fn advance(&mut self) -> Result<bool, Error> {
        let initial = self.watch.is_none();
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(self.client.watch(self.request.clone()).await?),
        };
        match watch.next().await {
            Ok(answer) => {
                if initial {
                    self.known.clear();
                }
                let news = initial || !answer.events.is_empty();
                answer.events.into_iter().for_each(|event| self.take(event));
                Ok(news)
            }
            // What was missed is in the next beginning.
            Err(Error::Relist(_)) => {
                self.watch = None;
                Ok(false)
            }
            Err(error) => {
                if initial {
                    self.watch = None;
                }
                Err(error)
            }
        }
    }

    fn take(&mut self, event: Event) {
        let gone = event.r#type() == Type::Deleted;
        let Some(lease) = event.lease else { return };
        let key = (lease.namespace.clone(), lease.name.clone());
        if gone {
            self.known.remove(&key)
        } else {
            self.known.insert(key, lease)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_member_is_unknown_from_when_its_last_heartbeat_ran_out() {
        let mut lease = Lease { name: "a".into(), ..Lease::default() };
        lease.set_state(State::Expired);
        assert_eq!(Member::of(lease.clone()).condition, Condition::Unknown { since: None });
        let renewed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        lease.renew_time = Some(renewed.into());
        lease.duration = Duration::from_secs(40).try_into().ok();
        assert_eq!(Member::of(lease.clone()).condition, Condition::Unknown { since: Some(renewed + Duration::from_secs(40)) });
        lease.set_state(State::Held);
        assert_eq!(Member::of(lease).condition, Condition::Ready);
    }
}
