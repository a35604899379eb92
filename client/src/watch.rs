//! Changes as they happen, resumed on another replica when one fails: no gap, no repeat, or an error that says to list again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tenure_proto::v1::{Event, WatchRequest, WatchResponse};
use tonic::{Code, Status, Streaming};

use crate::{
    client::{Client, leases},
    error::Error,
    retry::{Call, Effect, Retry},
};

/// Bookmarks come every few seconds: a stream silent for this long is dead, whatever its connection says.
const LONGEST_SILENCE: Duration = Duration::from_secs(20);

/// A watch. It reconnects by itself.
#[derive(Debug)]
pub struct Watch {
    request: WatchRequest,
    stream: Option<(usize, Streaming<WatchResponse>)>,
    /// The open stream has not said anything yet.
    fresh: bool,
    retry: Retry,
    /// Everything up to here has been returned.
    seen: u64,
    /// What came of the initial state; returned whole once the replica says that it is complete, since a half of it could not be resumed.
    initial: Vec<Event>,
    ready: VecDeque<WatchResponse>,
}

impl Client {
    /// Watches. With `after_revision` 0 and no `send_initial` the watch starts with the first change after this call returns.
    ///
    /// # Errors
    /// As every read. A start that is not remembered any more is told by [`Watch::next`].
    pub async fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        let retry = Retry::new(Arc::clone(self.inner()), Effect::Read, self.inner().request_timeout);
        let seen = request.after_revision;
        let mut watch = Watch { request, stream: None, fresh: true, retry, seen, initial: Vec::new(), ready: VecDeque::new() };
        if seen == 0 && !watch.request.send_initial {
            // "From now on" must mean the same now after a reconnect: the first word of a replica says when it is.
            let first = watch.next().await?;
            if !first.events.is_empty() {
                watch.ready.push_front(first);
            }
        }
        Ok(watch)
    }
}

impl Watch {
    /// Everything up to this revision has been returned.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.seen
    }

    /// The next events or bookmark. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Relist`] when changes were missed and are not remembered. After [`Error::NotApplied`] (no replica answered within the request
    /// timeout) calling again goes on trying from the same revision.
    pub async fn next(&mut self) -> Result<WatchResponse, Error> {
        loop {
            if let Some(answer) = self.ready.pop_front() {
                self.seen = newest(&answer).max(self.seen);
                return Ok(answer);
            }
            if self.stream.is_none() {
                self.open().await?;
            }
            let Some((index, stream)) = &mut self.stream else { continue };
            let index = *index;
            let patience = if self.fresh { self.retry.attempt_timeout() } else { LONGEST_SILENCE };
            let failure = match tokio::time::timeout(patience, stream.message()).await {
                Ok(Ok(Some(answer))) => {
                    self.fresh = false;
                    self.retry.succeeded();
                    self.take(answer);
                    continue;
                }
                Ok(Ok(None)) => self.retry.failure(&self.text(), index, &Status::unknown("the stream ended")),
                Ok(Err(status)) => {
                    self.check(index, &status)?;
                    self.retry.failure(&self.text(), index, &status)
                }
                Err(_) => self.retry.silence(&self.text(), index, patience),
            };
            self.stream = None;
            self.failed(index, failure).await?;
        }
    }

    fn take(&mut self, mut answer: WatchResponse) {
        if self.request.send_initial && self.seen == 0 {
            self.initial.append(&mut answer.events);
            if answer.bookmark != 0 {
                answer.events = std::mem::take(&mut self.initial);
                self.ready.push_back(answer);
            }
            return;
        }
        answer.events.retain(|event| event.revision > self.seen);
        if !answer.events.is_empty() || answer.bookmark > self.seen {
            self.ready.push_back(answer);
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        loop {
            let (index, channel, timeout) = self.retry.attempt();
            let mut request = self.request.clone();
            if self.seen != 0 {
                request.after_revision = self.seen;
                request.send_initial = false;
            }
            self.initial.clear();
            let failure = match tokio::time::timeout(timeout, leases(channel).watch(request)).await {
                Ok(Ok(answer)) => {
                    self.stream = Some((index, answer.into_inner()));
                    self.fresh = true;
                    return Ok(());
                }
                Ok(Err(status)) => {
                    self.check(index, &status)?;
                    self.retry.failure(&self.text(), index, &status)
                }
                Err(_) => self.retry.silence(&self.text(), index, timeout),
            };
            self.failed(index, failure).await?;
        }
    }

    async fn failed(&mut self, index: usize, failure: crate::Failure) -> Result<(), Error> {
        let judged = self.retry.after(index, failure).await;
        if judged.is_err() {
            // The caller may go on: that is a new attempt with all its time.
            self.retry.succeeded();
        }
        judged
    }

    fn check(&mut self, index: usize, status: &Status) -> Result<(), Error> {
        if status.code() == Code::OutOfRange {
            self.stream = None;
            return Err(Error::Relist(Box::new(self.retry.failure(&self.text(), index, status))));
        }
        Ok(())
    }

    fn text(&self) -> String {
        Call::new("watch", &self.request.namespace, &self.request.name, Effect::Read).text()
    }
}

/// Resuming after this misses nothing. Of the initial state (which comes in order of name) only the bookmark counts; there always is one.
fn newest(answer: &WatchResponse) -> u64 {
    if answer.bookmark != 0 { answer.bookmark } else { answer.events.last().map_or(0, |event| event.revision) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(request: WatchRequest) -> Watch {
        let client = Client::builder().endpoints(["a:1"]).seed(1).build().unwrap();
        let retry = Retry::new(client.inner().clone(), Effect::Read, Duration::ZERO);
        let seen = request.after_revision;
        Watch { request, stream: None, fresh: true, retry, seen, initial: Vec::new(), ready: VecDeque::new() }
    }

    fn events(revisions: &[u64], bookmark: u64) -> WatchResponse {
        WatchResponse { events: revisions.iter().map(|&revision| Event { revision, ..Default::default() }).collect(), bookmark, header: None }
    }

    #[tokio::test]
    async fn what_was_seen_before_a_reconnect_is_not_repeated() {
        let mut watch = watch(WatchRequest { after_revision: 5, ..Default::default() });
        watch.take(events(&[4, 5, 6, 7], 0));
        let got: Vec<_> = watch.next().await.unwrap().events.iter().map(|event| event.revision).collect();
        assert_eq!((got, watch.revision()), (vec![6, 7], 7));
        watch.take(events(&[7], 7));
        assert!(watch.ready.is_empty());
        watch.take(events(&[], 9));
        assert_eq!((watch.next().await.unwrap().bookmark, watch.revision()), (9, 9));
    }

    #[tokio::test]
    async fn the_initial_state_comes_whole_or_not_at_all() {
        let mut watch = watch(WatchRequest { send_initial: true, ..Default::default() });
        watch.take(events(&[30, 10], 0));
        assert!(watch.ready.is_empty());
        watch.take(events(&[20], 40));
        assert_eq!(watch.next().await.unwrap().events.len(), 3);
        assert_eq!(watch.revision(), 40);
    }
}
