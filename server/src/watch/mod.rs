//! Watch: events from apply to streams, ordered, without gaps or repeats, or an explicit error.
//!
//! Apply hands its events to the [`WatchHub`] under the table's write lock, whatever the number of watches. The hub ([`WatchHub::run`]), which runs where
//! clients are served, puts them into the bounded queues of the watchers that match, some watchers at a time, so that other calls have their turn in
//! between. A queue that is full is not grown: its watcher falls back to the table's own tail of events, and if that does not reach back far enough its
//! stream ends with an error that says so. Nothing here may block apply, and a watcher that does not read may cost no more than its queue.
//!
//! Locks are taken in this order: table, then one of the others; of those, nobody holds two.

mod filter;
mod subscription;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tenure_lease::{Applied, Event, EventKind, LeaseTable};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{admission::Source, replica::OnApplied};

pub(crate) use filter::{Delivery, Filter};
use subscription::{Inbox, Wanted};
pub(crate) use subscription::{Start, Subscription, Unwatchable};

/// Watches at one replica.
pub(crate) const MAX_WATCHES: usize = 65_536;
/// Of these, the most that come from one source address.
pub(crate) const MAX_WATCHES_OF_SOURCE: usize = MAX_WATCHES / 4;
/// Events that wait in the queues of all watches together. Beyond it, a watch that does not read falls back to the tail at once.
const QUEUED: usize = 1 << 20;
/// Events that wait for the hub. More come only when clients take all of its thread; then all watches fall back to the tail.
const PENDING: usize = 32_768;
/// Watches that get their events before other calls have their turn.
const AT_A_TIME: usize = 256;

/// Dispatches events to the watchers that match. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WatchHub {
    shared: Arc<Shared>,
}

struct Shared {
    /// Events that wait for one watcher's stream.
    queue: usize,
    pending: Mutex<Pending>,
    came: Notify,
    registry: Mutex<Registry>,
    /// Everything up to this change has been put into the queues that it belongs into.
    dispatched: AtomicU64,
    open: AtomicUsize,
    /// Of these, who want renewals.
    renewals: AtomicUsize,
    /// Events in all queues.
    queued: AtomicUsize,
}

/// What apply has handed over and no queue has yet.
#[derive(Default)]
struct Pending {
    events: Vec<Arc<Event>>,
    /// The change that the table had got to.
    through: u64,
    /// Something is not among the events: watches have to look into the tail.
    jumped: bool,
    /// What was handed over before is on its way into the queues.
    under_way: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.jumped
    }
}

#[derive(Default)]
struct Registry {
    next: u64,
    by_scope: HashMap<Wanted, BTreeMap<u64, Arc<Inbox>>>,
    by_source: BTreeMap<Source, usize>,
}

impl Registry {
    /// Some watches after the one with that id.
    fn some_after(&self, wanted: &Wanted, after: Option<u64>) -> Vec<(u64, Arc<Inbox>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inboxes = self.by_scope.get(wanted).into_iter().flat_map(|inboxes| inboxes.range((from, Bound::Unbounded)));
        inboxes.take(AT_A_TIME).map(|(id, inbox)| (*id, Arc::clone(inbox))).collect()
    }
}

