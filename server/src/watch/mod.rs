//! Watch: events from apply to streams, ordered, without gaps or repeats, or an explicit error.
//!
//! Apply hands its events to the [`WatchHub`] under the table's write lock; the hub puts them into the bounded queues of the watchers that match.
//! A queue that is full is not grown: its watcher falls back to the table's own tail of events, and if that does not reach back far enough its
//! stream ends with an error that says so. Nothing here may block apply, and a watcher that does not read may cost no more than its queue.
//!
//! Locks are taken in this order: table, registry, queue.

mod filter;
mod subscription;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tenure_lease::{Applied, EventKind, LeaseTable};

use crate::replica::OnApplied;

pub(crate) use filter::{Delivery, Filter};
use subscription::{Inbox, Wanted};
pub(crate) use subscription::{Start, Subscription, Unwatchable};

/// Watches at one replica.
pub(crate) const MAX_WATCHES: usize = 65_536;

/// Dispatches events to the watchers that match. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WatchHub {
    shared: Arc<Shared>,
}

struct Shared {
    /// Events that wait for one watcher's stream.
    queue: usize,
    registry: Mutex<Registry>,
    /// Everything up to this change has been put into the queues that it belongs into.
    dispatched: AtomicU64,
    open: AtomicUsize,
    /// Of these, who want renewals.
    renewals: AtomicUsize,
}

#[derive(Default)]
struct Registry {
    next: u64,
    by_scope: HashMap<Wanted, HashMap<u64, Arc<Inbox>>>,
}

impl WatchHub {
    /// `queue`: events that may wait for one watcher's stream.
    pub(crate) fn new(queue: usize) -> Self {
        let registry = Mutex::new(Registry::default());
        let shared = Shared { queue, registry, dispatched: AtomicU64::new(0), open: AtomicUsize::new(0), renewals: AtomicUsize::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Watches open now.
    pub(crate) fn open_watches(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn dispatched(&self) -> u64 {
        self.dispatched.load(Ordering::Acquire)
    }
}

impl Registry {
    fn offer(&self, wanted: &Wanted, event: &Arc<tenure_lease::Event>) {
        for inbox in self.by_scope.get(wanted).into_iter().flat_map(HashMap::values) {
            inbox.offer(event);
        }
    }
}

impl OnApplied for WatchHub {
    fn wants_renewals(&self) -> bool {
        self.shared.renewals.load(Ordering::Relaxed) > 0
    }

    fn applied(&self, table: &LeaseTable, applied: &Applied) {
        if self.shared.open.load(Ordering::Relaxed) > 0 && !applied.events.is_empty() {
            let registry = self.shared.registry.lock();
            for event in &applied.events {
                let lease = &event.lease;
                registry.offer(&Wanted::All, event);
                registry.offer(&Wanted::Namespace(lease.namespace.clone()), event);
                registry.offer(&Wanted::Lease(lease.namespace.clone(), lease.name.clone()), event);
            }
        }
        // After the queues: who reads this number first and then finds its queue empty has seen everything up to it.
        self.shared.dispatched.store(table.revision(), Ordering::Release);
    }

    fn replaced(&self, table: &LeaseTable) {
        let registry = self.shared.registry.lock();
        let seen = self.shared.dispatched();
        // bug_watch_misses_snapshot: what came in a snapshot instead of entries is not shown (etcd#15271, #18667: watches around a restore).
        for inbox in registry.by_scope.values().flat_map(HashMap::values) {
            if !tenure_lease::bug!("bug_watch_misses_snapshot") {
                inbox.fall_back(seen);
            }
        }
        self.shared.dispatched.store(table.revision(), Ordering::Release);
    }
}

/// Whether an event is only shown to those who asked for renewals.
pub(crate) fn is_renewal(kind: EventKind) -> bool {
    kind == EventKind::Renewed
}
