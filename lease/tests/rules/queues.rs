//! Waiting: fair, and never for somebody who is gone.

use tenure_lease::{Acquire, Command, EndReason, EventKind, LeaseState, LeaseTime, Limits, NoticeKind, Outcome, Refusal, WaiterId};

use super::fixture::{Fixture, acquire, detach, granted, grants, key, notices, queued, release, renew, waiting};

#[test]
fn waiters_are_granted_in_the_order_of_their_enqueueing() {
    let mut fixture = Fixture::new();
    let mut token = fixture.grant(0, "a", "x");
    let waiters: Vec<WaiterId> = ["p", "q", "r"].iter().map(|holder| fixture.enqueue(0, "a", holder)).collect();
    assert_eq!(fixture.queue("a"), waiters.iter().map(|id| (id.0, true)).collect::<Vec<_>>());
    for (waiter, holder) in waiters.iter().zip(["p", "q", "r"]) {
        let applied = fixture.at(1, [release("a", token)]);
        token = fixture.lease("a").token;
        assert_eq!(grants(&applied), [(1, waiter.0, token)]);
        assert_eq!(fixture.holder("a").as_deref(), Some(holder));
    }
    assert_eq!(fixture.lease("a").waiters, 0);
}

#[test]
fn enqueueing_is_no_event_and_leaves_the_revision() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let applied = fixture.at(1, [Command::Acquire(Box::new(waiting("a", "y", "1", 5000, 1)))]);
    let Outcome::Queued { position: 1, waiter, lease } = &applied.outcomes[0] else { panic!() };
    assert_eq!((waiter.0, lease.token, lease.waiters, lease.revision), (token + 1, token, 1, token));
    assert!(applied.events.is_empty() && applied.notices.is_empty());
}

#[test]
fn a_full_queue_takes_no_more() {
    let mut fixture = Fixture::with(Limits { leases_per_namespace: 10, waiters_per_lease: 2 });
    fixture.grant(0, "a", "x");
    fixture.enqueue(0, "a", "p");
    fixture.enqueue(0, "a", "q");
    assert_eq!(fixture.acquire(0, waiting("a", "r", "1", 5000, 1)), Outcome::Refused(Refusal::QueueFull { limit: 2 }));
    queued(&fixture.acquire(0, waiting("a", "p", "p", 5000, 1)));
}

#[test]
fn grant_from_the_queue_lasts_until_its_claim_deadline() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    fixture.enqueue(0, "a", "y");
    fixture.at(100, [release("a", token)]);
    let lease = fixture.lease("a");
    assert_eq!((lease.deadline, lease.duration_ms, lease.unclaimed), (Some(LeaseTime(2100)), 3000, true));
    fixture.renew(500, lease.token);
    let lease = fixture.lease("a");
    assert_eq!((lease.deadline, lease.unclaimed), (Some(LeaseTime(3500)), false), "the first renewal starts the full duration");
}

#[test]
fn claim_deadline_is_never_beyond_the_duration() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    queued(&fixture.acquire(0, Acquire { duration_ms: 700, ..waiting("a", "y", "1", 5000, 1) }));
    fixture.at(100, [release("a", token)]);
    assert_eq!(fixture.lease("a").deadline, Some(LeaseTime(800)));
}

#[test]
fn unclaimed_grant_goes_to_the_next() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    fixture.enqueue(0, "a", "y");
    let next = fixture.enqueue(0, "a", "z");
    fixture.at(100, [release("a", token)]);
    let unclaimed = fixture.lease("a").token;
    fixture.keep_until(2100);
    assert_eq!(fixture.holder("a").as_deref(), Some("y"));
    let applied = fixture.tick(2101);
    assert_eq!((applied.events[0].kind, applied.events[0].reason()), (EventKind::Acquired, Some(EndReason::Unclaimed)));
    assert_eq!(grants(&applied), [(1, next.0, applied.events[0].revision)]);
    let again = fixture.acquire(2102, waiting("a", "y", "y", 5000, 1));
    assert_eq!(again, Outcome::Ended { token: unclaimed, reason: EndReason::Unclaimed });
    fixture.tick(9000);
    assert_eq!(fixture.lease("a").state, LeaseState::Expired, "nobody is left");
}

