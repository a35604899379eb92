//! From wanting a lease to holding it: settings, the queue, the claim, the guard.
//!
//! It must never return a guard without a live token and a deadline counted from before the send, nor leave a grant behind that nobody took.

use std::{sync::Arc, time::Duration};

use tenure_proto::v1::{self, AcquireRequest, Ended, Granted, ReleaseRequest, RenewItem, acquire_response::Result as Answer, renew_result};
use tonic::Code;

use crate::{
    acquire::Acquiring,
    bugs::bug,
    client::Client,
    clock::Readings,
    error::{Error, Failure},
    hold::{Hold, Identity, Terms, length, reliable},
    keepalive::Keepalive,
    lease::Lease,
};

/// Waits that are longer are made of several.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A grant from the queue goes to the next one when it is not claimed within this time of the cluster's.
const CLAIM: Duration = Duration::from_secs(2);

/// Default of [`LeaseBuilder::stop_before`], at most.
const LONGEST_STOP: Duration = Duration::from_millis(250);

/// How long to queue for a lease that somebody else holds.
#[derive(Clone, Copy, Debug)]
enum Wait {
    No,
    For(Duration),
    Forever,
}

/// Settings of a lease that is asked for; made by [`Client::lease`].
#[derive(Clone, Debug)]
#[must_use]
pub struct LeaseBuilder {
    client: Client,
    request: AcquireRequest,
    duration: Duration,
    wait: Wait,
    stop_before: Option<Duration>,
    renew_every: Option<Duration>,
    jitter: f64,
}

impl Client {
    /// Asks for a lease by name, for 15 s at a time, under a holder name that no other process has. Nothing is sent yet.
    pub fn lease(&self, name: impl Into<String>) -> LeaseBuilder {
        let request = AcquireRequest { name: name.into(), holder: self.unique_identity(), ..AcquireRequest::default() };
        let duration = Duration::from_secs(15);
        LeaseBuilder { client: self.clone(), request, duration, wait: Wait::No, stop_before: None, renew_every: None, jitter: 0.0 }
    }

    /// This host's name and a fresh UUID.
    #[must_use]
    pub fn unique_identity(&self) -> String {
        format!("{}-{}", host_name(), self.inner().random.request_id())
    }
}

/// As the kernel has it, cut to what a holder may be called.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().chars().filter(char::is_ascii_graphic).take(200).collect::<String>();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

