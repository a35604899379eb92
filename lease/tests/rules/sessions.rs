//! Sessions: one sign of life for all waiters of a replica.

use tenure_lease::{EndReason, NoticeKind, Outcome};

use super::fixture::{Fixture, close, detach, grants, keep, notices, queued, release, renew, renew_for, waiting};

/// A lease that is held for long, and two waiters, the second through session 2.
fn queue_of_two() -> (Fixture, u64, u64, u64) {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    fixture.one(0, renew_for(token, 100_000));
    let first = fixture.enqueue(0, "a", "y").0;
    let (_, second) = queued(&fixture.acquire(0, waiting("a", "z", "1", 60_000, 2)));
    (fixture, token, first, second.0)
}

#[test]
fn waiters_of_a_lapsed_session_are_detached() {
    let (mut fixture, token, first, second) = queue_of_two();
    fixture.keep(2000, 2);
    assert_eq!(fixture.queue("a"), [(first, true), (second, true)]);
    fixture.keep(2001, 2);
    assert_eq!(fixture.queue("a"), [(first, false), (second, true)]);
    let applied = fixture.at(2002, [release("a", token)]);
    assert_eq!(grants(&applied), [(2, second, fixture.lease("a").token)]);
}

#[test]
fn session_that_lapses_before_a_deadline_is_not_granted_by_its_expiry() {
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    fixture.enqueue(0, "a", "y");
    let applied = fixture.tick(50_000);
    assert_eq!(grants(&applied), [], "gone at 2000, the lease ran out at 3000");
    assert_eq!(fixture.holder("a"), None);
}

#[test]
fn session_kept_in_the_same_entry_does_not_lapse() {
    let (mut fixture, _, first, second) = queue_of_two();
    fixture.at(30_000, [keep(1), keep(2)]);
    assert_eq!(fixture.queue("a"), [(first, true), (second, true)]);
}

#[test]
fn session_that_comes_back_attaches_what_its_lapse_detached() {
    let (mut fixture, token, first, second) = queue_of_two();
    fixture.one(100, detach("a", 2, tenure_lease::WaiterId(second)));
    fixture.tick(2101);
    assert_eq!(fixture.queue("a"), [(first, false), (second, false)]);
    fixture.one(2200, release("a", token));
    assert_eq!(fixture.holder("a"), None);
    fixture.keep(2300, 2);
    assert_eq!(fixture.holder("a"), None, "its stream was gone before: only its client brings it back");
    let applied = fixture.keep(2400, 1);
    assert_eq!(grants(&applied), [(1, first, fixture.lease("a").token)], "free meanwhile, so granted");
}

#[test]
fn an_acquire_through_a_session_keeps_it_too() {
    let (mut fixture, _, first, second) = queue_of_two();
    fixture.at(1900, [keep(2)]);
    fixture.grant(1900, "b", "other");
    queued(&fixture.acquire(1950, waiting("b", "y", "b", 60_000, 1)));
    fixture.tick(3900);
    assert_eq!(fixture.queue("a"), [(first, true), (second, true)]);
    fixture.tick(3901);
    assert_eq!(fixture.queue("a"), [(first, true), (second, false)]);
    fixture.tick(3951);
    assert_eq!(fixture.queue("a"), [(first, false), (second, false)]);
    queued(&fixture.acquire(4000, waiting("a", "y", "y", 60_000, 1)));
    assert_eq!(fixture.queue("a"), [(first, true), (second, false)]);
}

#[test]
fn waiters_of_a_lapsed_session_go_ten_seconds_later() {
    let (mut fixture, _, first, second) = queue_of_two();
    fixture.at(2001, [keep(2)]);
    let mut heard = Vec::new();
    for now in (3000..=12_000).step_by(1000) {
        heard.extend(notices(&fixture.keep(now, 2)));
    }
    heard.extend(notices(&fixture.keep(12_001, 2)));
    assert_eq!(heard, []);
    heard.extend(notices(&fixture.keep(12_002, 2)));
    assert_eq!(heard, [(1, first, NoticeKind::Ended(EndReason::Detached))]);
    assert_eq!(fixture.queue("a"), [(second, true)]);
}

#[test]
fn closed_session_detaches_at_once_and_for_good() {
    let (mut fixture, token, first, second) = queue_of_two();
    assert_eq!(fixture.one(10, close(1)), Outcome::Done);
    assert_eq!(fixture.one(10, close(77)), Outcome::Done);
    assert_eq!(fixture.queue("a"), [(first, false), (second, true)]);
    fixture.keep(20, 1);
    assert_eq!(fixture.queue("a"), [(first, false), (second, true)]);
    let applied = fixture.at(30, [release("a", token)]);
    assert_eq!(grants(&applied)[0].1, second);
}

#[test]
fn waiter_reattached_elsewhere_outlives_its_first_session() {
    let (mut fixture, token, first, second) = queue_of_two();
    fixture.tick(2001);
    assert_eq!(queued(&fixture.acquire(2500, waiting("a", "y", "y", 60_000, 3))), (1, tenure_lease::WaiterId(first)));
    fixture.at(2600, [keep(2)]);
    assert_eq!(fixture.queue("a"), [(first, true), (second, true)]);
    let applied = fixture.at(2700, [release("a", token)]);
    assert_eq!(grants(&applied), [(3, first, fixture.lease("a").token)]);
}

#[test]
fn a_session_that_comes_back_is_granted_each_free_lease_once() {
    let mut fixture = Fixture::new();
    for name in ["a", "b"] {
        fixture.grant(0, name, "x");
        fixture.enqueue(0, name, "y");
        fixture.enqueue(0, name, "z");
    }
    fixture.tick(3500);
    let applied = fixture.keep(3600, 1);
    assert_eq!(grants(&applied).len(), 2);
    for name in ["a", "b"] {
        assert_eq!((fixture.holder(name).as_deref(), fixture.lease(name).waiters), (Some("y"), 1));
    }
    let tokens = [fixture.lease("a").token, fixture.lease("b").token];
    let applied = fixture.at(3700, tokens.map(renew));
    assert_eq!(applied.outcomes.len(), 2);
    assert!(applied.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Renewed(_))));
}
