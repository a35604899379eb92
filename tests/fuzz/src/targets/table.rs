//! Tables as snapshots have them: bytes that are taken for one must be one, with a future. And what other targets do to tables.

use std::{collections::HashMap, sync::Arc};

use tenure_lease::{Entry, Labels, LeaseTable, LeaseTime, RaftLeaderId, Scope, Selector, UnixMillis};
use tenure_proto::peer::v1 as peer;
use tenure_server::fuzzing as door;

use super::{LEASE_WORDS, Shape, Target, seeds};

pub(super) const TARGET: Target =
    Target { name: "table", reads: "lease tables, as the content of snapshots", shape: Shape::Bytes, words: LEASE_WORDS, mutations: 12_000, run };

const RAFT_LEADER: RaftLeaderId = RaftLeaderId { term: 1, node: 1 };

fn run(input: &[u8]) -> bool {
    let Ok(table) = LeaseTable::restore(&mut &*input) else { return false };
    is_sound(&table);
    grows_old(table);
    true
}

/// Its invariants hold, and it can be written, read back, and is the same then.
pub(super) fn is_sound(table: &LeaseTable) {
    table.check_invariants();
    let written = bytes(table);
    let restored = LeaseTable::restore(&mut &*written).expect("what was written can be read");
    restored.check_invariants();
    assert_eq!(restored.state_hash(), table.state_hash(), "a restored table is the same");
    assert_eq!(bytes(&restored), written, "and writes the same");
    assert_eq!(restored.list(&Scope::All, &Selector::default()), table.list(&Scope::All, &Selector::default()));
}

/// Time passes until nothing is due any more, or for long.
pub(super) fn grows_old(mut table: LeaseTable) {
    for passes in [1, 1_000, 2_500, 11_000, 100_000, 301_000, 4_000_000_000, u64::MAX] {
        let stamp = LeaseTime(table.clock().0.saturating_add(passes));
        table.apply(RAFT_LEADER, Entry { proposer: RAFT_LEADER, stamp, wall: UnixMillis(1), commands: Vec::new() }, false);
        table.check_invariants();
    }
}

/// A table in which there is some of everything.
pub(super) fn furnished() -> LeaseTable {
    let mut table = LeaseTable::new();
    for entry in seeds::entries() {
        table.apply(entry.proposer, entry, false);
    }
    table
}

/// Commands, through the log, applied to such a table.
pub(super) fn take(commands: &[peer::Command]) {
    let mut table = furnished();
    let stamp = LeaseTime(table.clock().0 + 5);
    let entry = door::entry(&door::entry_bytes(RAFT_LEADER, stamp, commands)).expect("what was let in comes out");
    assert_eq!(entry.commands.len(), commands.len());
    let applied = table.apply(RAFT_LEADER, entry, true);
    assert_eq!(applied.outcomes.len(), commands.len(), "each command has its outcome");
    for outcome in applied.outcomes {
        let _travels = door::outcome(outcome, stamp);
    }
    is_sound(&table);
    grows_old(table);
}

pub(super) fn bytes(table: &LeaseTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.freeze().write_to(&mut bytes).expect("a vector has room");
    bytes
}

pub(super) fn labels(map: &HashMap<String, String>) -> Labels {
    map.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))).collect()
}
