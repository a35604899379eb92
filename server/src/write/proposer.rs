//! Turns many commands into one entry, while this replica is raft leader, and keeps the lease clock going when there are none.
//!
//! Natural group commit: while one entry is on its way, commands gather for the next; nothing ever waits for more to come. An entry is stamped
//! after its last command was drained, never before: what reached the raft leader in time is not overtaken by the expiry that it prevents.
//! Never proposes under a leader id other than the one that it holds office under, nor anything before the cluster's Bootstrap.

use std::{iter, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use tenure_lease::{LeaseTime, Outcome, RaftLeaderId, Refusal, UnixMillis};
use tenure_proto::peer::v1::{Bootstrap, Command, command::Kind};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    codec,
    lanes::{Answer, Answers, Job, Lane, Lanes, Undone},
    lease_clock::LeaseClock,
};
use crate::{
    clock::Clock,
    config::ServiceLimits,
    consensus::{Consensus, ProposeError},
    failpoint,
    replica::Applications,
};

/// Entries on their way at once. More cost more work a command and gain nothing while an entry takes all that waits (docs/decisions/).
const IN_FLIGHT: usize = 1;

/// Bounds of an entry. Bytes: what a follower can take, write and fsync without holding up the heartbeat.
const ENTRY_COMMANDS: usize = 4_096;
const ENTRY_BYTES: usize = 1 << 20;

/// Milliseconds of lease clock between entries while anything is held or waited for: what a change of raft leader may cost (promise G4).
const TICK_MS: u64 = 500;

/// Milliseconds of lease clock between an entry and a tick at least, so that the deadlines of many leases share ticks.
const TICKS_APART_MS: u64 = 5;

/// After an entry that was not committed, unless leadership changes before.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a replica that goes down waits for the entries on their way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proposer(Arc<Shared>);

struct Shared {
    consensus: Consensus,
    applications: Arc<Applications>,
    clock: Arc<dyn Clock>,
    limits: ServiceLimits,
    lanes: Lanes,
    /// Where the calls of this replica are served, if that is another thread.
    clients: Option<Handle>,
}

impl Proposer {
    /// `clients`: the runtime that serves this replica's calls, if that is on another thread.
    pub(crate) fn new(consensus: Consensus, applications: Arc<Applications>, clock: Arc<dyn Clock>, limits: &ServiceLimits, clients: Option<Handle>) -> Self {
        Self(Arc::new(Shared { consensus, applications, clock, limits: *limits, lanes: Lanes::new(limits.queue), clients }))
    }

    /// Commands that wait for an entry (renewals count by their items), for metrics: those that go first, and the rest.
    pub(crate) fn queued(&self) -> [usize; 2] {
        [Lane::First, Lane::Rest].map(|lane| self.0.lanes.waiting(lane))
    }

    /// What the commands of other replicas are held to.
    pub(super) fn limits(&self) -> &ServiceLimits {
        &self.0.limits
    }

    /// Queues a command; answers at once if this replica is not the raft leader or its queue is full.
    pub(super) fn enqueue(&self, command: Arc<Command>, answer: Answer) {
        self.0.lanes.push(command, answer);
    }

    /// One command, in an entry that says it is `former`'s, committed under `id`.
    #[cfg(test)]
    pub(super) async fn propose_as(&self, id: RaftLeaderId, former: RaftLeaderId, command: Arc<Command>, answer: Answer) {
        let lanes = Lanes::new(1);
        lanes.open();
        lanes.push(Arc::clone(&command), answer);
        let stamp = self.0.applications.progress().clock;
        let entry = codec::encode_entry(former, stamp, UnixMillis(0), iter::once(&*command), 0);
        self.0.propose(Proposal { office: u64::MAX, id, stamp, entry, jobs: lanes.drain(1, 1) }).await;
    }

