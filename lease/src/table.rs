//! The table itself: what it holds, the order of an entry, and what can be read from it.
//!
//! Everything that decides anything is replicated state. Slots, hash maps and the lazily kept expiry index are local to a
//! replica and must never influence an outcome.

mod acquire;
mod expiries;
mod hold;
mod invariants;
mod put;
mod queue;
mod release;
mod renew;
pub(crate) mod requests;
mod restore;
pub(crate) mod sessions;
pub(crate) mod slots;
pub(crate) mod tail;
mod timers;
mod tokens;
pub(crate) mod view;

use std::{collections::BTreeMap, fmt, sync::Arc};

use expiries::Expiries;
pub(crate) use queue::{Presence, Queue, Waiter};
use requests::{EndedRequests, NumberMap, RequestKey};
use sessions::Session;
use slots::{RECENT_HOLDS, Slot, Slots};
use tail::Tail;
use timers::Timer;
use tokens::Tokens;

use crate::{
    Applied, Command, Entry, Event, EventKind, Hold, Labels, Lease, LeaseKey, LeaseTime, Limits, Notice, NoticeKind, Outcome, RaftLeaderId, Refusal, Selector,
    SessionId, UnixMillis, WaiterId,
};

/// Numbers of changes stay below this, so that they survive JSON and JavaScript.
pub const COUNTER_END: u64 = 1 << 53;

/// All leases, sessions, queues and remembered requests of a cluster.
#[derive(Debug, Default)]
pub struct LeaseTable {
    pub(crate) bootstrapped: bool,
    pub(crate) clock: LeaseTime,
    /// Number of the newest change.
    pub(crate) counter: u64,
    pub(crate) limits: Limits,
    pub(crate) slots: Slots,
    names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Slot>>,
    /// Live tokens only.
    tokens: Tokens,
    /// One for each hold: an instant not after its deadline.
    expiries: Expiries,
    /// All others, with the slot that they are about.
    timers: BTreeMap<Timer, Slot>,
    pub(crate) queues: BTreeMap<Slot, Arc<Queue>>,
    /// Of waiters.
    requests: NumberMap<RequestKey, (WaiterId, Slot)>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) ended: EndedRequests,
    pub(crate) tail: Tail,
    /// Shared by all leases without labels, or without annotations.
    no_labels: Arc<Labels>,
    #[cfg(feature = "bug_deadlines_reset")]
    raft_leader: RaftLeaderId,
}

/// What one entry brings along, and what comes of it.
#[derive(Debug)]
struct Step {
    wall: UnixMillis,
    want_renewals: bool,
    applied: Applied,
}

impl Step {
    fn notify(&mut self, session: SessionId, waiter: WaiterId, kind: NoticeKind) {
        self.applied.notices.push(Notice { session, waiter, kind });
    }
}

/// Which namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    All,
    /// One.
    Namespace(Arc<str>),
}

impl Scope {
    /// Whether it includes this namespace.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(one) => **one == *namespace,
        }
    }
}

/// Sizes, for Status and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Leases there.
    pub leases: u64,
    /// Held now.
    pub held: u64,
    /// Waiting now.
    pub waiters: u64,
    /// Ended requests remembered.
    pub ended: u64,
}

/// The events asked for are not remembered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// A watch can start after this revision or any later one.
    pub floor: u64,
}

impl fmt::Display for Compacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "changes up to revision {} are no longer kept", self.floor)
    }
}

impl std::error::Error for Compacted {}

impl LeaseTable {
    /// An empty table: refuses everything until [`crate::Command::Bootstrap`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one committed entry. `committed_by` is the leader id of its log id.
    ///
    /// First the renewals, releases and signs of life of sessions; then what has passed at the stamp; then the rest. So a
    /// renewal that reached the raft leader in time is never overtaken by the expiry that it prevents.
    pub fn apply(&mut self, committed_by: RaftLeaderId, entry: Entry, want_renewals: bool) -> Applied {
        let mut step = Step { wall: entry.wall, want_renewals, applied: Applied::default() };
        // bug_former_term: what a deposed raft leader had in mind counts after all (etcd#15247, its second half).
        if entry.proposer != committed_by && !crate::bug!("bug_former_term") {
            step.applied.outcomes = vec![Outcome::Refused(Refusal::Inert); entry.commands.len()];
            return step.applied;
        }
        self.clock = self.clock.max(entry.stamp);
        #[cfg(feature = "bug_deadlines_reset")]
        self.reset_deadlines(committed_by);
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(entry.commands.len());
        for command in &entry.commands {
            // bug_expiry_first: whoever looks for what has expired does not ask what has just come in (etcd's lessor and its apply queue).
            outcomes.push(if goes_first(command) && !crate::bug!("bug_expiry_first") { Some(self.run(command, &mut step)) } else { None });
        }
        self.run_timers(&mut step);
        step.applied.outcomes =
            outcomes.into_iter().zip(&entry.commands).map(|(outcome, command)| outcome.unwrap_or_else(|| self.run(command, &mut step))).collect();
        step.applied
    }

