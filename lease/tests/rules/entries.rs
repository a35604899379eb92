//! What an entry is: its stamp, its order, and when it does nothing at all.

use tenure_lease::{Command, Compacted, EventKind, LeaseTable, LeaseTime, Limits, Outcome, Put, RaftLeaderId, Refusal, RenewResult};

use super::fixture::{Fixture, LEADER, START, acquire, delete, entry, granted, keep, key, labels, put, release, renew, waiting};

#[test]
fn inert_entry_changes_nothing_not_even_the_clock() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(10, "a", "x");
    let before = fixture.table.state_hash();
    for committed_by in [RaftLeaderId { term: 2, node: 1 }, RaftLeaderId { term: 1, node: 2 }] {
        let commands = [renew(token), release("a", token), keep(1), delete("a", true)];
        let applied = fixture.table.apply(committed_by, entry(1_000_000, commands), true);
        assert_eq!(applied.outcomes, vec![Outcome::Refused(Refusal::Inert); 4]);
        assert!(applied.events.is_empty() && applied.notices.is_empty());
    }
    assert_eq!(fixture.table.state_hash(), before);
    assert_eq!(fixture.table.clock(), LeaseTime(10));
}

#[test]
fn nothing_is_done_before_the_bootstrap() {
    let mut table = LeaseTable::new();
    let commands = || {
        [
            renew(1),
            release("a", 1),
            keep(1),
            Command::Acquire(Box::new(acquire("a", "x", "1"))),
            Command::Put(Box::new(put("a"))),
            delete("a", false),
            super::fixture::detach("a", 1, tenure_lease::WaiterId(1)),
        ]
    };
    let applied = table.apply(LEADER, entry(5, commands()), true);
    assert_eq!(applied.outcomes, vec![Outcome::Refused(Refusal::NotBootstrapped); 7]);
    assert!(!table.is_bootstrapped() && table.revision() == 0 && table.next_timer().is_none());
}

#[test]
fn a_second_bootstrap_does_nothing() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(1, "a", "x");
    assert_eq!(token, START + 1);
    let limits = Limits { leases_per_namespace: 0, waiters_per_lease: 0 };
    assert_eq!(fixture.one(2, Command::Bootstrap { counter_start: 1 << 40, limits }), Outcome::Done);
    assert_eq!(fixture.table.revision(), token);
    assert_eq!(fixture.grant(3, "b", "x"), token + 1);
}

#[test]
fn the_clock_never_goes_back() {
    let mut fixture = Fixture::new();
    fixture.grant(5000, "a", "x");
    fixture.tick(100);
    assert_eq!(fixture.table.clock(), LeaseTime(5000));
    fixture.grant(100, "b", "x");
    assert_eq!(fixture.lease("b").deadline, Some(LeaseTime(8000)), "counted from the clock, not from the stamp");
}

#[test]
fn renewal_in_the_same_entry_prevents_the_expiry() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let applied = fixture.at(9000, [Command::Acquire(Box::new(acquire("a", "y", "1"))), renew(token)]);
    assert!(matches!(applied.outcomes[0], Outcome::Denied { .. }), "{:?}", applied.outcomes);
    assert_eq!(applied.outcomes[1], Outcome::Renewed(vec![RenewResult::Renewed { duration_ms: 3000 }]));
    assert_eq!(fixture.lease("a").deadline, Some(LeaseTime(12_000)));
}

#[test]
fn release_in_the_same_entry_makes_room_for_an_acquire_before_it() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let applied = fixture.at(1, [Command::Acquire(Box::new(acquire("a", "y", "1"))), release("a", token)]);
    assert!(granted(&applied.outcomes[0]) > token);
}

#[test]
fn what_expired_is_free_for_the_acquires_of_the_entry() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let applied = fixture.at(3001, [Command::Acquire(Box::new(acquire("a", "y", "1")))]);
    assert!(granted(&applied.outcomes[0]) > token);
    let kinds: Vec<_> = applied.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Expired, EventKind::Acquired]);
}

#[test]
fn one_entry_ends_at_most_two_thousand_leases_in_order_of_their_deadlines() {
    let mut fixture = Fixture::new();
    let commands = (0..2500).map(|number| {
        let mut acquire = acquire(&format!("n{number}"), "x", "1");
        // The later acquired, the sooner over.
        acquire.duration_ms = 10_000 - number;
        Command::Acquire(Box::new(acquire))
    });
    fixture.at(0, commands);
    let applied = fixture.tick(20_000);
    assert!(applied.more_expiries);
    assert_eq!(applied.events.len(), 2000);
    assert_eq!(&*applied.events[0].lease.name, "n2499");
    assert_eq!(fixture.table.totals().held, 500);
    let applied = fixture.tick(20_000);
    assert!(!applied.more_expiries);
    assert_eq!(applied.events.len(), 500);
    assert_eq!(&*applied.events[499].lease.name, "n0");
}