impl LeaseBuilder {
    /// Default `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.request.namespace = namespace.into();
        self
    }

    /// Who holds it, at most 256 bytes. Default: [`Client::unique_identity`].
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.request.holder = holder.into();
        self
    }

    /// How long a grant and each renewal last: the longest that others must wait when this process dies. 1 s (or what the cluster allows) to 24 h;
    /// default 15 s.
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Queue this long when somebody else holds it. Default: not at all.
    pub fn wait_for(mut self, wait: Duration) -> Self {
        self.wait = Wait::For(wait);
        self
    }

    /// Queue until granted. After each day the place is given up for the last one in the queue.
    pub fn wait_forever(mut self) -> Self {
        self.wait = Wait::Forever;
        self
    }

    /// For others to read as `holder_data`: an address, say. At most 4 KiB.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.request.holder_data = data.into().into();
        self
    }

    /// When it is held by this very holder name, take over with a new token; who held it until then is fenced.
    pub fn reclaim(mut self, reclaim: bool) -> Self {
        self.request.reclaim = reclaim;
        self
    }

    /// If asking creates the lease: delete it this long after nobody holds or waits for it. Default 1 h.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.request.retention = retention.try_into().ok();
        self
    }

    /// If asking creates the lease: by Kubernetes' rules.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.labels.insert(key.into(), value.into());
        self
    }

    /// If asking creates the lease.
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.annotations.insert(key.into(), value.into());
        self
    }

    /// Names this attempt. Default: a fresh one, which is right unless the attempt must survive this process.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request.request_id = id.into();
        self
    }

    /// Give the lease up this long before its deadline when it could not be renewed: time to stop in before anybody else starts. Default: a
    /// twentieth of the duration, at most 250 ms.
    pub fn stop_before(mut self, length: Duration) -> Self {
        self.stop_before = Some(length);
        self
    }

    /// Renew this often at least. Default and most: a third of the duration.
    pub fn renew_every(mut self, interval: Duration) -> Self {
        self.renew_every = Some(interval);
        self
    }

    /// Vary [`LeaseBuilder::renew_every`] by this share, up and down; 0.04 is 4 %. Default: not at all.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Begins to ask, telling each step. Sends nothing before the first [`Asking::next`]. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the durations do not go together.
    pub fn ask(self) -> Result<Asking, Error> {
        let reliable = reliable(self.duration);
        let stop_before = self.stop_before.unwrap_or_else(|| (self.duration / 20).min(LONGEST_STOP));
        if stop_before >= reliable {
            return Err(Error::misuse("acquire", format!("stop_before ({stop_before:?}) leaves nothing of the duration ({:?})", self.duration)));
        }
        if self.renew_every.is_some_and(|interval| interval.is_zero()) {
            return Err(Error::misuse("acquire", "renew_every must not be zero"));
        }
        // Late for a third of what is left at worst, whatever was asked for.
        let most = (self.duration / 3).min((reliable - stop_before) / 2);
        let terms = Terms { stop_before, renew_every: self.renew_every.unwrap_or(most).min(most), jitter: self.jitter };
        let mut request = self.request;
        request.duration = Some(self.duration.try_into().map_err(|_| Error::misuse("acquire", "the duration is too long"))?);
        let (keepalive, begun) = (self.client.keepalive(), self.client.inner().clock.readings());
        Ok(Asking { client: self.client, keepalive, request, duration: self.duration, terms, wait: self.wait, begun, state: State::Begin })
    }

    /// Asks once, and does not wait in the queue.
    ///
    /// # Errors
    /// As [`Asking::next`].
    pub async fn try_acquire(mut self) -> Result<Acquired, Error> {
        self.wait = Wait::No;
        self.acquired().await
    }

    /// Asks, and waits as long as was set. For ever if nothing was set: then it is held, or an error.
    ///
    /// # Errors
    /// As [`Asking::next`]. A wait that is over is [`Error::Refused`].
    pub async fn acquire(mut self) -> Result<Lease, Error> {
        if matches!(self.wait, Wait::No) {
            self.wait = Wait::Forever;
        }
        let text = format!("acquire {}/{}", self.request.namespace, self.request.name);
        match self.acquired().await? {
            Acquired::Held(lease) => Ok(lease),
            Acquired::Denied(lease) => Err(refused(text, format!("{} holds it, and the wait is over", lease.holder))),
        }
    }

    async fn acquired(self) -> Result<Acquired, Error> {
        let mut asking = self.ask()?;
        loop {
            match asking.next().await? {
                Step::Queued { .. } => {}
                Step::Held(lease) => return Ok(Acquired::Held(lease)),
                Step::Denied(lease) => return Ok(Acquired::Denied(lease)),
            }
        }
    }
}

fn refused(call: String, message: String) -> Error {
    Error::Refused(Box::new(Failure::new(call, String::new(), Code::FailedPrecondition, message)))
}

/// The answer to an attempt that did not wait, or has waited.
#[derive(Debug)]
pub enum Acquired {
    /// It is ours.
    Held(Lease),
    /// Somebody else's: the lease as the cluster saw it, with its holder.
    Denied(Box<v1::Lease>),
}

/// What an [`Asking`] has to tell.
#[derive(Debug)]
pub enum Step {
    /// In the queue; told again when the place changes.
    Queued {
        /// 1 is next.
        position: u32,
        /// As the cluster saw it, with its holder.
        lease: Box<v1::Lease>,
    },
    /// It is ours. The last step.
    Held(Lease),
    /// Somebody else's, and there is no wait left. The last step.
    Denied(Box<v1::Lease>),
}

