//! What the parts of one replica share: the table and who is told when it changes.

use std::sync::Arc;

use parking_lot::RwLock;
use tenure_lease::{Applied, LeaseTable, LeaseTime};
use tokio::sync::watch;

use crate::consensus::Effects;

/// The applied state of this replica. Written only by the state machine (`consensus/state_machine.rs`), read by everybody.
pub(crate) struct Applications {
    /// Hold the lock briefly; never across an await.
    pub(crate) table: RwLock<LeaseTable>,
    progress: watch::Sender<Progress>,
    listeners: Vec<Box<dyn OnApplied>>,
    observer: Option<Arc<dyn Observer>>,
}

/// How far this replica has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Raft index.
    pub(crate) index: u64,
    /// Leader id of that log id: (term, node).
    pub(crate) leader: tenure_lease::RaftLeaderId,
    /// Number of the newest change.
    pub(crate) revision: u64,
    /// The lease clock.
    pub(crate) clock: LeaseTime,
}

/// Told of everything that was applied, in order, under the table's write lock: hand it on and return. Never blocks, never awaits.
pub(crate) trait OnApplied: Send + Sync {
    /// Whether anybody wants [`tenure_lease::EventKind::Renewed`] events just now.
    fn wants_renewals(&self) -> bool {
        false
    }
    /// One entry was applied. `applied.outcomes` are empty here.
    fn applied(&self, table: &LeaseTable, applied: &Applied);
    /// The whole table was replaced by a snapshot: whatever follows events has a gap.
    fn replaced(&self, table: &LeaseTable);
}

/// Sees all that a replica applies, as it does: for a simulation, which judges it. Called under the table's lock; never blocks, never awaits.
pub trait Observer: Send + Sync {
    /// The entry at `index` of the log was applied; renewals are among the events.
    fn applied(&self, index: u64, committed_by: tenure_lease::RaftLeaderId, table: &LeaseTable, applied: &Applied);
    /// The whole table was replaced by a snapshot of this index, or read from one at a start.
    fn replaced(&self, index: u64, table: &LeaseTable);
}

impl Applications {
    /// `listeners` and `observer` know `table` already.
    pub(crate) fn new(table: LeaseTable, progress: Progress, listeners: Vec<Box<dyn OnApplied>>, observer: Option<Arc<dyn Observer>>) -> Arc<Self> {
        Arc::new(Self { table: RwLock::new(table), progress: watch::Sender::new(progress), listeners, observer })
    }

    /// Applies one committed entry and tells everybody. Only the state machine calls this.
    pub(crate) fn apply(&self, index: u64, committed_by: tenure_lease::RaftLeaderId, entry: Option<tenure_lease::Entry>) -> Effects {
        let mut table = self.table.write();
        let mut effects = Effects::default();
        if let Some(entry) = entry {
            let want_renewals = self.observer.is_some() || self.listeners.iter().any(|listener| listener.wants_renewals());
            let mut applied = table.apply(committed_by, entry, want_renewals);
            if let Some(observer) = &self.observer {
                observer.applied(index, committed_by, &table, &applied);
            }
            let unasked = applied.outcomes.is_empty() && !applied.events.is_empty();
            effects = Effects { outcomes: std::mem::take(&mut applied.outcomes), awaited: unasked || !applied.notices.is_empty() };
            for listener in &self.listeners {
                listener.applied(&table, &applied);
            }
        }
        self.publish(Progress { index, leader: committed_by, revision: table.revision(), clock: table.clock() });
        effects
    }

    /// Replaces everything by a snapshot. Only the state machine calls this.
    pub(crate) fn replace(&self, index: u64, leader: tenure_lease::RaftLeaderId, new: LeaseTable) {
        let mut table = self.table.write();
        *table = new;
        for listener in &self.listeners {
            listener.replaced(&table);
        }
        if let Some(observer) = &self.observer {
            observer.replaced(index, &table);
        }
        self.publish(Progress { index, leader, revision: table.revision(), clock: table.clock() });
    }

    fn publish(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    pub(crate) fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}
