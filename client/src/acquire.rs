//! Asking for a lease: queue positions, then the decision, through broken streams and dead replicas.
//!
//! Always sends the same request id, so that no retry can make a second grant or lose the place in the queue.

use std::time::Duration;

use tenure_proto::v1::{AcquireRequest, AcquireResponse, EndReason, ReleaseRequest, acquire_response::Result as Answer};
use tonic::{Request, Status, Streaming};

use crate::{
    bugs::bug,
    client::{Client, leases, timed},
    clock::Readings,
    error::Error,
    hold::length,
    retry::{Call, Effect, Retry},
};

/// A wait of nothing would be no wait, which is another question.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// How long a replica may take to end a stream after the decision.
const FAREWELL: Duration = Duration::from_secs(1);

/// An acquire on its way. Dropping it while queued gives up the place: the cluster notices the closed stream.
#[derive(Debug)]
pub struct Acquiring {
    client: Client,
    request: AcquireRequest,
    /// What the first answer adds to the patience: to wait in a queue is one thing, to wait for anybody at all another.
    wait: Duration,
    stream: Option<(usize, Streaming<AcquireResponse>)>,
    retry: Retry,
    begun: Readings,
    /// Of the present request id.
    sent: Readings,
    /// The id is ours to change.
    minted: bool,
    /// A replica may have answered this id before, to a stream that broke.
    repeated: bool,
    /// The open stream has not answered yet.
    fresh: bool,
    decided: bool,
}

impl Client {
    /// Asks for a lease; nothing is sent before the first [`Acquiring::next`] or [`Acquiring::decision`]. Mints a request id when there is none.
    #[must_use]
    pub fn acquire(&self, mut request: AcquireRequest) -> Acquiring {
        let minted = request.request_id.is_empty();
        if minted {
            request.request_id = self.inner().random.request_id();
        }
        let wait = request.wait_for.and_then(|wait| length(wait.seconds, wait.nanos)).unwrap_or_default();
        let retry = Retry::new(self.inner().clone(), Effect::Idempotent, self.inner().request_timeout);
        let begun = self.inner().clock.readings();
        Acquiring { client: self.clone(), request, wait, stream: None, retry, begun, sent: begun, minted, repeated: false, fresh: true, decided: false }
    }
}

