//! Grants, renewals and expiries.

use tenure_lease::{
    Acquire, Command, EndReason, EventKind, LeaseKey, LeaseState, LeaseTime, Limits, Outcome, Refusal, Renew, RenewItem, RenewResult, Scope, Selector,
};

use super::fixture::{Fixture, acquire, delete, granted, key, labels, release, renew_for};

fn lost(result: &RenewResult) -> (EndReason, Option<String>) {
    let RenewResult::Lost(lost) = result else { panic!("not lost: {result:?}") };
    (lost.reason, lost.holder.as_ref().map(ToString::to_string))
}

fn named(token: u64, key: LeaseKey) -> Command {
    Command::Renew(Renew { items: vec![RenewItem { token, duration_ms: None, key: Some(Box::new(key)) }] })
}

#[test]
fn acquire_creates_the_lease_in_the_same_change() {
    let mut fixture = Fixture::new();
    let asked =
        Acquire { holder_data: b"10.0.0.1:80".as_slice().into(), labels: labels(&[("a", "b")]), annotations: labels(&[("c", "d")]), ..acquire("a", "x", "1") };
    let applied = fixture.at(7, [Command::Acquire(Box::new(asked))]);
    let Outcome::Granted { lease, must_renew: false } = &applied.outcomes[0] else { panic!("{:?}", applied.outcomes) };
    assert_eq!((lease.create_revision, lease.revision, lease.renew_revision), (lease.token, lease.token, lease.token));
    assert_eq!((lease.state, lease.holder.as_deref(), lease.transitions), (LeaseState::Held, Some("x"), 0));
    assert_eq!((lease.deadline, lease.duration_ms, lease.retention_ms), (Some(LeaseTime(3007)), 3000, Some(3_600_000)));
    assert_eq!((&*lease.holder_data, lease.labels.len(), lease.annotations.len()), (b"10.0.0.1:80".as_slice(), 1, 1));
    assert_eq!(applied.events.len(), 1, "one change is one event");
    assert_eq!((applied.events[0].kind, applied.events[0].revision), (EventKind::Acquired, lease.token));
    assert_eq!(fixture.lease("a"), *lease);
}

#[test]
fn labels_of_an_acquire_count_only_when_it_creates_the_lease() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    fixture.one(1, release("a", token));
    fixture.acquire(2, Acquire { labels: labels(&[("a", "b")]), retention_ms: 5, holder_data: b"new".as_slice().into(), ..acquire("a", "y", "1") });
    assert_eq!((fixture.lease("a").labels.len(), fixture.lease("a").retention_ms), (0, Some(3_600_000)));
    assert_eq!(&*fixture.lease("a").holder_data, b"new");
    let token = fixture.lease("a").token;
    fixture.one(3, release("a", token));
    fixture.grant(4, "a", "z");
    assert!(fixture.lease("a").holder_data.is_empty(), "cleared at each grant");
}

#[test]
fn held_lease_is_denied_to_others_and_to_its_holder() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    for holder in ["y", "x"] {
        let Outcome::Denied { lease } = fixture.acquire(1, acquire("a", holder, "again")) else { panic!("not denied") };
        assert_eq!((lease.token, lease.holder.as_deref()), (token, Some("x")));
    }
    assert_eq!(fixture.table.revision(), token, "a denial is no change");
}

#[test]
fn lease_is_held_up_to_its_deadline_and_over_after_it() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    assert!(fixture.tick(3000).events.is_empty(), "not yet: at the deadline it is still held");
    assert_eq!(fixture.holder("a").as_deref(), Some("x"));
    let applied = fixture.tick(3001);
    let event = &applied.events[0];
    assert_eq!((event.kind, event.revision, event.reason()), (EventKind::Expired, token + 1, Some(EndReason::Expired)));
    assert_eq!(event.previous_holder().map(|holder| &**holder), Some("x"));
    let lease = fixture.lease("a");
    assert_eq!((lease.state, lease.last_holder.as_deref(), lease.deadline, lease.token), (LeaseState::Expired, Some("x"), None, token));
    assert_eq!((lease.revision, lease.renew_revision), (token + 1, token + 1));
}

#[test]
fn expired_lease_cannot_be_renewed() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    fixture.tick(3001);
    assert_eq!(lost(&fixture.renew(3002, token)), (EndReason::Expired, None));
    fixture.grant(3003, "a", "y");
    assert_eq!(lost(&fixture.renew(3004, token)), (EndReason::Expired, None), "without a name, nobody knows who holds it");
    let Outcome::Renewed(results) = fixture.one(3005, named(token, key("a"))) else { panic!() };
    assert_eq!(lost(&results[0]), (EndReason::Expired, Some("y".into())));
    fixture.tick(303_002);
    assert_eq!(lost(&fixture.renew(303_003, token)), (EndReason::UnknownToken, None), "after five minutes the reason is forgotten");
}

