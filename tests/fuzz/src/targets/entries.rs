//! Entries of the log: read, and applied to a table with something in it.

use tenure_server::fuzzing as door;

use super::{LEASE_WORDS, Shape, Target, table};

pub(super) const TARGET: Target =
    Target { name: "entries", reads: "entries of the Raft log, decoded and applied", shape: Shape::Messages, words: LEASE_WORDS, mutations: 6_000, run };

fn run(input: &[u8]) -> bool {
    // The byte before chooses nothing here.
    let Some(Ok(entry)) = input.get(1..).map(door::entry) else { return false };
    let (mut one, mut other) = (table::furnished(), table::furnished());
    let stamp = entry.stamp;
    let (said, same) = (one.apply(entry.proposer, entry.clone(), true), other.apply(entry.proposer, entry, true));
    assert_eq!((&said.outcomes, &said.events, &said.notices), (&same.outcomes, &same.events, &same.notices), "equal entries, equal answers");
    assert_eq!(one.state_hash(), other.state_hash(), "equal entries, equal tables");
    for outcome in said.outcomes {
        let _travels = door::outcome(outcome, stamp);
    }
    table::is_sound(&one);
    table::grows_old(one);
    true
}
