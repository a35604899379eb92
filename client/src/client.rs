//! The client and its one-answer calls. Holds no lease and keeps nothing alive: that is built on top.

use std::{
    future::Future,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tenure_proto::v1::{
    AddMemberRequest, AddMemberResponse, DeleteRequest, GetRequest, HistoryRequest, HistoryResponse, Lease, ListRequest, ListResponse, PutRequest,
    ReleaseRequest, ReleaseResponse, RemoveMemberRequest, RemoveMemberResponse, StatusRequest, StatusResponse, TransferLeaderRequest, TransferLeaderResponse,
    cluster_service_client::ClusterServiceClient, lease_service_client::LeaseServiceClient,
};
use tokio_util::task::TaskTracker;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{
    clock::{Clock, SystemClock},
    discovery::Discovery,
    endpoints::{Dial, Endpoints},
    error::Error,
    keepalive::Keepalive,
    line::Line,
    random::Random,
    retry::{Call, Effect, Retry},
};

/// A page of a list may hold 10,000 leases with long annotations.
const LARGEST_ANSWER: usize = 256 << 20;

/// Pages are kept by the replica that made them: a list that was passed on to another one begins anew, this often.
const LISTS_BEGUN_ANEW: u32 = 5;

/// Talks to a cluster. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) endpoints: Endpoints,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
    pub(crate) request_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) discovery: Discovery,
    /// Runs while there are leases to keep.
    pub(crate) keepalive: Mutex<Weak<Keepalive>>,
    /// Background calls that give back a place in a queue, or a grant that nobody took.
    pub(crate) errands: TaskTracker,
}

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    endpoints: Vec<String>,
    request_timeout: Duration,
    attempt_timeout: Duration,
    connect_timeout: Duration,
    clock: Arc<dyn Clock>,
    seed: Option<u64>,
    dial: Dial,
    discover: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            request_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            clock: SystemClock::shared(),
            seed: None,
            dial: Dial::default(),
            discover: false,
        }
    }
}

impl Builder {
    /// Replicas as `host:port`. All are equal: a client starts with any, and stays with one that works.
    pub fn endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// How long a call may take, all attempts together; an acquire that waits has the wait on top, once a replica has answered. Default 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long one endpoint may take before the next one is asked. Default 3 s.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// How long making a connection may take. Default 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Learn in the background where the cluster's servers are, and follow those that come, move and go: [`Client::discover`] at the first call and
    /// whenever something changes, which one watch on the endpoint in use tells. Default off: the client then uses what it was given and nothing else.
    pub fn discover(mut self, discover: bool) -> Self {
        self.discover = discover;
        self
    }