    fn run(&mut self, command: &Command, step: &mut Step) -> Outcome {
        if let Command::Bootstrap { counter_start, limits } = command {
            return self.bootstrap(*counter_start, *limits);
        }
        if !self.bootstrapped {
            return Outcome::Refused(Refusal::NotBootstrapped);
        }
        match command {
            Command::Renew(renew) => self.renew(renew, step),
            Command::Release(release) => self.release(release, step),
            Command::KeepSession { session, close: false } => self.keep_session(*session, step),
            Command::KeepSession { session, close: true } => self.close_session(*session),
            Command::Acquire(acquire) => self.acquire(acquire, step),
            Command::Detach(detach) => self.detach(detach, step),
            Command::Put(put) => self.put(put, step),
            Command::Delete(delete) => self.delete(delete, step),
            Command::Bootstrap { .. } => unreachable!("answered above"),
        }
    }

    fn bootstrap(&mut self, counter_start: u64, limits: Limits) -> Outcome {
        if !self.bootstrapped {
            assert!(counter_start < COUNTER_END, "the counter starts below 2^53");
            self.bootstrapped = true;
            self.counter = counter_start;
            self.limits = limits;
            self.tail = Tail::starting_at(counter_start);
        }
        Outcome::Done
    }

    /// The number of a new change.
    fn next_revision(&mut self) -> u64 {
        self.counter += 1;
        assert!(self.counter < COUNTER_END, "the counter stays below 2^53");
        self.counter
    }

    /// Tells of a change that is not a renewal.
    fn record(&mut self, step: &mut Step, kind: EventKind, lease: Arc<Lease>, ended: Option<Hold>, previous_labels: Option<Arc<Labels>>) {
        let revision = self.counter;
        assert!(self.tail.newest().is_none_or(|newest| newest < revision), "one change is one event");
        let event = Arc::new(Event { revision, kind, lease, ended, previous_labels });
        self.tail.push(event.clone());
        step.applied.events.push(event);
    }

    fn slot(&self, key: &LeaseKey) -> Option<Slot> {
        self.names.get(&key.namespace)?.get(&key.name).copied()
    }

    /// One without any costs nothing.
    fn shared(&self, labels: &Arc<Labels>) -> Arc<Labels> {
        if labels.is_empty() { self.no_labels.clone() } else { labels.clone() }
    }

    fn view(&self, slot: Slot) -> Arc<Lease> {
        view::lease(self.slots.hot(slot), self.slots.cold(slot), self.queue_len(slot))
    }

    /// The lease clock: the largest stamp applied.
    #[must_use]
    pub const fn clock(&self) -> LeaseTime {
        self.clock
    }

    /// Number of the newest change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.counter
    }

    /// Whether the cluster's first command was applied.
    #[must_use]
    pub const fn is_bootstrapped(&self) -> bool {
        self.bootstrapped
    }

    /// One lease now.
    #[must_use]
    pub fn get(&self, key: &LeaseKey) -> Option<Arc<Lease>> {
        self.slot(key).map(|slot| self.view(slot))
    }

    /// Its last 8 holds, newest first, the present one included.
    #[must_use]
    pub fn recent_holds(&self, key: &LeaseKey) -> Vec<Hold> {
        let Some(slot) = self.slot(key) else { return Vec::new() };
        let (hot, cold) = (self.slots.hot(slot), self.slots.cold(slot));
        let past = cold.past.iter().flat_map(|past| past.iter().rev().cloned());
        view::present_hold(hot, cold).into_iter().chain(past).take(RECENT_HOLDS).collect()
    }

    /// What matches, in order of namespace and name. Walks the name index: for scopes of moderate size; see
    /// [`crate::Frozen::list`] for the rest.
    #[must_use]
    pub fn list(&self, scope: &Scope, selector: &Selector) -> Vec<Arc<Lease>> {
        let matching = |names: &BTreeMap<Arc<str>, Slot>| {
            let slots = names.values().filter(|slot| selector.matches(&self.slots.cold(**slot).labels));
            slots.map(|slot| self.view(*slot)).collect::<Vec<_>>()
        };
        match scope {
            Scope::All => self.names.values().flat_map(matching).collect(),
            Scope::Namespace(namespace) => self.names.get(namespace).map(matching).unwrap_or_default(),
        }
    }

    /// How many leases a scope has.
    #[must_use]
    pub fn count(&self, scope: &Scope) -> u64 {
        match scope {
            Scope::All => self.slots.len() as u64,
            Scope::Namespace(namespace) => self.names.get(namespace).map_or(0, |names| names.len() as u64),
        }
    }

    /// Who waits, in order, and whether each is attached.
    #[must_use]
    pub fn queue(&self, key: &LeaseKey) -> Vec<(WaiterId, bool)> {
        let Some(queue) = self.slot(key).and_then(|slot| self.queues.get(&slot)) else { return Vec::new() };
        queue.iter().map(|(id, waiter)| (*id, waiter.presence == Presence::Attached)).collect()
    }

    /// What the cluster was founded with.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Sizes.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals { leases: self.slots.len() as u64, held: self.tokens.len() as u64, waiters: self.requests.len() as u64, ended: self.ended.len() as u64 }
    }

    /// Remembered changes after `revision`, oldest first.
    ///
    /// # Errors
    /// [`Compacted`] when some of them are not kept any more.
    pub fn events_after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Compacted> {
        self.tail.after(revision)
    }

    /// A watch can start after this revision or any later one.
    #[must_use]
    pub const fn watch_floor(&self) -> u64 {
        self.tail.floor()
    }
}

/// Whether the command takes effect before the expiries of its entry.
const fn goes_first(command: &Command) -> bool {
    matches!(command, Command::Renew(_) | Command::Release(_) | Command::KeepSession { .. })
}