/// An attempt at a lease. It keeps its place in the queue when its replica dies; dropping it gives up the place, or the grant, in the background.
#[derive(Debug)]
pub struct Asking {
    client: Client,
    keepalive: Arc<Keepalive>,
    request: AcquireRequest,
    duration: Duration,
    terms: Terms,
    wait: Wait,
    begun: Readings,
    state: State,
}

#[derive(Debug)]
enum State {
    Begin,
    Asking(Box<Acquiring>),
    /// Granted, but not to be believed before a renewal.
    Claiming(u64),
    Done,
}

impl Asking {
    /// The name that it asks under.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.request.holder
    }

    /// The next step. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::NotApplied`] when nobody answered in time; [`Error::OutcomeUnknown`] when the lease may have been granted, which is then given back
    /// in the background; refused or misuse. Calling again after an error asks anew, as a new attempt.
    pub async fn next(&mut self) -> Result<Step, Error> {
        loop {
            match &mut self.state {
                State::Begin => self.state = State::Asking(Box::new(self.attempt())),
                State::Asking(acquiring) => {
                    let answer = match acquiring.next().await {
                        Ok(answer) => answer,
                        Err(error) => return Err(self.failed(error)),
                    };
                    let sent = acquiring.sent();
                    match answer.and_then(|answer| answer.result) {
                        Some(Answer::Queued(queued)) => {
                            return Ok(Step::Queued { position: queued.position, lease: Box::new(queued.lease.unwrap_or_default()) });
                        }
                        Some(Answer::Granted(Granted { lease: Some(lease), must_renew })) => {
                            if bug!("bug_believes_unclaimed") && must_renew {
                                // A grant from the queue, however old, is believed from when it is heard of (etcd's lock recipe, #11456).
                                return Ok(Step::Held(self.held(lease.token, self.client.inner().clock.readings(), self.duration)));
                            }
                            // One that has taken long is better renewed than believed.
                            let late = self.client.inner().clock.readings().possibly_since(sent) > self.duration / 2;
                            if !must_renew && !late {
                                return Ok(Step::Held(self.held(lease.token, sent, self.duration)));
                            }
                            self.state = State::Claiming(lease.token);
                        }
                        Some(Answer::Denied(denied)) => {
                            if self.left().is_some() {
                                self.state = State::Begin;
                                continue;
                            }
                            self.state = State::Done;
                            return Ok(Step::Denied(Box::new(denied.lease.unwrap_or_default())));
                        }
                        Some(Answer::Ended(Ended { token, reason })) => {
                            let reason = v1::EndReason::try_from(reason).unwrap_or_default();
                            let message = format!("this request id was granted token {token} before, which has ended: {}", reason.as_str_name());
                            return Err(self.failed(refused(self.text(), message)));
                        }
                        Some(Answer::Granted(_)) | None => {
                            return Err(self.failed(refused(self.text(), "the answer says neither yes nor no".into())));
                        }
                    }
                }
                State::Claiming(token) => {
                    let token = *token;
                    if let Some(lease) = self.claim(token).await? {
                        return Ok(Step::Held(lease));
                    }
                    // Too late: it went to the next. Ask again, as somebody new.
                    self.request.request_id.clear();
                    self.state = State::Begin;
                }
                State::Done => return Err(Error::misuse(self.text(), "it was decided before")),
            }
        }
    }

    /// Gives up the place, or the grant, and returns when the cluster knows; dropping does the same in the background, if the runtime lives on.
    ///
    /// # Errors
    /// As [`Client::release`]. Whatever it had then runs out by itself.
    pub async fn give_up(mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Asking(acquiring) if acquiring.undecided() => (*acquiring).give_up().await,
            State::Claiming(token) => {
                let AcquireRequest { namespace, name, .. } = self.request.clone();
                self.client.release(ReleaseRequest { namespace, name, token, ..ReleaseRequest::default() }).await.map(drop)
            }
            State::Begin | State::Asking(_) | State::Done => Ok(()),
        }
    }

    /// What is left of the wait, if it is more than nothing.
    fn left(&self) -> Option<Duration> {
        let waited = || self.client.inner().clock.readings().possibly_since(self.begun);
        let left = match self.wait {
            Wait::No => Duration::ZERO,
            Wait::For(wait) => wait.saturating_sub(waited()).min(LONGEST_WAIT),
            Wait::Forever => LONGEST_WAIT,
        };
        (!left.is_zero()).then_some(left)
    }

    fn attempt(&self) -> Acquiring {
        let mut request = self.request.clone();
        request.wait_for = self.left().and_then(|left| left.try_into().ok());
        self.client.acquire(request)
    }

    /// Renews once before believing; `None` when it is lost.
    async fn claim(&mut self, token: u64) -> Result<Option<Lease>, Error> {
        let inner = self.client.inner();
        let (begun, limit) = (inner.clock.readings(), self.duration.min(CLAIM));
        let (sent, answer) = loop {
            let items = vec![RenewItem { token, ..RenewItem::default() }];
            let (sent, answer) = match self.keepalive.stream.send_within(items, limit).await {
                Ok(renewal) => (renewal.sent(), renewal.await),
                Err(error) => return Err(self.failed(error)),
            };
            let passed = inner.clock.readings().possibly_since(begun);
            // It may be claimed as long as the cluster does not say otherwise: its clock stands still while it cannot commit.
            if !matches!(answer, Err(Error::NotApplied(_) | Error::OutcomeUnknown(_))) || passed >= inner.request_timeout {
                break (sent, answer);
            }
        };
        match answer.map(|answer| answer.results.into_iter().next().and_then(|result| result.result)) {
            Ok(Some(renew_result::Result::Renewed(renewed))) => {
                let duration = renewed.duration.and_then(|duration| length(duration.seconds, duration.nanos)).unwrap_or_default();
                let late = inner.clock.readings().possibly_since(sent) > duration / 2;
                // Otherwise around again, with a fresh start.
                if late { Box::pin(self.claim(token)).await } else { Ok(Some(self.held(token, sent, duration))) }
            }
            Ok(Some(renew_result::Result::Lost(_))) => Ok(None),
            Ok(None) => Err(self.failed(refused(self.text(), "the answer to the claim is empty".into()))),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn held(&mut self, token: u64, sent: Readings, duration: Duration) -> Lease {
        self.state = State::Done;
        let AcquireRequest { namespace, name, holder, .. } = self.request.clone();
        let hold = Hold::new(Identity { namespace, name, holder, token }, self.terms, Arc::clone(&self.client.inner().clock), sent, duration);
        Lease::keep(self.client.clone(), Arc::clone(&self.keepalive), hold, sent)
    }

    /// Gives back what may have been granted; the next attempt is a new one.
    fn failed(&mut self, error: Error) -> Error {
        self.give_back();
        self.request.request_id.clear();
        self.state = State::Begin;
        error
    }

    fn give_back(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Done);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        match state {
            State::Asking(acquiring) if acquiring.undecided() => {
                self.client.inner().errands.spawn_on((*acquiring).give_up(), &runtime);
            }
            State::Claiming(token) => {
                let AcquireRequest { namespace, name, .. } = self.request.clone();
                let client = self.client.clone();
                let errands = &self.client.inner().errands;
                errands.spawn_on(async move { client.release(ReleaseRequest { namespace, name, token, ..ReleaseRequest::default() }).await }, &runtime);
            }
            State::Begin | State::Asking(_) | State::Done => {}
        }
    }

    fn text(&self) -> String {
        format!("acquire {}/{}", self.request.namespace, self.request.name)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.give_back();
    }
}