impl Acquiring {
    /// Names this attempt; repeats of it are answered from the live state. One that was given stays; one that was minted changes when a replica
    /// granted it to a stream that was gone, and took it back.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request.request_id
    }

    /// Whether an attempt broke off without an answer: it may still be on its way to the cluster, and be granted for a moment even after a denial.
    /// Where the request id was minted, it is barred then; where it was given, [`Acquiring::give_up`] ends that.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// Before the first send: a granted duration counts from here.
    #[must_use]
    pub fn sent(&self) -> Readings {
        self.sent
    }

    /// The next queue position, or the decision; `None` after the decision. Cancel-safe: what was not returned comes next time.
    ///
    /// # Errors
    /// Out of time, refused (a full queue, say) or misuse. After [`Error::OutcomeUnknown`] the lease may be held: [`Acquiring::give_up`] ends that.
    pub async fn next(&mut self) -> Result<Option<AcquireResponse>, Error> {
        while !self.decided {
            if self.stream.is_none() {
                self.open().await?;
            }
            let Some((index, stream)) = &mut self.stream else { continue };
            let index = *index;
            // In the queue silence is normal; before the first word it is not. HTTP/2 pings watch over the connection itself.
            let patience = if self.fresh { self.retry.attempt_timeout() } else { self.retry.remaining() };
            let call = Call::new("acquire", &self.request.namespace, &self.request.name, Effect::Idempotent);
            let failure = match tokio::time::timeout(patience, stream.message()).await {
                Ok(Ok(Some(answer))) if answer.result.is_some() => {
                    self.fresh = false;
                    self.retry.answered();
                    self.retry.extend(std::mem::take(&mut self.wait));
                    if self.given_back(&answer) {
                        self.request.request_id = self.client.inner().random.request_id();
                        self.sent = self.client.inner().clock.readings();
                        self.repeated = false;
                        self.stream = None;
                        continue;
                    }
                    self.decided = !matches!(answer.result, Some(Answer::Queued(_)));
                    if self.decided {
                        self.read_to_the_end();
                        self.bar_what_may_still_arrive(&answer);
                    } else {
                        // A place outlives its stream, and can be granted.
                        self.retry.in_doubt();
                    }
                    return Ok(Some(answer));
                }
                Ok(Ok(_)) => self.retry.failure(&call.text(), index, &Status::unknown("the stream ended without a decision")),
                Ok(Err(status)) => {
                    let mut failure = self.retry.failure(&call.text(), index, &status);
                    // To an attempt of our own that was held up on its way, and that nobody listens to: ask for the place again.
                    if self.repeated && failure.reason.as_deref() == Some("WAIT_MOVED") {
                        failure.retry_after = Some(Duration::ZERO);
                    }
                    failure
                }
                Err(_) => self.retry.silence(&call.text(), index, patience),
            };
            self.stream = None;
            self.repeated = true;
            self.retry.after(index, failure).await?;
        }
        Ok(None)
    }

    /// Waits for the decision: granted, denied or ended, never queued.
    ///
    /// # Errors
    /// As [`Acquiring::next`].
    pub async fn decision(&mut self) -> Result<AcquireResponse, Error> {
        while let Some(answer) = self.next().await? {
            if self.decided {
                return Ok(answer);
            }
        }
        Err(Error::misuse("acquire", "it was decided before"))
    }

    /// Ends whatever this attempt got or will get: the place in the queue, the grant, or a late arrival of the request. Asks nobody if none of it was
    /// ever sent.
    ///
    /// # Errors
    /// As [`Client::release`].
    pub async fn give_up(self) -> Result<(), Error> {
        let AcquireRequest { namespace, name, holder, request_id, .. } = self.request;
        // First the stream, so that no grant is on its way to somebody who has left.
        drop(self.stream);
        if !self.retry.may_be_sent() {
            return Ok(());
        }
        self.client.release(ReleaseRequest { namespace, name, holder, request_id, token: 0 }).await.map(drop)
    }

    /// Whether the cluster may hold something for this request that nobody has taken.
    pub(crate) fn undecided(&self) -> bool {
        self.retry.may_be_sent() && !self.decided
    }

    /// The same request, with what is left of the wait.
    fn again(&self, timeout: Duration) -> Request<AcquireRequest> {
        let mut request = self.request.clone();
        if bug!("bug_retry_is_another_request") && self.repeated {
            // The id is made for each attempt, not for each request (how retries by interceptors and meshes look to a server).
            request.request_id = self.client.inner().random.request_id();
        }
        match request.wait_for {
            // A deadline helps the replica to say in time that nothing was done. Proxies hold whole streams to it, so not where waiting is meant.
            None => return timed(request, timeout),
            Some(wait) => {
                let waited = self.client.inner().clock.readings().possibly_since(self.begun);
                let left = length(wait.seconds, wait.nanos).map(|wait| wait.saturating_sub(waited).max(SHORTEST_WAIT));
                request.wait_for = left.and_then(|left| left.try_into().ok()).or(request.wait_for);
            }
        }
        Request::new(request)
    }

    /// Denied, but an attempt that broke off may still be on its way: it must not be granted to nobody, and keep others out for a claim's time.
    fn bar_what_may_still_arrive(&self, answer: &AcquireResponse) {
        if self.minted && self.repeated && matches!(answer.result, Some(Answer::Denied(_))) {
            let AcquireRequest { namespace, name, holder, request_id, .. } = self.request.clone();
            let client = self.client.clone();
            let errands = self.client.inner().errands.clone();
            errands.spawn(async move { client.release(ReleaseRequest { namespace, name, holder, request_id, token: 0 }).await.is_ok() });
        }
    }

    /// A stream that is dropped before its end is reset, and a server ends connections with too many resets.
    fn read_to_the_end(&mut self) {
        if let Some((_, mut stream)) = self.stream.take() {
            tokio::spawn(async move { tokio::time::timeout(FAREWELL, stream.message()).await.is_ok() });
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        loop {
            let (index, channel, timeout) = self.retry.attempt();
            let call = Call::new("acquire", &self.request.namespace, &self.request.name, Effect::Idempotent);
            let failure = match tokio::time::timeout(timeout, leases(channel).acquire(self.again(timeout))).await {
                Ok(Ok(answer)) => {
                    self.stream = Some((index, answer.into_inner()));
                    self.fresh = true;
                    return Ok(());
                }
                Ok(Err(status)) => self.retry.failure(&call.text(), index, &status),
                Err(_) => self.retry.silence(&call.text(), index, timeout),
            };
            self.repeated |= !failure.unsent;
            self.retry.after(index, failure).await?;
        }
    }

    /// Our own request came to an end that we never heard of: nobody has believed to hold it, so we may ask again under another name.
    fn given_back(&self, answer: &AcquireResponse) -> bool {
        matches!(&answer.result, Some(Answer::Ended(ended)) if self.minted && self.repeated && ended.reason() != EndReason::Barred)
    }
}
