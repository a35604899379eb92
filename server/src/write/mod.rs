//! The write path: every replica's [`Router`] brings a command to the raft leader, whose proposer turns many into one entry.
//!
//! `proposer.rs` drains a bounded two-lane queue (`lanes.rs`) into one entry at a time, stamps it (`lease_clock.rs`) after the last command was
//! drained, and proposes ticks; `forward.rs` carries batches of commands from followers over one long-lived stream; `codec.rs` turns wire
//! entries into the core's and outcomes into wire ones.

pub(crate) mod codec;
pub(crate) mod forward;
mod lanes;
mod lease_clock;
mod proposer;
#[cfg(test)]
mod tests;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tenure_proto::peer::v1::{Command, Outcome, command::Kind};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use proposer::Proposer;

use self::{
    forward::Forwarder,
    lanes::{Answer, Done, Undone},
};
use crate::{
    config::ServiceLimits,
    consensus::{Consensus, Leadership},
    peer::Peers,
};

/// Between attempts while nothing changes, doubling, up to half of it more at random.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// Brings commands to the raft leader, wherever it is; cheap to clone.
#[derive(Clone)]
pub(crate) struct Router(Arc<Shared>);

struct Shared {
    consensus: Consensus,
    /// To look at; who waits for news clones it.
    leadership: watch::Receiver<Leadership>,
    proposer: Proposer,
    forwarder: Forwarder,
    rng: Mutex<SmallRng>,
    /// Set by [`Router::run`]'s end.
    stopped: CancellationToken,
}

/// What the caller may conclude when there is no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    /// Not applied: queues are full.
    #[error("the raft leader's queue is full")]
    Overloaded,
    /// Not applied: no raft leader could be reached in time.
    #[error("no raft leader within {0:?}")]
    NoLeader(Duration),
    /// May or may not have been applied.
    #[error("the outcome is not known")]
    Unknown,
    /// This replica is going down; not applied.
    #[error("this replica is shutting down")]
    Stopping,
}

impl Router {
    /// `seed`: for the jitter of its pauses.
    pub(crate) fn new(consensus: Consensus, proposer: Proposer, peers: Peers, limits: &ServiceLimits, seed: u64) -> Self {
        let forwarder = Forwarder::new(peers, limits.queue);
        let (rng, leadership) = (Mutex::new(SmallRng::seed_from_u64(seed)), consensus.leadership());
        Self(Arc::new(Shared { consensus, leadership, proposer, forwarder, rng, stopped: CancellationToken::new() }))
    }

    /// Carries commands to other raft leaders until `stopping`; spawn it once.
    pub(crate) async fn run(&self, stopping: CancellationToken) {
        let Shared { consensus, forwarder, stopped, .. } = &*self.0;
        forwarder.run(consensus.node_id(), consensus.leadership(), &stopping).await;
        stopped.cancel();
    }

    /// One command, one outcome. Within `patience` it follows the raft leader and sends again what was surely not applied
    /// (and what may have been, when sending it again is harmless: renewals, releases, acquires with a request id, sessions).
    pub(crate) async fn submit(&self, command: Command, patience: Duration) -> Result<Outcome, SubmitError> {
        let mut submission = self.begin(command);
        match tokio::time::timeout(patience, &mut submission).await {
            Ok(outcome) => outcome,
            Err(_) => Err(submission.given_up(patience)),
        }
    }

    /// As [`Self::submit`], for ever: patience is the caller's. The command is on its way at once, polled or not.
    pub(crate) fn begin(&self, command: Command) -> Submission {
        let command = Arc::new(command);
        let first = self.0.attempt(&command);
        Submission { router: self.clone(), command, state: State::First(first) }
    }
}

/// A command on its way.
pub(crate) struct Submission {
    router: Router,
    command: Arc<Command>,
    state: State,
}

enum State {
    /// Almost always the only attempt, so it costs no more than its answer.
    First(oneshot::Receiver<Done>),
    Again {
        following: BoxFuture<'static, Result<Outcome, SubmitError>>,
        /// Whether an attempt may have been, or may yet be, applied.
        in_doubt: Arc<AtomicBool>,
    },
}