#[test]
fn expiry_hands_over_in_the_same_change() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let waiter = fixture.enqueue(0, "a", "y");
    fixture.keep_until(3000);
    let applied = fixture.tick(3001);
    assert_eq!(applied.events.len(), 1);
    let event = &applied.events[0];
    assert_eq!((event.kind, event.reason(), event.ended.as_ref().map(|hold| hold.token)), (EventKind::Acquired, Some(EndReason::Expired), Some(token)));
    assert_eq!(grants(&applied), [(1, waiter.0, event.revision)]);
}

#[test]
fn wait_that_is_over_is_denied() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let (_, waiter) = queued(&fixture.acquire(0, waiting("a", "y", "1", 1500, 1)));
    assert!(fixture.tick(1500).notices.is_empty());
    let heard = notices(&fixture.tick(1501));
    let [(1, id, NoticeKind::Denied(lease))] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((*id, lease.token, lease.waiters), (waiter.0, token, 0));
    fixture.one(1502, release("a", token));
    assert_eq!(fixture.holder("a"), None);
    granted(&fixture.acquire(1503, waiting("a", "y", "1", 1500, 1)));
}

#[test]
fn lease_that_runs_out_with_a_wait_goes_to_who_waited() {
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    let (_, waiter) = queued(&fixture.acquire(0, waiting("a", "y", "1", 3000, 1)));
    fixture.keep_until(3000);
    let applied = fixture.tick(3001);
    assert_eq!(grants(&applied), [(1, waiter.0, applied.events[0].revision)]);
    assert_eq!(applied.notices.len(), 1);
}

#[test]
fn what_passed_in_one_entry_passes_in_the_order_of_its_instants() {
    // The wait ends at 2500, before the lease does at 3000: the waiter gets nothing.
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    queued(&fixture.acquire(0, waiting("a", "y", "1", 2500, 1)));
    fixture.keep_until(2400);
    let applied = fixture.tick(3100);
    assert!(matches!(applied.notices[0].kind, NoticeKind::Denied(_)));
    assert_eq!(applied.events[0].kind, EventKind::Expired);
}

#[test]
fn detached_waiter_is_skipped_and_keeps_its_place() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let first = fixture.enqueue(0, "a", "y");
    let second = fixture.enqueue(0, "a", "z");
    fixture.one(1, detach("a", 1, first));
    assert_eq!(fixture.queue("a"), [(first.0, false), (second.0, true)]);
    fixture.one(2, release("a", token));
    assert_eq!(fixture.holder("a").as_deref(), Some("z"), "skipped");
    assert_eq!(queued(&fixture.acquire(3, waiting("a", "y", "y", 9000, 2))), (1, first), "still first");
    let Outcome::Queued { position: 2, .. } = fixture.acquire(4, waiting("a", "w", "1", 9000, 1)) else { panic!() };
    let token = fixture.lease("a").token;
    let applied = fixture.at(5, [release("a", token)]);
    assert_eq!(grants(&applied), [(2, first.0, fixture.lease("a").token)], "through the session that it came back by");
}

#[test]
fn detached_waiter_loses_its_place_after_ten_seconds() {
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    let token = fixture.lease("a").token;
    let waiter = fixture.enqueue(0, "a", "y");
    fixture.one(100, Command::Renew(tenure_lease::Renew { items: vec![tenure_lease::RenewItem { token, duration_ms: Some(60_000), key: None }] }));
    fixture.one(1000, detach("a", 1, waiter));
    assert_eq!(fixture.keep_until(11_000), []);
    assert_eq!(notices(&fixture.keep(11_001, 1)), [(1, waiter.0, NoticeKind::Ended(EndReason::Detached))]);
    assert_eq!(fixture.lease("a").waiters, 0);
}

