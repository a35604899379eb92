//! Safe retries: a request id is granted at most once.

use tenure_lease::{Acquire, EndReason, Outcome, Refusal, ReleaseOutcome, SessionId};

use super::fixture::{Fixture, acquire, delete, granted, grants, keep, labels, queued, release, release_request, released, waiting};

#[test]
fn repeated_request_is_never_granted_twice() {
    let mut fixture = Fixture::new();
    let token = granted(&fixture.acquire(0, acquire("a", "x", "1")));
    let Outcome::Granted { lease, must_renew: true } = fixture.acquire(1, acquire("a", "x", "1")) else { panic!("the grant lives") };
    assert_eq!(lease.token, token);
    assert_eq!(fixture.table.revision(), token, "a repeat is no change");
    fixture.one(2, release("a", token));
    let over = Outcome::Ended { token, reason: EndReason::Released };
    assert_eq!(fixture.acquire(3, acquire("a", "x", "1")), over);
    assert_eq!(fixture.acquire(300_002, acquire("a", "x", "1")), over, "for five minutes of lease clock");
    fixture.tick(300_003);
    assert!(granted(&fixture.acquire(300_003, acquire("a", "x", "1"))) > token, "then it is a new one");
}

#[test]
fn repeated_request_hears_why_its_grant_ended() {
    let mut fixture = Fixture::new();
    let token = granted(&fixture.acquire(0, acquire("a", "x", "1")));
    let next = granted(&fixture.acquire(3001, Acquire { retention_ms: 1, ..acquire("a", "y", "1") }));
    assert_eq!(fixture.acquire(3002, acquire("a", "x", "1")), Outcome::Ended { token, reason: EndReason::Expired });
    fixture.one(3003, delete("a", true));
    let again = Acquire { retention_ms: 1, ..acquire("a", "y", "1") };
    assert_eq!(fixture.acquire(3004, again), Outcome::Ended { token: next, reason: EndReason::Revoked }, "through the delete");
}

#[test]
fn other_parameters_with_the_same_id_are_refused() {
    let mut fixture = Fixture::new();
    let base = || waiting("a", "x", "1", 5000, 1);
    let others = || {
        [
            Acquire { duration_ms: 4000, ..base() },
            Acquire { reclaim: true, ..base() },
            Acquire { holder_data: b"d".as_slice().into(), ..base() },
            Acquire { retention_ms: 1, ..base() },
            Acquire { labels: labels(&[("a", "b")]), ..base() },
            Acquire { annotations: labels(&[("a", "b")]), ..base() },
        ]
    };
    let refused = Outcome::Refused(Refusal::RequestMismatch);
    let first = fixture.grant(0, "a", "holder");
    queued(&fixture.acquire(0, base()));
    for other in others() {
        assert_eq!(fixture.acquire(0, other), refused, "while it waits");
    }
    fixture.one(1, release("a", first));
    let token = fixture.lease("a").token;
    for other in others() {
        assert_eq!(fixture.acquire(1, other), refused, "while it holds");
    }
    fixture.one(2, release("a", token));
    for other in others() {
        assert_eq!(fixture.acquire(2, other), refused, "when it is over");
    }
    let shorter = Acquire { wait_ms: 1, session: SessionId(9), ..base() };
    assert_eq!(fixture.acquire(2, shorter), Outcome::Ended { token, reason: EndReason::Released }, "the rest of the wait and the replica may differ");
}

#[test]
fn request_ids_are_of_one_lease_and_one_holder() {
    let mut fixture = Fixture::new();
    let token = granted(&fixture.acquire(0, acquire("a", "x", "1")));
    assert!(granted(&fixture.acquire(0, acquire("b", "x", "1"))) > token);
    assert!(matches!(fixture.acquire(0, acquire("a", "y", "1")), Outcome::Denied { .. }));
}

#[test]
fn a_denied_request_may_be_tried_again() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    assert!(matches!(fixture.acquire(0, acquire("a", "y", "1")), Outcome::Denied { .. }));
    fixture.one(1, release("a", token));
    granted(&fixture.acquire(2, acquire("a", "y", "1")));
}

#[test]
fn release_by_request_bars_a_late_arrival() {
    let mut fixture = Fixture::new();
    for _ in 0..2 {
        assert_eq!(released(&fixture.one(0, release_request("a", "x", "1"))), ReleaseOutcome::Barred);
    }
    assert_eq!(fixture.acquire(1, acquire("a", "x", "1")), Outcome::Ended { token: 0, reason: EndReason::Barred });
    granted(&fixture.acquire(2, acquire("a", "x", "2")));
}

#[test]
fn release_by_request_ends_the_hold_whose_token_never_arrived() {
    let mut fixture = Fixture::new();
    let token = granted(&fixture.acquire(0, acquire("a", "x", "1")));
    assert_eq!(released(&fixture.one(1, release_request("a", "x", "1"))), ReleaseOutcome::Released);
    assert_eq!(released(&fixture.one(2, release_request("a", "x", "1"))), ReleaseOutcome::AlreadyReleased);
    assert_eq!(fixture.acquire(3, acquire("a", "x", "1")), Outcome::Ended { token, reason: EndReason::Released });
}

#[test]
fn waiter_that_asks_again_keeps_its_place() {
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    let (_, first) = queued(&fixture.acquire(0, waiting("a", "y", "1", 5000, 1)));
    let (_, second) = queued(&fixture.acquire(0, waiting("a", "z", "1", 5000, 1)));
    let before = fixture.table.revision();
    assert_eq!(queued(&fixture.acquire(1, waiting("a", "y", "1", 4000, 1))), (1, first));
    assert_eq!(queued(&fixture.acquire(1, waiting("a", "z", "1", 4000, 1))), (2, second));
    assert_eq!(fixture.table.revision(), before);
    assert_eq!(fixture.lease("a").waiters, 2);
}

#[test]
fn waiter_that_asks_again_without_waiting_is_denied_and_leaves() {
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    queued(&fixture.acquire(0, waiting("a", "y", "1", 5000, 1)));
    assert!(matches!(fixture.acquire(1, acquire("a", "y", "1")), Outcome::Denied { .. }));
    assert_eq!(fixture.lease("a").waiters, 0);
}

#[test]
fn waiter_that_was_granted_meanwhile_must_renew() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    queued(&fixture.acquire(0, waiting("a", "y", "1", 5000, 1)));
    let applied = fixture.at(1, [release("a", token), keep(1)]);
    assert_eq!(grants(&applied).len(), 1);
    let Outcome::Granted { lease, must_renew: true } = fixture.acquire(2, waiting("a", "y", "1", 4000, 2)) else { panic!() };
    assert!(lease.unclaimed);
}
