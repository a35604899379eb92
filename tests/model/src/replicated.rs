//! The real lease table as a value that stateright can clone, compare and hash.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use tenure_lease::{Applied, Command, Entry, LeaseKey, LeaseTable, LeaseTime, Limits, RaftLeaderId};

/// A table, written down.
#[derive(Clone)]
pub(crate) struct Replicated {
    bytes: Arc<[u8]>,
    hash: u64,
    /// Of the table.
    pub(crate) clock: LeaseTime,
}

impl PartialEq for Replicated {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Replicated {}

impl Hash for Replicated {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl fmt::Debug for Replicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.table().get(&key()).and_then(|lease| lease.holder.clone().map(|holder| (holder, lease.token, lease.deadline)));
        write!(f, "at {} held by {held:?}", self.clock.0)
    }
}

/// The lease that all is about.
pub(crate) fn key() -> LeaseKey {
    LeaseKey::trusted("default", "l")
}

/// Who leads in a term.
pub(crate) const fn leader(term: u64) -> RaftLeaderId {
    RaftLeaderId { term, node: term % 2 }
}

impl Replicated {
    pub(crate) fn new() -> Self {
        let mut table = LeaseTable::new();
        let bootstrap = Command::Bootstrap { counter_start: 100, limits: Limits::default() };
        table.apply(leader(1), Entry { proposer: leader(1), commands: vec![bootstrap], ..Entry::default() }, false);
        Self::of(&table)
    }

    fn of(table: &LeaseTable) -> Self {
        let frozen = table.freeze();
        let mut bytes = Vec::new();
        frozen.write_to(&mut bytes).expect("memory takes it");
        Self { bytes: bytes.into(), hash: frozen.state_hash(), clock: table.clock() }
    }

    pub(crate) fn table(&self) -> LeaseTable {
        LeaseTable::restore(&mut &*self.bytes).expect("it was written by the table")
    }

    /// The table after an entry, and what came of it.
    pub(crate) fn apply(&self, committed_by: RaftLeaderId, entry: Entry) -> (Self, Applied) {
        let mut table = self.table();
        let applied = table.apply(committed_by, entry, false);
        (Self::of(&table), applied)
    }
}
