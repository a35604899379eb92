//! Finds the cluster's servers from one that is known: by the identity leases that they keep.
//!
//! An advertised address means something in the servers' network, not always in the client's (containers with mapped ports, NAT). So none is used
//! before a server has answered there and named the same cluster, and what was given to the builder is never forgotten.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tenure_proto::v1::{Lease, ListRequest, WatchRequest, WatchResponse, lease::State};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tonic::{Status, Streaming};

use crate::{
    client::{Client, Inner, leases, timed},
    error::Error,
    line::{Line, Sent},
};

/// Between two rounds at most. Usually a watch says when there is something new.
const SELDOM: Duration = Duration::from_secs(30);
/// Between two rounds at least, and after a failure: who fails may be moving, and comes back within seconds. Then doubling up to [`SELDOM`].
const SOON: Duration = Duration::from_secs(1);
/// Addresses looked at. More are no cluster.
const MOST: usize = 64;

/// The task that goes on discovering, where that is wanted; ends with the client.
#[derive(Debug)]
pub(crate) struct Discovery {
    wanted: bool,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Discovery {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, task: Mutex::default() }
    }

    /// Sees to it that the task runs. Must be called on a tokio runtime.
    pub(crate) fn run(&self, inner: &Arc<Inner>) {
        if !self.wanted {
            return;
        }
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // The runtime that it ran on may be gone.
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(go_on(Arc::downgrade(inner), inner.endpoints.failures())));
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

async fn go_on(client: Weak<Inner>, failures: Arc<Notify>) {
    let mut pause = SOON;
    let mut news = News::default();
    loop {
        let Some(inner) = client.upgrade() else { return };
        // First the watch, then the round: what changes in between is not missed.
        news.follow(&inner).await;
        let found = Client::of(Arc::clone(&inner)).discover().await;
        if let Err(error) = &found {
            tracing::debug!(%error, "no servers were discovered");
        }
        pause = if found.is_ok() && news.stream.is_some() { SELDOM } else { (pause * 2).min(SELDOM) };
        // Never more often, whatever fails or flaps.
        let least = inner.random.jitter(SOON);
        drop(inner);
        tokio::time::sleep(least).await;
        tokio::select! {
            () = failures.notified() => pause = SOON,
            () = news.wait() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A watch of the identity leases that only says that there is something new; a plain stream, since nothing here may keep the client alive.
#[derive(Default)]
struct News {
    /// The endpoint that it is on.
    at: usize,
    stream: Option<Streaming<WatchResponse>>,
}

impl News {
    /// On the endpoint in use, from now on. Without an answer there will be no news; then the timer has to do.
    async fn follow(&mut self, inner: &Inner) {
        let (at, channel) = inner.endpoints.current();
        if self.stream.is_some() && self.at == at {
            return;
        }
        let ListRequest { namespace, label_selector, .. } = identities();
        let request = WatchRequest { namespace, label_selector, ..WatchRequest::default() };
        let opening = async {
            let mut stream = leases(Line::new(channel, Sent::default())).watch(request).await?.into_inner();
            // The first word says that it has begun.
            stream.message().await?;
            Ok::<_, Status>(stream)
        };
        self.at = at;
        self.stream = tokio::time::timeout(inner.attempt_timeout, opening).await.ok().and_then(Result::ok);
    }

    /// Until a server comes, moves or goes, or the replica that would say so is gone itself.
    async fn wait(&mut self) {
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        loop {
            match stream.message().await {
                Ok(Some(answer)) if answer.events.is_empty() => {}
                Ok(Some(_)) => return,
                Ok(None) | Err(_) => {
                    self.stream = None;
                    return;
                }
            }
        }
    }
}

impl Client {
    /// Asks the cluster where its servers are, once, and returns the endpoints known then; [`Builder::discover`](crate::Builder::discover) does it
    /// again and again.
    ///
    /// Servers say so themselves, by their identity leases: namespace `tenure-system`, label `tenure.dev/identity=tenured`. An address that they
    /// advertise becomes an endpoint once a server of this cluster has answered there; where advertised addresses do not lead anywhere (mapped
    /// ports), nothing is learned and nothing is lost. From then on those servers are preferred; endpoints that were given to the builder are the last
    /// resort, but stay. What was learned is forgotten when its server is gone. A cluster with `server_identity = false` says nothing.
    ///
    /// # Errors
    /// As every read. No answer from an advertised address is no error.
    pub async fn discover(&self) -> Result<Vec<String>, Error> {
        let endpoints = &self.inner().endpoints;
        let answer = self.list(identities()).await?;
        let cluster_id = answer.header.map(|header| header.cluster_id).unwrap_or_default();
        let advertised: BTreeSet<String> = answer.leases.iter().filter_map(client_address).take(MOST).collect();
        if advertised.is_empty() || cluster_id.is_empty() {
            return Ok(endpoints.addresses());
        }
        let known = endpoints.addresses();
        let (mut live, unknown): (Vec<String>, Vec<String>) = advertised.into_iter().partition(|address| known.contains(address));
        let mut trying = JoinSet::new();
        for address in unknown {
            let Some(channel) = endpoints.to_try(&address) else { continue };
            let (timeout, cluster_id) = (self.inner().attempt_timeout, cluster_id.clone());
            trying.spawn(async move {
                let question = leases(Line::new(channel, Sent::default())).list(timed(ListRequest { page_size: 1, ..identities() }, timeout)).await;
                let who = question.ok().and_then(|answer| answer.into_inner().header).map(|header| header.cluster_id);
                (who.as_ref() == Some(&cluster_id)).then_some(address)
            });
        }
        while let Some(tried) = trying.join_next().await {
            live.extend(tried.ok().flatten());
        }
        // Without any, nothing can be said of those that were given.
        if !live.is_empty() {
            endpoints.learned(&live);
        }
        let now = endpoints.addresses();
        if now != known {
            tracing::debug!(endpoints = ?now, "discovered");
        }
        Ok(now)
    }
}

/// Stale: any replica will do, also without a quorum.
fn identities() -> ListRequest {
    let (namespace, label_selector) = ("tenure-system".to_owned(), "tenure.dev/identity=tenured".to_owned());
    ListRequest { namespace, label_selector, stale: true, ..ListRequest::default() }
}

/// Where a live server is reached, by its own word.
fn client_address(lease: &Lease) -> Option<String> {
    if lease.state() != State::Held {
        return None;
    }
    let said: serde_json::Value = serde_json::from_slice(&lease.holder_data).ok()?;
    said.get("client")?.as_str().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_live_server_with_an_address_is_one() {
        let mut lease = Lease { holder_data: r#"{"node_id":1,"client":"a:7400","later":[]}"#.into(), ..Lease::default() };
        assert_eq!(client_address(&lease), None);
        lease.set_state(State::Held);
        assert_eq!(client_address(&lease).as_deref(), Some("a:7400"));
        for other in ["", "{}", "a:7400", r#"{"client":7}"#, "[1]", "\u{0}"] {
            lease.holder_data = other.to_owned().into();
            assert_eq!(client_address(&lease), None, "{other:?}");
        }
    }
}
