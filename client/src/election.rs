//! Leader election: one of many processes leads, the others wait in the cluster's queue.
//!
//! It must never return a leadership without a live token and a deadline, nor let work go on after the deadline without having told it to stop.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    asking::{LeaseBuilder, Step},
    client::Client,
    clock::Readings,
    error::{Error, Failure},
    hold::LostReason,
    lease::Lease,
    observe::{Leader, Observation},
};

/// client-go asks as much, so that one slow renewal is not the end.
const JITTER: f64 = 1.2;
/// An aborted task ends at its next await: at once, unless it blocks.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// Settings of a [`LeaderElection`]. The defaults are client-go's.
#[derive(Clone, Debug)]
#[must_use]
pub struct ElectionBuilder {
    client: Client,
    namespace: String,
    name: String,
    identity: Option<String>,
    data: Vec<u8>,
    lease_duration: Duration,
    renew_deadline: Option<Duration>,
    retry_period: Option<Duration>,
}

impl ElectionBuilder {
    /// Who campaigns, at most 256 bytes; no two processes may have the same. Default: the host's name and a fresh UUID.
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Published while leading, for [`LeaderElection::observe`]: an address, say. At most 4 KiB.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.data = data.into();
        self
    }

    /// How long the others wait when the elected leader dies. Default 15 s. Set alone, it brings the other two along in proportion.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.lease_duration = duration;
        self
    }

    /// How long to lead on without a successful renewal. What is left until the lease duration is the time to stop in. Default: two thirds of the
    /// lease duration (10 s).
    pub fn renew_deadline(mut self, deadline: Duration) -> Self {
        self.renew_deadline = Some(deadline);
        self
    }

    /// How often to renew at least, and how long to pause after the cluster refused. Default: 2/15 of the lease duration (2 s).
    pub fn retry_period(mut self, period: Duration) -> Self {
        self.retry_period = Some(period);
        self
    }

    /// Checks the settings; sends nothing.
    ///
    /// # Errors
    /// [`Error::Misuse`] unless lease duration > renew deadline > 1.2 × retry period > 0, and there is a name and an identity.
    pub fn build(self) -> Result<LeaderElection, Error> {
        let renew_deadline = self.renew_deadline.unwrap_or(self.lease_duration * 2 / 3);
        let retry_period = self.retry_period.unwrap_or(self.lease_duration * 2 / 15);
        let wrong = |message: String| Err(Error::misuse("election", message));
        if self.name.is_empty() || self.identity.as_ref().is_some_and(String::is_empty) {
            return wrong("name and identity must not be empty".into());
        }
        if self.lease_duration <= renew_deadline {
            return wrong(format!("lease_duration ({:?}) must be greater than renew_deadline ({renew_deadline:?})", self.lease_duration));
        }
        if retry_period.is_zero() || renew_deadline <= retry_period.mul_f64(JITTER) {
            return wrong(format!("renew_deadline ({renew_deadline:?}) must be greater than 1.2 × retry_period ({retry_period:?}), and that than zero"));
        }
        let identity = self.identity.unwrap_or_else(|| self.client.unique_identity());
        let Self { client, namespace, name, data, lease_duration, .. } = self;
        Ok(LeaderElection { client, namespace, name, identity, data, lease_duration, renew_deadline, retry_period })
    }
}