impl WatchHub {
    /// `queue`: events that may wait for one watcher's stream.
    pub(crate) fn new(queue: usize) -> Self {
        let shared = Shared {
            queue,
            pending: Mutex::default(),
            came: Notify::new(),
            registry: Mutex::default(),
            dispatched: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            renewals: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Watches open now.
    pub(crate) fn open_watches(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Puts what is applied into the queues, until `stopping`; spawn it once, where clients are served.
    pub(crate) async fn run(&self, stopping: CancellationToken) {
        let dispatch = async {
            loop {
                self.shared.came.notified().await;
                while self.shared.dispatch().await {}
            }
        };
        tokio::select! {
            () = dispatch => {}
            () = stopping.cancelled() => {}
        }
    }
}

impl Shared {
    fn dispatched(&self) -> u64 {
        self.dispatched.load(Ordering::Acquire)
    }

    /// Puts all that is pending into the queues. `false`: there was nothing. Dropped before its end, it leaves some watches without.
    async fn dispatch(&self) -> bool {
        let (events, through, jumped) = {
            let mut pending = self.pending.lock();
            if pending.is_empty() {
                return false;
            }
            pending.under_way = true;
            (std::mem::take(&mut pending.events), pending.through, std::mem::take(&mut pending.jumped))
        };
        if jumped {
            // What came before the gap is in the tail as well.
            let seen = self.dispatched();
            let scopes: Vec<Wanted> = self.registry.lock().by_scope.keys().cloned().collect();
            for wanted in scopes {
                self.each(&wanted, |inbox| inbox.fall_back(seen)).await;
            }
        } else {
            for (wanted, events) in self.by_scope(&events) {
                self.each(&wanted, |inbox| inbox.offer(&events, &self.queued)).await;
            }
        }
        let mut pending = self.pending.lock();
        pending.under_way = false;
        // After the queues: who reads this number first and then finds its queue empty has seen everything up to it.
        self.dispatched.store(if pending.is_empty() { pending.through } else { through }, Ordering::Release);
        true
    }

    /// The events that watches of each scope may want, as far as there are any.
    fn by_scope(&self, events: &[Arc<Event>]) -> HashMap<Wanted, Vec<Arc<Event>>> {
        let registry = self.registry.lock();
        let mut by_scope: HashMap<Wanted, Vec<Arc<Event>>> = HashMap::new();
        for event in events {
            let lease = &event.lease;
            for wanted in [Wanted::All, Wanted::Namespace(lease.namespace.clone()), Wanted::Lease(lease.namespace.clone(), lease.name.clone())] {
                if registry.by_scope.contains_key(&wanted) {
                    by_scope.entry(wanted).or_default().push(Arc::clone(event));
                }
            }
        }
        by_scope
    }

    async fn each(&self, wanted: &Wanted, what: impl Fn(&Inbox)) {
        let mut after = None;
        loop {
            let some = self.registry.lock().some_after(wanted, after);
            some.iter().for_each(|(_, inbox)| what(inbox));
            if some.len() < AT_A_TIME {
                return;
            }
            after = some.last().map(|(id, _)| *id);
            tokio::task::yield_now().await;
        }
    }
}

impl OnApplied for WatchHub {
    fn wants_renewals(&self) -> bool {
        self.shared.renewals.load(Ordering::Relaxed) > 0
    }

    fn applied(&self, table: &LeaseTable, applied: &Applied) {
        // Whoever opens one now begins after this change.
        if self.open_watches() == 0 {
            return;
        }
        let mut pending = self.shared.pending.lock();
        pending.through = table.revision();
        if pending.events.len() + applied.events.len() > PENDING {
            pending.events.clear();
            pending.jumped = true;
        } else if !pending.jumped {
            pending.events.extend(applied.events.iter().cloned());
        }
        if !pending.is_empty() {
            drop(pending);
            self.shared.came.notify_one();
        } else if !pending.under_way {
            // Nothing for anybody, and nothing before it that is not in a queue yet.
            self.shared.dispatched.store(table.revision(), Ordering::Release);
        }
    }

    fn replaced(&self, table: &LeaseTable) {
        let mut pending = self.shared.pending.lock();
        pending.events.clear();
        pending.through = table.revision();
        // bug_watch_misses_snapshot: what came in a snapshot instead of entries is not shown (etcd#15271, #18667: watches around a restore).
        pending.jumped = !tenure_lease::bug!("bug_watch_misses_snapshot");
        drop(pending);
        self.shared.came.notify_one();
    }
}

/// Whether an event is only shown to those who asked for renewals.
pub(crate) fn is_renewal(kind: EventKind) -> bool {
    kind == EventKind::Renewed
}