impl Submission {
    /// What may be concluded when nobody waits for it any longer.
    pub(crate) fn given_up(&self, patience: Duration) -> SubmitError {
        match &self.state {
            State::Again { in_doubt, .. } if !in_doubt.load(Ordering::Relaxed) => SubmitError::NoLeader(patience),
            State::First(_) | State::Again { .. } => SubmitError::Unknown,
        }
    }

    /// Whether it gets on only while it is polled: it is looking for the raft leader.
    pub(crate) fn is_searching(&self) -> bool {
        matches!(self.state, State::Again { .. })
    }
}

impl Future for Submission {
    type Output = Result<Outcome, SubmitError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::First(first) => match ready!(first.poll_unpin(cx)).unwrap_or(Err(Undone::Unknown)) {
                    Ok(outcome) => return Poll::Ready(Ok(outcome)),
                    Err(undone) => {
                        let (shared, command, in_doubt) = (Arc::clone(&this.router.0), Arc::clone(&this.command), Arc::<AtomicBool>::default());
                        let following = {
                            let in_doubt = Arc::clone(&in_doubt);
                            async move { shared.follow(&command, undone, &in_doubt).await }.boxed()
                        };
                        this.state = State::Again { following, in_doubt };
                    }
                },
                State::Again { following, .. } => return following.poll_unpin(cx),
            }
        }
    }
}

impl Shared {
    /// Hands it to whoever leads now, as far as is known here.
    fn attempt(&self, command: &Arc<Command>) -> oneshot::Receiver<Done> {
        let (leading, raft_leader) = {
            let now = self.leadership.borrow();
            (now.leading.is_some(), now.raft_leader)
        };
        let (answer, done) = Answer::one();
        if leading {
            self.proposer.enqueue(Arc::clone(command), answer);
        } else if raft_leader.is_some_and(|id| id != self.consensus.node_id()) {
            self.forwarder.lanes.push(Arc::clone(command), answer);
        } else {
            answer.send(Err(if self.stopped.is_cancelled() { Undone::Stopped } else { Undone::NotLeader }));
        }
        done
    }

    /// After an attempt that came to nothing.
    async fn follow(&self, command: &Arc<Command>, mut undone: Undone, in_doubt: &AtomicBool) -> Result<Outcome, SubmitError> {
        // Nothing of it was seen yet: the first look at it is news, so the second attempt is made at once.
        let mut leadership = self.leadership.clone();
        let mut pause = PAUSE;
        let mut doubt = false;
        loop {
            match undone {
                Undone::NotLeader => {}
                Undone::Unknown if may_repeat(command) => doubt = true,
                Undone::Unknown => return Err(SubmitError::Unknown),
                // What is said of this attempt is not true of one before it.
                Undone::Overloaded | Undone::Stopped if doubt => return Err(SubmitError::Unknown),
                Undone::Overloaded => return Err(SubmitError::Overloaded),
                Undone::Stopped => return Err(SubmitError::Stopping),
            }
            in_doubt.store(doubt, Ordering::Relaxed);
            let jittered = pause.mul_f64(self.rng.lock().random_range(1.0..1.5));
            tokio::select! {
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return Err(if doubt { SubmitError::Unknown } else { SubmitError::Stopping });
                    }
                    pause = PAUSE;
                }
                () = tokio::time::sleep(jittered) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
            in_doubt.store(true, Ordering::Relaxed);
            undone = match self.attempt(command).await.unwrap_or(Err(Undone::Unknown)) {
                Ok(outcome) => return Ok(outcome),
                Err(undone) => undone,
            };
        }
    }
}

/// Whether applying it twice is as good as once, and applying it late is harmless.
fn may_repeat(command: &Command) -> bool {
    match &command.kind {
        Some(Kind::Renew(_) | Kind::Release(_) | Kind::KeepSession(_) | Kind::Detach(_)) => true,
        Some(Kind::Acquire(acquire)) => !acquire.request_id.is_empty(),
        // bug_write_retried: whatever was not answered is sent again, edits and deletes too (Jepsen's indeterminate operations; etcd's client retries).
        Some(Kind::Put(_) | Kind::Delete(_)) => tenure_lease::bug!("bug_write_retried"),
        Some(Kind::Bootstrap(_)) | None => false,
    }
}
