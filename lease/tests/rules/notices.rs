//! Who is told what.

use tenure_lease::{EndReason, NoticeKind, Outcome};

use super::fixture::{Fixture, delete, notices, release, renew};

#[test]
fn forced_delete_denies_every_waiter_and_revokes_the_hold() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let waiters = [fixture.enqueue(0, "a", "y").0, fixture.enqueue(0, "a", "z").0];
    let applied = fixture.at(1, [delete("a", true)]);
    let Outcome::Deleted { lease } = &applied.outcomes[0] else { panic!() };
    assert_eq!((lease.holder.as_deref(), lease.waiters), (Some("x"), 2), "as it was");
    assert_eq!(notices(&applied), waiters.map(|id| (1, id, NoticeKind::Denied(lease.clone()))));
    assert_eq!(applied.events.len(), 1);
    assert_eq!(applied.events[0].reason(), Some(EndReason::Revoked));
    let Outcome::Renewed(results) = fixture.one(2, renew(token)) else { panic!() };
    assert!(matches!(&results[0], tenure_lease::RenewResult::Lost(lost) if lost.reason == EndReason::Revoked));
    assert_eq!(fixture.table.totals().waiters, 0);
}

#[test]
fn a_grant_is_told_with_the_lease_as_granted() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let waiter = fixture.enqueue(0, "a", "y").0;
    let applied = fixture.at(1, [release("a", token)]);
    assert_eq!(notices(&applied), [(1, waiter, NoticeKind::Granted(fixture.lease("a")))]);
}