#[test]
fn what_is_touched_is_expired_even_beyond_the_bound_of_an_entry() {
    let mut fixture = Fixture::new();
    fixture.at(0, (0..2010).map(|number| Command::Acquire(Box::new(acquire(&format!("n{number}"), "x", "1")))));
    fixture.at(1, [Command::Acquire(Box::new(waiting("n2006", "w", "1", 60_000, 1)))]);
    fixture.keep_until(2000);
    let commands = [
        Command::Acquire(Box::new(acquire("n2009", "y", "1"))),
        Command::Acquire(Box::new(acquire("n2006", "y", "1"))),
        delete("n2008", false),
        Command::Put(Box::new(put("n2007"))),
        keep(1),
    ];
    let applied = fixture.at(3500, commands);
    assert!(applied.more_expiries);
    granted(&applied.outcomes[0]);
    assert!(matches!(&applied.outcomes[1], Outcome::Denied { lease } if lease.holder.as_deref() == Some("w")), "handed over first");
    assert!(matches!(applied.outcomes[2], Outcome::Deleted { .. }));
    assert!(matches!(&applied.outcomes[3], Outcome::Put { lease } if lease.holder.is_none()));
}

#[test]
fn every_event_has_its_own_revision_and_can_be_read_again() {
    let mut fixture = Fixture::new();
    let floor = fixture.table.watch_floor();
    assert_eq!(floor, START);
    let token = fixture.grant(0, "a", "x");
    fixture.one(1, renew(token));
    fixture.one(2, release("a", token));
    fixture.one(3, delete("a", false));
    let events = fixture.table.events_after(floor).expect("all are kept");
    let seen: Vec<_> = events.iter().map(|event| (event.revision, event.kind)).collect();
    assert_eq!(seen, [(token, EventKind::Acquired), (token + 2, EventKind::Released), (token + 3, EventKind::Deleted)], "renewals are not kept");
    assert_eq!(fixture.table.events_after(token).expect("kept")[0].revision, token + 2);
    assert!(fixture.table.events_after(token + 3).expect("kept").is_empty());
    assert_eq!(fixture.table.events_after(START - 1).expect_err("of another cluster"), Compacted { floor: START });
    assert!(fixture.table.get(&key("a")).is_none());
}

#[test]
fn the_tail_of_events_is_bounded_and_says_from_where_it_is_whole() {
    let mut fixture = Fixture::new();
    for round in 0..40 {
        let puts = (0..1000).map(|number| {
            let mut put = put(&format!("n{number}"));
            put.retention_ms = Some(Some(10_000_000 + round));
            Command::Put(Box::new(put))
        });
        let applied = fixture.table.apply(LEADER, entry(round, puts), false);
        assert_eq!(applied.events.len(), 1000);
    }
    let floor = fixture.table.watch_floor();
    assert_eq!(floor, START + 40_000 - 32_768);
    assert_eq!(fixture.table.events_after(floor).expect("whole").len(), 32_768);
    assert_eq!(fixture.table.events_after(floor - 1), Err(Compacted { floor }));
}

#[test]
fn the_tail_of_events_is_bounded_in_bytes_too() {
    let mut fixture = Fixture::new();
    for round in 0..60 {
        let puts = (0..100).map(|number| {
            let note = format!("{round} {number} {}", "x".repeat(16_000));
            Command::Put(Box::new(Put { annotations: Some(labels(&[("note", &note)])), ..put("large") }))
        });
        fixture.table.apply(LEADER, entry(round, puts), false);
    }
    let floor = fixture.table.watch_floor();
    let kept = fixture.table.events_after(floor).expect("whole");
    let bytes: usize = kept.iter().flat_map(|event| event.lease.annotations.values()).map(|note| note.len()).sum();
    assert!((60 << 20..64 << 20).contains(&bytes), "{bytes} bytes of notes in {} events", kept.len());
    assert_eq!(fixture.table.events_after(floor - 1), Err(Compacted { floor }));
    // The number of small ones is not bounded by what large ones took.
    let puts = (0..32_768).map(|number| Command::Put(Box::new(put(&format!("n{number}")))));
    fixture.table.apply(LEADER, entry(60, puts), false);
    assert_eq!(fixture.table.events_after(fixture.table.watch_floor()).expect("whole").len(), 32_768);
}

#[test]
fn renewals_are_told_only_if_wanted() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    assert!(fixture.table.apply(LEADER, entry(1, [renew(token)]), false).events.is_empty());
    let events = fixture.table.apply(LEADER, entry(2, [renew(token)]), true).events;
    assert_eq!((events[0].kind, events[0].revision, events[0].lease.renew_revision), (EventKind::Renewed, token + 2, token + 2));
    assert_eq!(events[0].lease.revision, token, "a renewal does not change the revision");
}

#[test]
fn the_clock_may_stand_still_once_there_is_nothing_to_wait_for() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.table.next_timer(), None);
    let mut forever = put("a");
    forever.retention_ms = Some(None);
    fixture.one(0, Command::Put(Box::new(forever)));
    assert_eq!(fixture.table.next_timer(), None);
    let token = fixture.grant(0, "a", "x");
    assert_eq!(fixture.table.next_timer(), Some(LeaseTime(3000)));
    fixture.one(5, release("a", token));
    assert_eq!(fixture.table.next_timer(), Some(LeaseTime(300_005)), "the request is remembered");
    fixture.tick(300_006);
    assert_eq!(fixture.table.next_timer(), None);
}