#[test]
fn renewal_past_the_deadline_succeeds_while_nothing_has_expired_it() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    assert_eq!(fixture.renew(50_000, token), RenewResult::Renewed { duration_ms: 3000 });
    assert_eq!(fixture.lease("a").deadline, Some(LeaseTime(53_000)));
}

#[test]
fn renewal_never_shortens_a_deadline() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let Outcome::Renewed(results) = fixture.one(100, renew_for(token, 1000)) else { panic!() };
    assert_eq!(results, [RenewResult::Renewed { duration_ms: 1000 }]);
    assert_eq!(fixture.lease("a").deadline, Some(LeaseTime(3000)));
    assert_eq!(fixture.lease("a").duration_ms, 1000);
    fixture.renew(2500, token);
    assert_eq!(fixture.lease("a").deadline, Some(LeaseTime(3500)), "the new duration goes on counting");
    fixture.one(2600, renew_for(token, 20_000));
    assert_eq!(fixture.lease("a").deadline, Some(LeaseTime(22_600)));
    assert!(fixture.tick(22_600).events.is_empty());
    assert_eq!(fixture.tick(22_601).events.len(), 1);
}

#[test]
fn renewed_leases_expire_in_the_order_of_their_present_deadlines() {
    let mut fixture = Fixture::new();
    let first = fixture.grant(0, "a", "x");
    fixture.grant(10, "b", "x");
    fixture.one(20, renew_for(first, 5000));
    let applied = fixture.tick(10_000);
    let names: Vec<_> = applied.events.iter().map(|event| event.lease.name.to_string()).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn renewal_that_names_another_lease_is_lost() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    fixture.grant(0, "b", "y");
    for (wrong, holder) in [(key("b"), Some("y".to_owned())), (key("c"), None), (LeaseKey::trusted("other", "a"), None)] {
        let Outcome::Renewed(results) = fixture.one(1, named(token, wrong)) else { panic!() };
        assert_eq!(lost(&results[0]), (EndReason::WrongLease, holder));
    }
    assert_eq!(fixture.lease("a").deadline, Some(LeaseTime(3000)), "nothing was renewed");
    let Outcome::Renewed(results) = fixture.one(1, named(token, key("a"))) else { panic!() };
    assert_eq!(results, [RenewResult::Renewed { duration_ms: 3000 }]);
}

#[test]
fn unknown_token_is_lost_for_that_reason() {
    let mut fixture = Fixture::new();
    assert_eq!(lost(&fixture.renew(0, 7)), (EndReason::UnknownToken, None));
    assert_eq!(lost(&fixture.renew(0, 0)), (EndReason::UnknownToken, None));
}

#[test]
fn message_of_many_renewals_is_answered_item_by_item() {
    let mut fixture = Fixture::new();
    let tokens: Vec<u64> = (0..21).map(|n| fixture.grant(0, &format!("lease-{n}"), "x")).collect();
    // Every third is unknown, and the first comes again at the end.
    let asked = tokens.iter().enumerate().map(|(n, token)| if n % 3 == 2 { token + 1_000_000 } else { *token }).chain([tokens[0]]);
    let items = asked.zip(10_000..).map(|(token, duration_ms)| RenewItem { token, duration_ms: Some(duration_ms), key: None }).collect();
    let applied = fixture.at(1_000, [Command::Renew(Renew { items })]);
    let Outcome::Renewed(results) = &applied.outcomes[0] else { panic!("{:?}", applied.outcomes) };
    assert_eq!(results.len(), 22);
    for (n, result) in results.iter().enumerate() {
        match result {
            RenewResult::Renewed { duration_ms } => assert_eq!((n % 3 < 2 || n == 21, *duration_ms as usize), (true, 10_000 + n)),
            RenewResult::Lost(lost) => assert_eq!((n % 3, lost.token), (2, tokens[n] + 1_000_000)),
        }
    }
    for n in 0..21 {
        let deadline = if n % 3 == 2 { 3_000 } else { 11_000 + if n == 0 { 21 } else { n } };
        assert_eq!(fixture.lease(&format!("lease-{n}")).deadline, Some(LeaseTime(deadline)), "lease {n}");
    }
}

#[test]
fn each_renewal_takes_a_number_and_leaves_the_revision() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    let items = vec![RenewItem { token, duration_ms: None, key: None }; 3];
    fixture.one(1, Command::Renew(Renew { items }));
    let lease = fixture.lease("a");
    assert_eq!((lease.revision, lease.renew_revision, fixture.table.revision()), (token, token + 3, token + 3));
    assert!(lease.renew_time > lease.acquire_time);
}