    /// Elapsed time from elsewhere than this machine's clocks.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes jitter, the first endpoint and request ids repeatable. Two live clients must not share a seed: their request ids would collide.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes connections otherwise than over the machine's TCP: through a proxy, say, or in a simulation. Called once an endpoint, on a tokio runtime;
    /// the channel must connect lazily and reconnect by itself.
    pub fn dial(mut self, dial: impl Fn(&Endpoint) -> Channel + Send + Sync + 'static) -> Self {
        self.dial = Dial(Some(Arc::new(dial)));
        self
    }

    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Misuse`] when there is no endpoint, or one is not `host:port`.
    pub fn build(self) -> Result<Client, Error> {
        let random = self.seed.map_or_else(Random::from_os, Random::seeded);
        // Somewhere in the list, so that a fleet with one configuration spreads over the replicas.
        let start = random.below(self.endpoints.len());
        let endpoints = Endpoints::new(&self.endpoints, self.connect_timeout, start, self.dial).map_err(|message| Error::misuse("endpoints", message))?;
        let (request_timeout, attempt_timeout) = (self.request_timeout, self.attempt_timeout);
        let discovery = Discovery::new(self.discover);
        let inner = Inner {
            endpoints,
            clock: self.clock,
            random,
            request_timeout,
            attempt_timeout,
            discovery,
            keepalive: Mutex::default(),
            errands: TaskTracker::new(),
        };
        Ok(Client { inner: Arc::new(inner) })
    }
}

pub(crate) fn leases(channel: Line) -> LeaseServiceClient<Line> {
    LeaseServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER)
}

impl Client {
    /// Settings first.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Waits until nothing is being given back in the background any more: the place in a queue, or the grant, of an attempt that was dropped or has
    /// failed. For a program that is about to end, with a time limit of its own: what was not given back by then is left to run out.
    pub async fn settled(&self) {
        self.inner.errands.close();
        self.inner.errands.wait().await;
    }

    /// The endpoint in use now.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.inner.endpoints.current_address()
    }

    /// The endpoints that there are to choose from now: those given, then those learned ([`Builder::discover`]).
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.inner.endpoints.addresses()
    }

    /// How many endpoints there are to choose from now.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.inner.endpoints.len()
    }

    /// Shows one lease, as it was at some moment between the call and its answer, every change that was acknowledged before included. With `stale`
    /// set: as the answering replica knew it, which may be long ago when that is cut off.
    ///
    /// # Errors
    /// [`Error::Refused`] with reason `LEASE_NOT_FOUND` when there is none; otherwise as every read.
    pub async fn get(&self, request: GetRequest) -> Result<Lease, Error> {
        let call = Call::new("get", &request.namespace, &request.name, Effect::Read);
        let answer = self.call(call, |channel, timeout| {
            let request = timed(request.clone(), timeout);
            async move { leases(channel).get(request).await }
        });
        Ok(answer.await?.lease.unwrap_or_default())
    }

    /// One page of leases, all as they were at one moment; which moment: as [`Client::get`].
    ///
    /// # Errors
    /// As every read: [`Error::NotApplied`] when nobody answered within the request timeout, [`Error::Misuse`] when the request is wrong;
    /// [`Error::Refused`] with reason `PAGE_TOKEN_EXPIRED` when the pages are gone: list again.
    pub async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let call = Call::new("list", &request.namespace, "", Effect::Read);
        self.call(call, |channel, timeout| {
            let request = timed(request.clone(), timeout);
            async move { leases(channel).list(request).await }
        })
        .await
    }

    /// Every page, as one answer of the first page's revision: watch after that to miss nothing.
    ///
    /// # Errors
    /// As every read.
    pub async fn list_all(&self, mut request: ListRequest) -> Result<ListResponse, Error> {
        let mut all = self.list(request.clone()).await?;
        let mut begun_anew = 0;
        while !all.next_page_token.is_empty() {
            request.page_token = std::mem::take(&mut all.next_page_token);
            match self.list(request.clone()).await {
                Ok(page) => {
                    all.leases.extend(page.leases);
                    all.next_page_token = page.next_page_token;
                }
                // The replica that kept these pages is gone.
                Err(error) if error.reason() == Some("PAGE_TOKEN_EXPIRED") && begun_anew < LISTS_BEGUN_ANEW => {
                    begun_anew += 1;
                    request.page_token.clear();
                    all = self.list(request.clone()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Ends a hold, or a place in the queue. Idempotent. After `Ok` the token, or the request id, holds nothing and never will again, whatever the
    /// outcome says that it did before.
    ///
    /// # Errors
    /// As every idempotent call, which is sent again until the request timeout: then [`Error::NotApplied`] or [`Error::OutcomeUnknown`]. A hold that
    /// nobody renews runs out by itself.
    pub async fn release(&self, request: ReleaseRequest) -> Result<ReleaseResponse, Error> {
        let call = Call::new("release", &request.namespace, &request.name, Effect::Idempotent);
        self.call(call, |channel, timeout| {
            let request = timed(request.clone(), timeout);
            async move { leases(channel).release(request).await }
        })
        .await
    }

    /// Creates a lease or edits its labels, annotations and retention.
    ///
    /// # Errors
    /// With `if_revision` or `must_not_exist` it is not sent twice, so that a lost answer is [`Error::OutcomeUnknown`].
    pub async fn put(&self, request: PutRequest) -> Result<Lease, Error> {
        let effect = if request.if_revision != 0 || request.must_not_exist { Effect::Once } else { Effect::Idempotent };
        let call = Call::new("put", &request.namespace, &request.name, effect);
        let answer = self.call(call, |channel, timeout| {
            let request = timed(request.clone(), timeout);
            async move { leases(channel).put(request).await }
        });
        Ok(answer.await?.lease.unwrap_or_default())
    }

    /// Removes a lease and returns it as it was. Not sent twice: the second might remove another lease that was made in between.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none, or it is held or waited for and `force` is not set.
    pub async fn delete(&self, request: DeleteRequest) -> Result<Lease, Error> {
        let call = Call::new("delete", &request.namespace, &request.name, Effect::Once);
        let answer = self.call(call, |channel, timeout| {
            let request = timed(request.clone(), timeout);
            async move { leases(channel).delete(request).await }
        });
        Ok(answer.await?.lease.unwrap_or_default())
    }

    /// Who held a lease, newest first.
    ///
    /// # Errors
    /// As every read.
    pub async fn history(&self, request: HistoryRequest) -> Result<HistoryResponse, Error> {
        let call = Call::new("history", &request.namespace, &request.name, Effect::Read);
        self.call(call, |channel, timeout| {
            let request = timed(request.clone(), timeout);
            async move { leases(channel).history(request).await }
        })
        .await
    }

    /// The cluster as the answering replica sees it.
    ///
    /// # Errors
    /// As every read.
    pub async fn cluster_status(&self) -> Result<StatusResponse, Error> {
        self.call(Call::new("cluster status", "", "", Effect::Read), |channel, timeout| async move {
            ClusterServiceClient::new(channel).status(timed(StatusRequest {}, timeout)).await
        })
        .await
    }

    /// Adds an empty replica. Answers when it has caught up, so give the client a long [`Builder::request_timeout`].
    ///
    /// # Errors
    /// Not sent twice: after [`Error::OutcomeUnknown`] look at [`Client::cluster_status`].
    pub async fn add_member(&self, request: AddMemberRequest) -> Result<AddMemberResponse, Error> {
        self.call(Call::new("cluster add-member", "", "", Effect::Once), |channel, timeout| {
            let request = timed(request.clone(), timeout);
            async move { ClusterServiceClient::new(channel).add_member(request).await }
        })
        .await
    }

    /// Removes a member; its data directory can never come back.
    ///
    /// # Errors
    /// Not sent twice: after [`Error::OutcomeUnknown`] look at [`Client::cluster_status`].
    pub async fn remove_member(&self, request: RemoveMemberRequest) -> Result<RemoveMemberResponse, Error> {
        self.call(Call::new("cluster remove-member", "", "", Effect::Once), |channel, timeout| {
            let request = timed(request, timeout);
            async move { ClusterServiceClient::new(channel).remove_member(request).await }
        })
        .await
    }

    /// Hands raft leadership to another voter.
    ///
    /// # Errors
    /// Not sent twice: after [`Error::OutcomeUnknown`] look at [`Client::cluster_status`].
    pub async fn transfer_leader(&self, request: TransferLeaderRequest) -> Result<TransferLeaderResponse, Error> {
        self.call(Call::new("cluster transfer-leader", "", "", Effect::Once), |channel, timeout| {
            let request = timed(request, timeout);
            async move { ClusterServiceClient::new(channel).transfer_leader(request).await }
        })
        .await
    }

    pub(crate) async fn call<T, F>(&self, call: Call<'_>, mut send: impl FnMut(Line, Duration) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut retry = Retry::new(self.inner.clone(), call.effect, self.inner.request_timeout);
        loop {
            let (index, channel, timeout) = retry.attempt();
            let failure = match tokio::time::timeout(timeout, send(channel, timeout)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => retry.failure(&call.text(), index, &status),
                Err(_) => retry.silence(&call.text(), index, timeout),
            };
            retry.after(index, failure).await?;
        }
    }
}

/// Tells the server how long an answer is of use.
pub(crate) fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_accepts_and_never_answers_hangs_no_call() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let (attempt, whole) = (Duration::from_millis(50), Duration::from_millis(200));
        let client = Client::builder().endpoints([&address]).attempt_timeout(attempt).request_timeout(whole).build().unwrap();
        let bound = Duration::from_secs(5);

        let error = tokio::time::timeout(bound, client.get(GetRequest::default())).await.unwrap().unwrap_err();
        assert!(error.is_retryable(), "a read changes nothing: {error}");
        let error = tokio::time::timeout(bound, client.delete(DeleteRequest::default())).await.unwrap().unwrap_err();
        assert!(error.outcome_unknown(), "{error}");
        let error = tokio::time::timeout(bound, client.acquire(Default::default()).decision()).await.unwrap().unwrap_err();
        assert!(error.outcome_unknown(), "{error}");
        let error = tokio::time::timeout(bound, client.renew(Vec::new())).await.unwrap().unwrap_err();
        assert!(error.outcome_unknown(), "{error}");
        let renewal = client.renew_stream().send(Vec::new()).await.unwrap();
        let error = tokio::time::timeout(bound, renewal).await.unwrap().unwrap_err();
        assert!(error.outcome_unknown(), "{error}");
        let error = tokio::time::timeout(bound, client.watch(Default::default())).await.unwrap().unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }

    #[tokio::test]
    async fn with_nobody_there_nothing_was_applied_and_every_endpoint_is_named() {
        let mut addresses = Vec::new();
        for _ in 0..2 {
            // Bound and closed again: nobody listens there now.
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
        }
        let client = Client::builder().endpoints(addresses.clone()).request_timeout(Duration::from_millis(100)).build().unwrap();
        for error in [client.delete(DeleteRequest::default()).await.unwrap_err(), client.renew(Vec::new()).await.unwrap_err()] {
            assert!(error.is_retryable(), "{error}");
            let text = error.to_string();
            assert!(addresses.iter().all(|address| text.contains(address)) && text.contains("refused"), "{text}");
        }
        let renewal = client.renew_stream().send(Vec::new()).await.unwrap();
        assert!(renewal.await.unwrap_err().is_retryable());
    }
}