#[test]
fn detach_through_another_session_is_ignored() {
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    let waiter = fixture.enqueue(0, "a", "y");
    let applied = fixture.at(1, [Command::Acquire(Box::new(waiting("a", "y", "y", 60_000, 2)))]);
    assert_eq!(notices(&applied), [(1, waiter.0, NoticeKind::Moved)]);
    assert_eq!(fixture.one(2, detach("a", 1, waiter)), Outcome::Done);
    assert_eq!(fixture.queue("a"), [(waiter.0, true)]);
    fixture.one(3, detach("none", 1, waiter));
    fixture.one(3, detach("a", 2, WaiterId(1)));
    assert_eq!(fixture.queue("a"), [(waiter.0, true)]);
}

#[test]
fn detach_of_an_unclaimed_grant_hands_over() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let first = fixture.enqueue(0, "a", "y");
    let second = fixture.enqueue(0, "a", "z");
    fixture.one(1, release("a", token));
    let applied = fixture.at(2, [detach("a", 1, first)]);
    assert_eq!(applied.events[0].reason(), Some(EndReason::Unclaimed));
    assert_eq!(grants(&applied), [(1, second.0, applied.events[0].revision)]);
    let applied = fixture.at(3, [detach("a", 1, second)]);
    assert_eq!((applied.events[0].kind, fixture.holder("a")), (EventKind::Released, None));
}

#[test]
fn detach_of_a_claimed_grant_is_ignored() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let waiter = fixture.enqueue(0, "a", "y");
    fixture.one(1, release("a", token));
    let token = fixture.lease("a").token;
    fixture.at(2, [renew(token), detach("a", 1, waiter)]);
    assert_eq!(fixture.lease("a").token, token);
    assert_eq!(fixture.holder("a").as_deref(), Some("y"));
}

#[test]
fn detach_by_the_old_stream_leaves_a_grant_that_was_asked_for_anew() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let waiter = fixture.enqueue(0, "a", "y");
    fixture.one(1, release("a", token));
    granted(&fixture.acquire(2, waiting("a", "y", "y", 9000, 2)));
    fixture.one(3, detach("a", 1, waiter));
    assert_eq!(fixture.holder("a").as_deref(), Some("y"));
}

#[test]
fn free_lease_with_only_detached_waiters_goes_to_who_asks() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let waiter = fixture.enqueue(0, "a", "y");
    fixture.at(1, [release("a", token)]);
    let token = fixture.lease("a").token;
    let other = fixture.enqueue(1, "a", "z");
    fixture.one(2, detach("a", 1, other));
    fixture.one(2, release("a", token));
    assert_eq!((fixture.holder("a"), fixture.lease("a").waiters), (None, 1));
    assert!(waiter < other);
    assert!(matches!(fixture.acquire(3, acquire("a", "new", "1")), Outcome::Granted { must_renew: false, .. }));
    assert_eq!(fixture.table.queue(&key("a")), [(other, false)], "keeps its place");
}

#[test]
fn detached_waiter_that_comes_back_to_a_free_lease_gets_it() {
    for wait_ms in [0, 5000] {
        let mut fixture = Fixture::new();
        let token = fixture.grant(0, "a", "x");
        let waiter = fixture.enqueue(0, "a", "y");
        fixture.one(1, detach("a", 1, waiter));
        fixture.one(2, release("a", token));
        let Outcome::Granted { lease, must_renew: true } = fixture.acquire(3, waiting("a", "y", "y", wait_ms, 1)) else { panic!() };
        assert_eq!((lease.unclaimed, lease.waiters, lease.deadline), (true, 0, Some(LeaseTime(2003))));
    }
}
