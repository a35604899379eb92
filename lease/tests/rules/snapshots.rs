//! Snapshots: the same table, the same future; and no bytes that break a replica.

use tenure_lease::{Acquire, Command, LeaseTable, Outcome, Put, Scope, Selector};

use super::{
    fixture::{Fixture, acquire, delete, detach, granted, keep, labels, put, queued, release, release_request, renew, waiting},
    wishes::{bytes, restore},
};

/// A table with some of everything.
fn rich() -> Fixture {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "held", "x");
    fixture.one(0, renew(token));
    let first = fixture.enqueue(1, "held", "y");
    fixture.enqueue(1, "held", "z");
    queued(&fixture.acquire(1, Acquire { holder_data: b"data".as_slice().into(), ..waiting("held", "w", "1", 5000, 2) }));
    fixture.one(2, detach("held", 1, first));
    let token = fixture.grant(2, "claimed", "x");
    fixture.enqueue(2, "claimed", "y");
    fixture.one(3, release("claimed", token));
    let token = granted(&fixture.acquire(3, Acquire { retention_ms: 5000, labels: labels(&[("a", "b"), ("c", "")]), ..acquire("idle", "x", "1") }));
    fixture.one(4, release("idle", token));
    fixture.one(4, Command::Put(Box::new(Put { labels: Some(labels(&[("d", "e")])), annotations: Some(labels(&[("n", "text")])), ..put("idle") })));
    fixture.one(4, Command::Put(Box::new(put("declared"))));
    fixture.grant(4, "gone", "x");
    fixture.one(4, delete("gone", true));
    fixture.one(5, release_request("held", "late", "1"));
    let short = Acquire { duration_ms: 500, ..acquire("expired", "x", "1") };
    granted(&fixture.acquire(5, short));
    fixture.tick(600);
    fixture
}

#[test]
fn restored_table_is_the_same_and_writes_the_same_bytes() {
    let fixture = rich();
    let written = bytes(&fixture.table);
    let restored = restore(&written).expect("what was written can be read");
    restored.check_invariants();
    assert_eq!(restored.state_hash(), fixture.table.state_hash());
    assert_eq!(bytes(&restored), written);
    assert_eq!(restored.totals(), fixture.table.totals());
    assert_eq!(restored.list(&Scope::All, &Selector::default()), fixture.table.list(&Scope::All, &Selector::default()));
    assert_eq!(restored.events_after(restored.watch_floor()), fixture.table.events_after(fixture.table.watch_floor()));
    assert_eq!((restored.clock(), restored.revision(), restored.next_timer()), (fixture.table.clock(), fixture.table.revision(), fixture.table.next_timer()));
}

#[test]
fn restored_table_has_the_same_future() {
    let mut fixture = rich();
    let mut twin = Fixture { table: restore(&bytes(&fixture.table)).expect("readable") };
    for now in (700..320_000).step_by(777) {
        let commands = || if now % 2 == 0 { vec![keep(1)] } else { vec![Command::Acquire(Box::new(acquire("held", "new", "1")))] };
        let (one, other) = (fixture.at(now, commands()), twin.at(now, commands()));
        assert_eq!((one.outcomes, one.events, one.notices), (other.outcomes, other.events, other.notices), "at {now}");
    }
    assert_eq!(fixture.table.state_hash(), twin.table.state_hash());
}

#[test]
fn ended_requests_are_in_the_snapshot() {
    let fixture = rich();
    let mut twin = Fixture { table: restore(&bytes(&fixture.table)).expect("readable") };
    assert!(matches!(twin.acquire(700, acquire("held", "late", "1")), Outcome::Ended { token: 0, .. }));
    assert!(matches!(twin.acquire(700, Acquire { duration_ms: 500, ..acquire("expired", "x", "1") }), Outcome::Ended { .. }));
}

#[test]
fn frozen_table_does_not_see_later_changes() {
    let mut fixture = rich();
    let before = bytes(&fixture.table);
    let frozen = fixture.table.freeze();
    let list = frozen.list(&Scope::All, &Selector::default());
    for now in (1000..400_000).step_by(1000) {
        fixture.at(now, [keep(1), Command::Acquire(Box::new(acquire("idle", "x", &now.to_string())))]);
    }
    let mut after = Vec::new();
    frozen.write_to(&mut after).expect("a Vec takes it all");
    assert_eq!(before, after);
    assert_eq!(frozen.list(&Scope::All, &Selector::default()), list);
}

#[test]
fn hash_tells_tables_apart() {
    let base = rich().table.state_hash();
    for change in [keep(9), renew(rich().lease("held").token), Command::Put(Box::new(put("another"))), release_request("held", "other", "1")] {
        let mut fixture = rich();
        fixture.one(600, change);
        assert_ne!(fixture.table.state_hash(), base);
    }
    let mut fixture = rich();
    fixture.tick(601);
    assert_ne!(fixture.table.state_hash(), base, "the clock counts");
    assert_eq!(rich().table.state_hash(), base);
}

#[test]
fn unknown_formats_are_named() {
    let mut written = bytes(&rich().table);
    written[0] = 9;
    let problem = restore(&written).expect_err("from the future").to_string();
    assert_eq!(problem, "snapshot format 9 is not known to this build (it knows up to 1): use a newer tenured");
}

#[test]
fn every_cut_is_found() {
    let written = bytes(&rich().table);
    for end in 0..written.len() {
        assert!(restore(&written[..end]).is_err(), "cut at {end} of {}", written.len());
    }
}

#[test]
fn no_changed_byte_breaks_the_reader() {
    let written = bytes(&rich().table);
    for at in 0..written.len() {
        for change in [1, 0x80, 0xff] {
            let mut damaged = written.clone();
            damaged[at] ^= change;
            // Most are found; what is not, the caller's checksum finds. None may panic or leave a contradictory table.
            if let Ok(table) = restore(&damaged) {
                std::hint::black_box(table.state_hash());
            }
        }
    }
}

#[test]
fn two_leases_of_one_creation_are_damage() {
    let mut fixture = Fixture::new();
    fixture.one(0, Command::Put(Box::new(put("a"))));
    fixture.one(1, Command::Put(Box::new(put("b"))));
    let (first, second) = (fixture.lease("a").create_revision.to_le_bytes(), fixture.lease("b").create_revision.to_le_bytes());
    let mut written = bytes(&fixture.table);
    // The counter comes first, the creation of the lease second.
    let at: Vec<usize> = (0..written.len() - 8).filter(|at| written[*at..at + 8] == second).collect();
    written[at[1]..at[1] + 8].copy_from_slice(&first);
    let problem = restore(&written).expect_err("contradicts itself").to_string();
    assert_eq!(problem, "the snapshot is damaged: two leases were created by one change");
}

#[test]
fn empty_table_can_be_restored() {
    let restored = restore(&bytes(&LeaseTable::new())).expect("readable");
    assert!(!restored.is_bootstrapped());
    assert_eq!(restored.state_hash(), LeaseTable::new().state_hash());
}