/// One candidate in one election. Cheap to clone; a clone is the same candidate, so campaign with one of them.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    client: Client,
    namespace: String,
    name: String,
    identity: String,
    data: Vec<u8>,
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl LeaderElection {
    /// Settings first. The lease `namespace/name` is the election; an empty namespace is `default`.
    pub fn builder(client: &Client, namespace: impl Into<String>, name: impl Into<String>) -> ElectionBuilder {
        ElectionBuilder {
            client: client.clone(),
            namespace: namespace.into(),
            name: name.into(),
            identity: None,
            data: Vec::new(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: None,
            retry_period: None,
        }
    }

    /// Of this candidate.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Waits in the cluster's queue until elected. No polling: the grant is pushed, in the commit in which the one before ends. When the replica
    /// that carries the wait dies, the place is kept and taken up again on another one; while no replica answers at all, this goes on trying.
    ///
    /// Dropping the future withdraws the candidate.
    ///
    /// # Errors
    /// [`Error::Misuse`], and [`Error::Refused`] for what waiting does not cure (a full namespace, say).
    pub async fn campaign(&self) -> Result<Leadership, Error> {
        let mut asking = self.lease(&self.data).wait_forever().ask()?;
        loop {
            match asking.next().await {
                Ok(Step::Held(lease)) => return Ok(Leadership { election: self.clone(), lease }),
                Ok(Step::Queued { position, .. }) => tracing::debug!(election = self.name, position, "in the queue"),
                // A wait for ever is not denied.
                Ok(Step::Denied(_)) => {}
                Err(error @ Error::Misuse(_)) => return Err(error),
                Err(error @ Error::Refused(_)) if error.failure().retry_after.is_none() => return Err(error),
                Err(error) => {
                    tracing::warn!(election = self.name, %error, "cannot campaign; trying again");
                    tokio::time::sleep(self.client.inner().random.jitter(self.retry_period)).await;
                }
            }
        }
    }

    fn lease(&self, data: &[u8]) -> LeaseBuilder {
        self.client
            .lease(&self.name)
            .namespace(&self.namespace)
            .holder(&self.identity)
            .duration(self.lease_duration)
            .data(data)
            .stop_before(self.lease_duration - self.renew_deadline)
            .renew_every(self.retry_period)
    }

    /// Who leads, as it changes: first the present state, then every change.
    ///
    /// # Errors
    /// [`Error::Misuse`] or [`Error::Refused`]; see [`Observation::next`] for the rest.
    pub async fn observe(&self) -> Result<Observation, Error> {
        Observation::open(self.client.clone(), self.namespace.clone(), self.name.clone()).await
    }

    /// Campaigns, and leads once, in the shape of client-go's `LeaderElector.Run`:
    ///
    /// - `on_started(stop, token)` is spawned when elected. It must end when `stop` fires, which it does at a loss (before anybody else may lead) and
    ///   when `cancel` fires. When it ends, the leadership is resigned, so that no process leads without working.
    /// - `on_stopped()` is called after that, once, however it ended, and only if this candidate led.
    /// - `on_new_leader(leader)` is called for each new elected leader, this one included: of itself possibly before `on_started`.
    ///
    /// After `cancel` the lease goes on being renewed while `on_started` winds down, and is released as soon as it has ended. Work that has not
    /// ended within the renew deadline after `stop` fired, or by the deadline of a lost lease, is aborted at its next await. If it never reaches one,
    /// the lease is not released but left to run out, and this says [`RunError::StillRunning`]. (On a current-thread runtime such work stops
    /// everything, this too. The lease runs out all the same, and [`Leadership::is_leader`] looks at the clock.)
    ///
    /// Dropping the future cancels the work and aborts it.
    ///
    /// # Errors
    /// A callback panicked (contained; the lease is released), or work could not be stopped, or as [`LeaderElection::campaign`].
    pub async fn run<Work>(
        &self,
        cancel: CancellationToken,
        on_started: impl FnOnce(CancellationToken, u64) -> Work,
        on_stopped: impl FnOnce(),
        mut on_new_leader: impl FnMut(&Leader),
    ) -> Result<Finished, RunError>
    where
        Work: Future<Output = ()> + Send + 'static,
    {
        let mut watching = Watching { election: self, observation: None };
        let campaign = self.campaign();
        tokio::pin!(campaign);
        let leadership = loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(Finished::Cancelled),
                elected = &mut campaign => break elected.map_err(RunError::Campaign)?,
                leader = watching.next() => contained(|| on_new_leader(&leader))?,
            }
        };
        let stop = leadership.lease.cancellation();
        let started = contained(|| on_started(stop.clone(), leadership.token()));
        let finished = match started {
            Ok(work) => {
                let work = Running { work: tokio::spawn(work), stop: stop.clone() };
                self.lead(&cancel, &leadership, work, &mut watching, &mut on_new_leader).await
            }
            Err(panicked) => Err(panicked),
        };
        let resign = !matches!(finished, Err(RunError::StillRunning)) && leadership.lease.lost_reason().is_none();
        if resign && let Err(error) = leadership.resign().await {
            tracing::warn!(election = self.name, %error, "cannot resign; the lease runs out by itself");
        }
        contained(on_stopped).and(finished)
    }

    async fn lead(
        &self,
        cancel: &CancellationToken,
        leadership: &Leadership,
        mut running: Running,
        watching: &mut Watching<'_>,
        on_new_leader: &mut impl FnMut(&Leader),
    ) -> Result<Finished, RunError> {
        let mut ended = Ok(Finished::WorkEnded);
        let mut asked_to_stop: Option<Readings> = None;
        let (mut lost, mut aborted) = (false, false);
        loop {
            let grace = asked_to_stop.map(|since| {
                let passed = self.client.inner().clock.readings().possibly_since(since);
                let safe = leadership.lease.remaining();
                match (aborted, lost) {
                    (false, false) => self.renew_deadline.saturating_sub(passed),
                    // The last tenth of the time to stop in is for stopping by force.
                    (false, true) => safe.saturating_sub((self.lease_duration - self.renew_deadline) / 10),
                    (true, false) => LAST_GRACE,
                    (true, true) => safe.clamp(LAST_GRACE / 10, LAST_GRACE),
                }
            });
            tokio::select! {
                biased;
                worked = &mut running.work => return match worked {
                    Err(error) if error.is_panic() => Err(RunError::Panicked(words(error.into_panic().as_ref()))),
                    _ => ended,
                },
                () = cancel.cancelled(), if asked_to_stop.is_none() => {
                    asked_to_stop = Some(self.client.inner().clock.readings());
                    ended = Ok(Finished::Cancelled);
                    running.stop.cancel();
                }
                reason = leadership.lost(), if !lost => {
                    lost = true;
                    asked_to_stop.get_or_insert_with(|| self.client.inner().clock.readings());
                    ended = ended.map(|_| Finished::Lost(reason));
                }
                () = tokio::time::sleep(grace.unwrap_or_default()), if grace.is_some() => {
                    if aborted {
                        return Err(RunError::StillRunning);
                    }
                    aborted = true;
                    running.work.abort();
                }
                leader = watching.next() => if let Err(panicked) = contained(|| on_new_leader(&leader)) {
                    // As if it had been cancelled, but that is what will be told.
                    ended = Err(panicked);
                    asked_to_stop.get_or_insert_with(|| self.client.inner().clock.readings());
                    running.stop.cancel();
                }
            }
        }
    }
}

