//! Releases: idempotent, and handing over in the same change.

use tenure_lease::{Command, EndReason, EventKind, LeaseState, NoticeKind, Outcome, Release, ReleaseBy, ReleaseOutcome};

use super::fixture::{Fixture, acquire, delete, grants, key, notices, queued, release, release_request, released, waiting};

#[test]
fn release_frees_the_lease_and_can_be_repeated() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let applied = fixture.at(1, [release("a", token)]);
    assert_eq!(released(&applied.outcomes[0]), ReleaseOutcome::Released);
    assert_eq!((applied.events[0].kind, applied.events[0].reason()), (EventKind::Released, Some(EndReason::Released)));
    let lease = fixture.lease("a");
    assert_eq!((lease.state, lease.holder.as_deref(), lease.last_holder.as_deref()), (LeaseState::Free, None, Some("x")));
    let before = fixture.table.revision();
    assert_eq!(released(&fixture.one(2, release("a", token))), ReleaseOutcome::AlreadyReleased);
    assert_eq!(fixture.table.revision(), before);
}

#[test]
fn grant_that_was_not_delivered_goes_back_unless_its_holder_has_renewed_it() {
    let give_back = |token| Command::Release(Box::new(Release { key: key("a"), by: ReleaseBy::Undelivered(token) }));
    let mut fixture = Fixture::new();
    let lost = fixture.grant(0, "a", "x");
    assert_eq!(released(&fixture.one(1, give_back(lost))), ReleaseOutcome::Released);
    assert_eq!(fixture.holder("a"), None);

    // The same request has reached its holder through another replica, who renewed before believing to hold.
    let delivered = fixture.grant(2, "a", "y");
    fixture.renew(3, delivered);
    assert_eq!(released(&fixture.one(4, give_back(delivered))), ReleaseOutcome::NotHolder);
    assert_eq!(fixture.holder("a").as_deref(), Some("y"));
}

#[test]
fn release_of_an_expired_newest_token_is_no_error() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    fixture.tick(5000);
    assert_eq!(released(&fixture.one(5001, release("a", token))), ReleaseOutcome::AlreadyReleased);
}

#[test]
fn release_by_who_does_not_hold_changes_nothing() {
    let mut fixture = Fixture::new();
    let old = fixture.grant(0, "a", "x");
    fixture.one(1, release("a", old));
    let new = fixture.grant(2, "a", "y");
    let other = fixture.grant(2, "b", "y");
    for token in [0, old, other, new + 100] {
        let Outcome::Released { outcome: ReleaseOutcome::NotHolder, lease: Some(lease) } = fixture.one(3, release("a", token)) else { panic!("{token}") };
        assert_eq!(lease.token, new);
    }
    assert_eq!(fixture.one(3, release("none", new)), Outcome::Released { outcome: ReleaseOutcome::NotHolder, lease: None });
    assert_eq!(fixture.holder("a").as_deref(), Some("y"));
    fixture.one(4, delete("a", true));
    assert_eq!(fixture.one(5, release("a", new)), Outcome::Released { outcome: ReleaseOutcome::NotHolder, lease: None });
}

#[test]
fn release_hands_over_in_the_same_change() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let waiter = fixture.enqueue(1, "a", "y");
    let applied = fixture.at(2, [release("a", token)]);
    assert_eq!(applied.events.len(), 1);
    let event = &applied.events[0];
    assert_eq!((event.kind, event.reason(), event.lease.holder.as_deref()), (EventKind::Acquired, Some(EndReason::Released), Some("y")));
    assert_eq!(event.ended.as_ref().map(|hold| (hold.token, hold.end_revision)), Some((token, event.revision)));
    assert_eq!(grants(&applied), [(1, waiter.0, event.revision)]);
    let Outcome::Released { outcome: ReleaseOutcome::Released, lease: Some(lease) } = &applied.outcomes[0] else { panic!() };
    assert_eq!(lease.holder.as_deref(), Some("y"));
}

#[test]
fn release_by_request_takes_a_waiter_out_and_bars_it() {
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    let (_, waiter) = queued(&fixture.acquire(0, waiting("a", "y", "1", 5000, 7)));
    let applied = fixture.at(1, [release_request("a", "y", "1")]);
    assert_eq!(released(&applied.outcomes[0]), ReleaseOutcome::Released);
    assert_eq!(notices(&applied), [(7, waiter.0, NoticeKind::Ended(EndReason::Released))]);
    assert_eq!(fixture.lease("a").waiters, 0);
    let again = fixture.acquire(2, waiting("a", "y", "1", 5000, 7));
    assert_eq!(again, Outcome::Ended { token: 0, reason: EndReason::Released }, "a copy that was on its way does not queue again");
}

#[test]
fn release_past_the_deadline_is_a_release() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let applied = fixture.at(9000, [release("a", token)]);
    assert_eq!(applied.events[0].reason(), Some(EndReason::Released));
    fixture.acquire(9001, acquire("a", "y", "1"));
    assert_eq!(fixture.holder("a").as_deref(), Some("y"));
}