#[test]
fn reclaim_fences_the_old_process_of_the_same_holder() {
    let mut fixture = Fixture::new();
    let old = fixture.grant(0, "a", "x");
    fixture.enqueue(1, "a", "w");
    let applied = fixture.at(2, [Command::Acquire(Box::new(Acquire { reclaim: true, ..acquire("a", "x", "again") }))]);
    let new = granted(&applied.outcomes[0]);
    assert!(new > old);
    let event = &applied.events[0];
    assert_eq!((applied.events.len(), event.kind, event.reason()), (1, EventKind::Acquired, Some(EndReason::Reclaimed)));
    assert_eq!(event.ended.as_ref().map(|hold| hold.token), Some(old));
    assert_eq!(fixture.lease("a").transitions, 0, "the holder is the same");
    assert_eq!(lost(&fixture.renew(3, old)), (EndReason::Reclaimed, None));
    assert_eq!(fixture.renew(3, new), RenewResult::Renewed { duration_ms: 3000 });
}

#[test]
fn reclaim_by_another_name_is_denied() {
    let mut fixture = Fixture::new();
    fixture.grant(0, "a", "x");
    let outcome = fixture.acquire(1, Acquire { reclaim: true, ..acquire("a", "y", "1") });
    assert!(matches!(outcome, Outcome::Denied { .. }));
}

#[test]
fn transitions_count_changes_of_the_holder() {
    let mut fixture = Fixture::new();
    for (holder, transitions) in [("x", 0), ("x", 0), ("y", 1), ("x", 2), ("x", 2)] {
        let now = fixture.table.clock().0;
        let token = fixture.grant(now, "a", holder);
        assert_eq!(fixture.lease("a").transitions, transitions);
        fixture.one(now + 1, release("a", token));
    }
}

#[test]
fn tokens_grow_through_delete_and_recreate() {
    let mut fixture = Fixture::new();
    let mut last = 0;
    let mut uids = std::collections::BTreeSet::new();
    for round in 0..5 {
        let token = fixture.grant(round, "a", "x");
        assert!(token > last);
        last = token;
        assert!(uids.insert(fixture.lease("a").uid), "another incarnation");
        assert!(matches!(fixture.one(round, delete("a", true)), Outcome::Deleted { .. }));
    }
}

#[test]
fn recent_holds_are_the_last_eight_newest_first() {
    let mut fixture = Fixture::new();
    for number in 0..12 {
        let token = fixture.grant(number, "a", &format!("h{number}"));
        if number < 11 {
            fixture.one(number, release("a", token));
        }
    }
    let holds = fixture.table.recent_holds(&key("a"));
    let holders: Vec<_> = holds.iter().map(|hold| hold.holder.to_string()).collect();
    assert_eq!(holders, ["h11", "h10", "h9", "h8", "h7", "h6", "h5", "h4"]);
    assert_eq!((holds[0].end_reason, holds[0].end_revision), (None, 0));
    assert_eq!((holds[1].end_reason, holds[1].end_revision), (Some(EndReason::Released), holds[1].token + 1));
    fixture.tick(100_000);
    assert_eq!(fixture.table.recent_holds(&key("a")).len(), 8);
    assert_eq!(fixture.table.recent_holds(&key("b")), []);
}

#[test]
fn a_full_namespace_takes_no_new_lease_and_serves_the_old() {
    let mut fixture = Fixture::with(Limits { leases_per_namespace: 2, waiters_per_lease: 1 });
    let token = fixture.grant(0, "a", "x");
    fixture.grant(0, "b", "x");
    let full = Outcome::Refused(Refusal::NamespaceFull { limit: 2 });
    assert_eq!(fixture.acquire(0, acquire("c", "x", "1")), full);
    assert_eq!(fixture.one(0, Command::Put(Box::new(super::fixture::put("c")))), full);
    let elsewhere = Acquire { key: LeaseKey::trusted("other", "c"), ..acquire("c", "x", "1") };
    granted(&fixture.acquire(0, elsewhere));
    fixture.one(1, release("a", token));
    fixture.grant(2, "a", "y");
    fixture.one(3, delete("a", true));
    fixture.grant(4, "c", "x");
}

#[test]
fn lists_are_in_order_and_by_scope_and_selector() {
    let mut fixture = Fixture::new();
    for (namespace, name, label) in [("b", "z", "1"), ("b", "a", "2"), ("a", "m", "1")] {
        let key = LeaseKey::trusted(namespace, name);
        granted(&fixture.acquire(0, Acquire { key, labels: labels(&[("l", label)]), ..acquire("", "x", "1") }));
    }
    let frozen = fixture.table.freeze();
    for (scope, selector, expected) in
        [(Scope::All, "", "a/m b/a b/z"), (Scope::Namespace("b".into()), "", "b/a b/z"), (Scope::All, "l=1", "a/m b/z"), (Scope::Namespace("c".into()), "", "")]
    {
        let selector: Selector = selector.parse().expect("a selector");
        let found = fixture.table.list(&scope, &selector);
        assert_eq!(found, frozen.list(&scope, &selector));
        let names: Vec<_> = found.iter().map(|lease| format!("{}/{}", lease.namespace, lease.name)).collect();
        assert_eq!(names.join(" "), expected);
    }
    assert_eq!((fixture.table.count(&Scope::All), fixture.table.count(&Scope::Namespace("b".into()))), (3, 2));
}