    /// Until `stopping`; spawn it once.
    pub(crate) async fn run(&self, stopping: CancellationToken) {
        let shared = &*self.0;
        let mut leadership = shared.consensus.leadership();
        let mut former: Option<Office> = None;
        // They outlive the office in which they were proposed: what came of them may be known only later.
        let mut in_flight = FuturesUnordered::new();
        'offices: loop {
            let leading = leadership.borrow_and_update().leading;
            let Some(id) = leading else {
                tokio::select! {
                    () = stopping.cancelled() => break,
                    changed = leadership.changed() => if changed.is_err() { break },
                    Some(_) = in_flight.next(), if !in_flight.is_empty() => {}
                }
                continue;
            };
            let mut office = shared.take_office(id, former);
            loop {
                let mut wait = None;
                let mut for_work = false;
                if office.pausing {
                    wait = Some(PAUSE);
                } else if office.in_flight < IN_FLIGHT {
                    match shared.next(&mut office) {
                        Next::Propose(proposal) => {
                            office.in_flight += 1;
                            in_flight.push(shared.propose(proposal));
                            continue;
                        }
                        Next::Wait(until_tick) => wait = until_tick,
                    }
                    for_work = true;
                }
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => break 'offices,
                    changed = leadership.changed() => {
                        if changed.is_err() {
                            break 'offices;
                        }
                        if leadership.borrow_and_update().leading != Some(id) {
                            break;
                        }
                    }
                    Some(report) = in_flight.next(), if !in_flight.is_empty() => {
                        if report.office == office.number {
                            office.in_flight -= 1;
                            office.pausing = !report.committed;
                        }
                    }
                    () = shared.lanes.wait(), if for_work => {}
                    () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => office.pausing = false,
                }
            }
            shared.lanes.close(Undone::NotLeader);
            former = Some(office);
        }
        shared.lanes.close(Undone::Stopped);
        // What is on its way is answered when consensus says what came of it; dropped here, it is not known.
        let _ = tokio::time::timeout(LAST_ANSWERS, async { while in_flight.next().await.is_some() {} }).await;
    }
}

/// This replica as raft leader, from the moment when it may propose until it may not.
struct Office {
    number: u64,
    id: RaftLeaderId,
    lease_clock: LeaseClock,
    in_flight: usize,
    /// The last entry was not committed: whatever is wrong, do not spin on it.
    pausing: bool,
    open: bool,
}

/// An entry to propose.
struct Proposal {
    office: u64,
    id: RaftLeaderId,
    stamp: LeaseTime,
    entry: Bytes,
    jobs: Vec<Job>,
}

/// What came of one.
struct Report {
    office: u64,
    committed: bool,
}

enum Next {
    Propose(Proposal),
    /// For work, or for a tick that is due after so long.
    Wait(Option<Duration>),
}

impl Shared {
    fn take_office(&self, id: RaftLeaderId, former: Option<Office>) -> Office {
        let (applied, now) = (self.applications.progress().clock, self.clock.readings());
        let number = former.as_ref().map_or(0, |former| former.number + 1);
        let lease_clock = match former {
            // Back in the same term: what was stamped then may still be committed.
            Some(former) if former.id == id => {
                let mut lease_clock = former.lease_clock;
                lease_clock.anchor_again(applied, now);
                lease_clock
            }
            _ => LeaseClock::anchored(applied, now),
        };
        tracing::info!(term = id.term, lease_clock_ms = applied.0, "leading: proposing from here");
        Office { number, id, lease_clock, in_flight: 0, pausing: false, open: false }
    }

