//! The write path: every replica's [`Router`] brings a command to the raft leader, whose proposer turns many into one entry.
//!
//! `proposer.rs` drains a bounded two-lane queue (`lanes.rs`) into one entry at a time, stamps it (`lease_clock.rs`) after the last command was
//! drained, and proposes ticks; `forward.rs` carries batches of commands from followers over one long-lived stream; `rules.rs` says what a command
//! must keep to; `codec.rs` turns wire entries into the core's and outcomes into wire ones.

pub(crate) mod codec;
pub(crate) mod forward;
mod lanes;
mod lease_clock;
mod proposer;
pub(crate) mod rules;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tenure_proto::peer::v1::{Command, Outcome, command::Kind};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub(crate) use proposer::Proposer;

use self::{
    forward::Forwarder,
    lanes::{Answer, Undone},
};
use crate::{config::ServiceLimits, consensus::Consensus, peer::Peers};

/// Between attempts while nothing changes, doubling, up to half of it more at random.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// Brings commands to the raft leader, wherever it is; cheap to clone.
#[derive(Clone)]
pub(crate) struct Router(Arc<Shared>);

struct Shared {
    consensus: Consensus,
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
    /// Not applied: it breaks rules of the raft leader's, whose configuration may differ from this replica's.
    #[error("the raft leader refuses it: {}", rules::named(.0))]
    Invalid(Vec<rules::Violation>),
}

impl Router {
    /// `clients`: the runtime that serves this replica's calls, if that is on another thread. `seed`: for the jitter of its pauses.
    pub(crate) fn new(consensus: Consensus, proposer: Proposer, peers: Peers, limits: &ServiceLimits, clients: Option<Handle>, seed: u64) -> Self {
        let forwarder = Forwarder::new(peers, limits.queue, clients);
        let rng = Mutex::new(SmallRng::seed_from_u64(seed));
        Self(Arc::new(Shared { consensus, proposer, forwarder, rng, stopped: CancellationToken::new() }))
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
        // Whether an attempt may have been, or may yet be, applied.
        let mut in_doubt = false;
        let outcome = tokio::time::timeout(patience, self.0.follow(Arc::new(command), &mut in_doubt)).await;
        match outcome {
            Ok(outcome) => outcome,
            Err(_) if in_doubt => Err(SubmitError::Unknown),
            Err(_) => Err(SubmitError::NoLeader(patience)),
        }
    }
}

impl Shared {
    async fn follow(&self, command: Arc<Command>, in_doubt: &mut bool) -> Result<Outcome, SubmitError> {
        let mut leadership = self.consensus.leadership();
        let mut pause = PAUSE;
        let mut doubt = false;
        loop {
            let (leading, raft_leader) = {
                let now = leadership.borrow_and_update();
                (now.leading.is_some(), now.raft_leader)
            };
            let (answer, done) = Answer::one();
            if leading {
                self.proposer.enqueue(Arc::clone(&command), answer);
            } else if raft_leader.is_some_and(|id| id != self.consensus.node_id()) {
                self.forwarder.lanes.push(Arc::clone(&command), answer);
            } else {
                answer.send(Err(if self.stopped.is_cancelled() { Undone::Stopped } else { Undone::NotLeader }));
            }
            *in_doubt = true;
            let undone = match done.await.unwrap_or(Err(Undone::Unknown)) {
                Ok(outcome) => return Ok(outcome),
                Err(undone) => undone,
            };
            match undone {
                Undone::NotLeader => {}
                Undone::Unknown if may_repeat(&command) => doubt = true,
                Undone::Unknown => return Err(SubmitError::Unknown),
                Undone::Invalid(_) if doubt => return Err(SubmitError::Unknown),
                Undone::Invalid(violations) => return Err(SubmitError::Invalid(violations)),
                // What is said of this attempt is not true of one before it.
                Undone::Overloaded | Undone::Stopped if doubt => return Err(SubmitError::Unknown),
                Undone::Overloaded => return Err(SubmitError::Overloaded),
                Undone::Stopped => return Err(SubmitError::Stopping),
            }
            *in_doubt = doubt;
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