/// Work that does not outlive whoever waits for it.
struct Running {
    work: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.work.abort();
    }
}

/// Tells new leaders, and never fails: an election goes on without being watched.
struct Watching<'a> {
    election: &'a LeaderElection,
    observation: Option<Observation>,
}

impl Watching<'_> {
    async fn next(&mut self) -> Leader {
        loop {
            let told = match &mut self.observation {
                Some(observation) => observation.next().await,
                None => match self.election.observe().await {
                    Ok(observation) => {
                        self.observation = Some(observation);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match told {
                Ok(Some(leader)) => return leader,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot observe the election; trying again");
                    tokio::time::sleep(self.election.retry_period).await;
                }
            }
        }
    }
}

fn contained<T>(callback: impl FnOnce() -> T) -> Result<T, RunError> {
    std::panic::catch_unwind(AssertUnwindSafe(callback)).map_err(|panic| RunError::Panicked(words(panic.as_ref())))
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".into())
}

/// How [`LeaderElection::run`] came to an end.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum Finished {
    /// `cancel` fired. The lease was released, if it was held.
    Cancelled,
    /// `on_started` ended by itself. The lease was released.
    WorkEnded,
    /// The lease was lost while `on_started` ran, which has ended since.
    Lost(LostReason),
}

/// Why [`LeaderElection::run`] failed.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not elected.
    #[error(transparent)]
    Campaign(Error),
    /// A callback panicked, with these words.
    #[error("a callback panicked: {0}")]
    Panicked(String),
    /// `on_started` was told to stop, and then aborted, and runs on all the same. The only safe thing left is to end the process.
    #[error("the work did not stop when it was told to; end this process before the lease runs out")]
    StillRunning,
}

/// Being the elected leader. Dropping it stops the renewals; the others must then wait until the lease runs out ([`Leadership::resign`] hands over
/// at once).
#[derive(Debug)]
#[must_use = "dropping a leadership ends it"]
pub struct Leadership {
    election: LeaderElection,
    lease: Lease,
}

impl Leadership {
    /// The fencing token: larger than that of every elected leader before.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.lease.token()
    }

    /// Whether this process leads, by the clock as it is now. Once false it stays false; false also when nothing was renewed for the renew deadline.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.lease.is_held()
    }

    /// Waits until it is over, and says why.
    pub async fn lost(&self) -> LostReason {
        self.lease.lost().await
    }

    /// Fires when it is over, before anybody else leads.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.lease.cancellation()
    }

    /// The guard below.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Publishes other data (at most 4 KiB), and leads on under another token.
    ///
    /// The cluster takes data with a grant only, so this takes the lease anew, ahead of the queue, in three steps: this leadership ends on this side
    /// (the cancellation given before fires, [`Leadership::is_leader`] is false); the cluster grants a larger token, which fences the one before;
    /// it leads again. Take token and cancellation anew after it, give them to the work again, and do this rarely.
    ///
    /// What may be concluded: after `Ok` it leads, under the new token and with the new data, and nobody else has led in between. After an error, or
    /// dropped in the middle, it does not lead, and what may have been granted meanwhile is given back in the background: campaign again. It cannot
    /// end the other way round, since a replica that fails to deliver the new token gives it back too, and then somebody else may lead at once.
    ///
    /// # Errors
    /// [`Error::Refused`] when it does not lead any more; otherwise as [`Asking::next`](crate::Asking::next). [`Leadership::resign`] then hands over
    /// at once what the lease of before may still be; without it, that runs out within the lease duration.
    pub async fn proclaim(&mut self, data: &[u8]) -> Result<(), Error> {
        let over = || Error::Refused(Box::new(Failure::new("proclaim".into(), String::new(), Code::FailedPrecondition, "it does not lead".into())));
        if !self.is_leader() {
            return Err(over());
        }
        let mut asking = self.election.lease(data).reclaim(true).ask()?;
        // Before anything is sent: from then on somebody else may be granted the lease without our hearing of it.
        self.lease.supersede();
        match asking.next().await? {
            Step::Held(lease) => self.lease = lease,
            Step::Queued { .. } | Step::Denied(_) => return Err(over()),
        }
        Ok(())
    }

    /// Hands over to the first in the queue, in one commit. Stop the work before. May be called again after an error.
    ///
    /// # Errors
    /// As [`Lease::release`]; then the lease runs out by itself.
    pub async fn resign(&self) -> Result<(), Error> {
        self.lease.release().await
    }
}