    fn next(&self, office: &mut Office) -> Next {
        if !office.open {
            if !self.applications.table.read().is_bootstrapped() {
                return Next::Propose(self.bootstrap(office));
            }
            self.lanes.open();
            office.open = true;
        }
        let jobs = self.lanes.drain(ENTRY_COMMANDS, ENTRY_BYTES);
        if !jobs.is_empty() {
            let commands = jobs.iter().map(|job| &*job.command);
            let size = jobs.iter().map(|job| job.size + 8).sum();
            let (stamp, entry) = self.stamped(office, commands, size);
            return Next::Propose(Proposal { office: office.number, id: office.id, stamp, entry, jobs });
        }
        match self.until_tick(office) {
            Some(Duration::ZERO) => {
                let (stamp, entry) = self.stamped(office, iter::empty(), 0);
                Next::Propose(Proposal { office: office.number, id: office.id, stamp, entry, jobs: Vec::new() })
            }
            until_tick => Next::Wait(until_tick),
        }
    }

    /// `None`: nothing is held or waited for, so the clock may stand still. Zero also while more has expired than one entry could end.
    fn until_tick(&self, office: &Office) -> Option<Duration> {
        let (timer, clock) = {
            let table = self.applications.table.read();
            (table.next_timer()?, table.clock())
        };
        if timer < clock {
            return Some(Duration::ZERO);
        }
        let last = office.lease_clock.last();
        // Expiry comes when the clock is past the deadline, not at it.
        let when = timer.after(1).max(last.after(TICKS_APART_MS)).min(last.after(TICK_MS));
        Some(office.lease_clock.until(when, self.clock.readings()))
    }

    fn bootstrap(&self, office: &mut Office) -> Proposal {
        // Later than any counter of an earlier cluster under this name, unless the wall clock went back in between (promise G2).
        failpoint::pass("bootstrap_before_propose");
        let counter_start = self.clock.wall_unix_ms() << 10;
        let bootstrap = Bootstrap { counter_start, leases_per_namespace: self.limits.leases_per_namespace, waiters_per_lease: self.limits.waiters_per_lease };
        tracing::info!(counter_start, "the cluster is new: proposing its first command");
        let command = Command { kind: Some(Kind::Bootstrap(bootstrap)) };
        let (stamp, entry) = self.stamped(office, iter::once(&command), 0);
        Proposal { office: office.number, id: office.id, stamp, entry, jobs: Vec::new() }
    }

    /// Encodes what was drained. The stamp is taken here, after draining.
    fn stamped<'a>(&self, office: &mut Office, commands: impl Iterator<Item = &'a Command>, size: usize) -> (LeaseTime, Bytes) {
        let stamp = office.lease_clock.stamp(self.clock.readings(), self.applications.progress().clock);
        let wall = UnixMillis(self.clock.wall_unix_ms());
        (stamp, codec::encode_entry(office.id, stamp, wall, commands, size))
    }

    /// Proposes, and hands everybody the outcome.
    async fn propose(&self, proposal: Proposal) -> Report {
        let Proposal { office, id, stamp, entry, jobs } = proposal;
        failpoint::pass("propose_before");
        let mut answers = Answers::new(self.clients.as_ref());
        match self.consensus.propose(id, entry).await {
            Ok(outcomes) => {
                failpoint::pass("propose_before_answers");
                let mut outcomes = outcomes.into_iter();
                for job in jobs {
                    let done = match outcomes.next() {
                        // Committed under another raft leader: apply did nothing.
                        Some(Outcome::Refused(Refusal::Inert)) => Err(Undone::NotLeader),
                        Some(outcome) => Ok(codec::outcome_to_wire(outcome, stamp)),
                        None => Err(Undone::Unknown),
                    };
                    answers.send(job.answer, done);
                }
                Report { office, committed: true }
            }
            Err(error) => {
                let undone = match error {
                    ProposeError::NotLeader => Undone::NotLeader,
                    // It was handed over before consensus stopped.
                    ProposeError::Unknown | ProposeError::Stopped(_) => Undone::Unknown,
                };
                tracing::debug!(term = id.term, commands = jobs.len(), %error, "an entry was not committed");
                for job in jobs {
                    answers.send(job.answer, Err(undone.clone()));
                }
                Report { office, committed: false }
            }
        }
    }
}
