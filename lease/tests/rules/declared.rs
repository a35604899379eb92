//! Put, Delete and retention.

use tenure_lease::{Acquire, Command, Delete, EndReason, EventKind, LeaseState, LeaseTime, Outcome, Put, PutHold, Refusal};

use super::fixture::{Fixture, acquire, delete, detach, granted, key, labels, put, release};

fn run(fixture: &mut Fixture, now: u64, put: Put) -> Outcome {
    fixture.one(now, Command::Put(Box::new(put)))
}

#[test]
fn put_creates_a_free_lease_that_is_kept_for_ever() {
    let mut fixture = Fixture::new();
    let applied = fixture.at(0, [Command::Put(Box::new(Put { labels: Some(labels(&[("a", "b")])), ..put("a") }))]);
    let Outcome::Put { lease } = &applied.outcomes[0] else { panic!() };
    assert_eq!((lease.state, lease.token, lease.retention_ms, lease.deadline), (LeaseState::Free, 0, None, None));
    assert_eq!((lease.acquire_time, lease.renew_time, lease.labels.len()), (None, None, 1));
    assert_eq!((applied.events[0].kind, applied.events[0].revision), (EventKind::Created, lease.create_revision));
    fixture.tick(u64::MAX / 2);
    assert_eq!(fixture.lease("a"), *lease);
}

#[test]
fn put_changes_what_it_names_and_tells_the_labels_before() {
    let mut fixture = Fixture::new();
    let old = labels(&[("a", "b")]);
    run(&mut fixture, 0, Put { labels: Some(old.clone()), annotations: Some(labels(&[("n", "1")])), ..put("a") });
    let applied = fixture.at(1, [Command::Put(Box::new(Put { labels: Some(labels(&[])), ..put("a") }))]);
    assert_eq!((applied.events[0].kind, applied.events[0].previous_labels.as_ref()), (EventKind::Updated, Some(&old)));
    let lease = fixture.lease("a");
    assert_eq!((lease.labels.len(), lease.annotations.len()), (0, 1));
    assert!(lease.revision > lease.create_revision && lease.renew_revision == lease.revision);
    let applied = fixture.at(2, [Command::Put(Box::new(Put { retention_ms: Some(Some(5000)), ..put("a") }))]);
    assert_eq!(applied.events[0].previous_labels, None, "labels were not changed");
}

#[test]
fn put_that_changes_nothing_is_no_change() {
    let mut fixture = Fixture::new();
    let same = || Put { labels: Some(labels(&[("a", "b")])), retention_ms: Some(None), ..put("a") };
    let first = run(&mut fixture, 0, same());
    let applied = fixture.at(1, [Command::Put(Box::new(same()))]);
    assert_eq!((&applied.outcomes[0], applied.events.len()), (&first, 0));
}

#[test]
fn put_does_not_touch_the_hold() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    run(&mut fixture, 1, Put { annotations: Some(labels(&[("n", "1")])), ..put("a") });
    let lease = fixture.lease("a");
    assert_eq!((lease.token, lease.deadline, lease.holder.as_deref()), (token, Some(LeaseTime(3000)), Some("x")));
}

#[test]
fn preconditions_are_checked() {
    let mut fixture = Fixture::new();
    assert_eq!(run(&mut fixture, 0, Put { if_revision: Some(1), ..put("a") }), Outcome::Refused(Refusal::NotFound));
    assert_eq!(fixture.one(0, delete("a", true)), Outcome::Refused(Refusal::NotFound));
    run(&mut fixture, 0, Put { must_not_exist: true, ..put("a") });
    let current = fixture.lease("a").revision;
    assert_eq!(run(&mut fixture, 0, Put { must_not_exist: true, ..put("a") }), Outcome::Refused(Refusal::AlreadyExists));
    let mismatch = Outcome::Refused(Refusal::RevisionMismatch { current });
    assert_eq!(run(&mut fixture, 0, Put { if_revision: Some(current + 1), labels: Some(labels(&[("a", "b")])), ..put("a") }), mismatch);
    let delete_if = |revision| Command::Delete(Box::new(Delete { key: key("a"), if_revision: Some(revision), force: true }));
    assert_eq!(fixture.one(0, delete_if(current - 1)), mismatch);
    assert!(matches!(run(&mut fixture, 0, Put { if_revision: Some(current), ..put("a") }), Outcome::Put { .. }));
    assert!(matches!(fixture.one(0, delete_if(current)), Outcome::Deleted { .. }));
}

#[test]
fn lease_that_is_held_or_waited_for_is_not_deleted_without_force() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    assert_eq!(fixture.one(0, delete("a", false)), Outcome::Refused(Refusal::InUse { until: Some(LeaseTime(3000)) }));
    let waiter = fixture.enqueue(0, "a", "y");
    fixture.one(1, detach("a", 1, waiter));
    fixture.one(2, release("a", token));
    assert_eq!(fixture.one(2, delete("a", false)), Outcome::Refused(Refusal::InUse { until: None }), "waited for");
    assert!(matches!(fixture.one(3, delete("a", true)), Outcome::Deleted { .. }));
    assert_eq!(fixture.table.get(&key("a")), None);
}

#[test]
fn idle_lease_is_deleted_after_its_retention() {
    let mut fixture = Fixture::new();
    let token = granted(&fixture.acquire(0, Acquire { retention_ms: 5000, ..acquire("a", "x", "1") }));
    fixture.one(1000, release("a", token));
    assert!(fixture.tick(6000).events.is_empty());
    let applied = fixture.tick(6001);
    assert_eq!((applied.events[0].kind, applied.events[0].lease.token, applied.events[0].ended.as_ref()), (EventKind::Deleted, token, None));
    assert_eq!(fixture.table.get(&key("a")), None);
}

#[test]
fn retention_counts_from_the_last_end() {
    let mut fixture = Fixture::new();
    granted(&fixture.acquire(0, Acquire { retention_ms: 5000, ..acquire("a", "x", "1") }));
    fixture.tick(3001);
    let token = fixture.grant(8000, "a", "y");
    fixture.tick(8500);
    fixture.one(9000, release("a", token));
    run(&mut fixture, 10_000, Put { annotations: Some(labels(&[("n", "1")])), ..put("a") });
    assert!(fixture.tick(14_000).events.is_empty());
    assert_eq!(fixture.tick(14_001).events[0].kind, EventKind::Deleted, "a Put does not prolong it");
}

#[test]
fn retention_of_a_lease_never_held_counts_from_the_last_put() {
    let mut fixture = Fixture::new();
    let declared = || Put { retention_ms: Some(Some(5000)), ..put("a") };
    run(&mut fixture, 0, declared());
    run(&mut fixture, 4000, declared());
    assert!(fixture.tick(9000).events.is_empty());
    assert_eq!(fixture.tick(9001).events[0].kind, EventKind::Deleted);
}

#[test]
fn lease_that_is_waited_for_is_kept_and_its_retention_starts_when_the_last_waiter_leaves() {
    let mut fixture = Fixture::new();
    let token = granted(&fixture.acquire(0, Acquire { retention_ms: 1000, ..acquire("a", "x", "1") }));
    let waiter = fixture.enqueue(0, "a", "y");
    fixture.one(1, detach("a", 1, waiter));
    fixture.one(2, release("a", token));
    assert!(fixture.tick(10_001).events.is_empty());
    fixture.tick(10_002);
    assert_eq!(fixture.lease("a").waiters, 0);
    assert!(fixture.tick(11_002).events.is_empty());
    assert_eq!(fixture.tick(11_003).events[0].kind, EventKind::Deleted);
}

#[test]
fn retention_can_be_set_and_lifted() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "x");
    fixture.one(0, release("a", token));
    run(&mut fixture, 1, Put { retention_ms: Some(None), ..put("a") });
    assert!(fixture.tick(100_000_000).events.is_empty());
    run(&mut fixture, 100_000_000, Put { retention_ms: Some(Some(5)), ..put("a") });
    assert_eq!(fixture.tick(100_000_001).events[0].kind, EventKind::Deleted, "its time was over");
}

fn hold(name: &str, holder: &str, request_id: &str) -> Put {
    let hold = PutHold { holder: holder.into(), duration_ms: 3000, request_id: request_id.into(), holder_data: std::sync::Arc::from(&b"data"[..]) };
    Put { labels: Some(labels(&[("a", "b")])), hold: Some(hold), ..put(name) }
}

fn taken(outcome: &Outcome) -> u64 {
    let Outcome::Put { lease } = outcome else { panic!("not put: {outcome:?}") };
    lease.token
}

#[test]
fn put_with_a_hold_creates_edits_and_grants_in_one_change() {
    let mut fixture = Fixture::new();
    let applied = fixture.at(0, [Command::Put(Box::new(hold("a", "x", "1")))]);
    let token = taken(&applied.outcomes[0]);
    let lease = fixture.lease("a");
    assert_eq!((lease.token, lease.revision, lease.create_revision, lease.deadline), (token, token, token, Some(LeaseTime(3000))));
    assert_eq!((lease.retention_ms, lease.holder_data.as_ref(), lease.labels.len()), (None, &b"data"[..], 1));
    assert_eq!(applied.events.iter().map(|event| (event.kind, event.revision)).collect::<Vec<_>>(), [(EventKind::Acquired, token)]);
    let other = Put { labels: Some(labels(&[("a", "c")])), ..hold("a", "x", "2") };
    let applied = fixture.at(1, [Command::Put(Box::new(other))]);
    let again = taken(&applied.outcomes[0]);
    assert!(again > token, "the present holder takes over with a new token");
    assert_eq!((fixture.lease("a").transitions, fixture.lease("a").revision), (lease.transitions, again));
    let [event] = &applied.events[..] else { panic!("one change is one event: {:?}", applied.events) };
    assert_eq!((event.kind, event.previous_labels.as_ref()), (EventKind::Acquired, Some(&labels(&[("a", "b")]))));
    assert_eq!(event.ended.as_ref().map(|ended| (ended.token, ended.end_reason)), Some((token, Some(EndReason::Reclaimed))));
}

#[test]
fn put_with_a_hold_that_is_refused_changes_nothing() {
    let mut fixture = Fixture::new();
    let token = fixture.grant(0, "a", "y");
    let before = fixture.lease("a");
    let refused = Outcome::Refused(Refusal::HeldByAnother { holder: "y".into(), token, left_ms: 2000 });
    assert_eq!(run(&mut fixture, 1000, hold("a", "x", "1")), refused);
    assert_eq!(fixture.lease("a"), before);
    let waiter = fixture.enqueue(1000, "a", "z");
    fixture.one(1001, detach("a", 1, waiter));
    fixture.one(1002, release("a", token));
    let before = fixture.lease("a");
    assert_eq!(run(&mut fixture, 1003, hold("a", "x", "2")), Outcome::Refused(Refusal::WaitedFor { waiters: 1 }));
    assert_eq!(fixture.lease("a"), before);
    assert_eq!(run(&mut fixture, 1003, Put { if_revision: Some(1), ..hold("b", "x", "3") }), Outcome::Refused(Refusal::NotFound));
    assert_eq!(fixture.table.get(&key("b")), None);
}

#[test]
fn repeated_put_with_a_hold_is_never_granted_twice() {
    let mut fixture = Fixture::new();
    let token = taken(&run(&mut fixture, 0, hold("a", "x", "1")));
    assert_eq!(taken(&run(&mut fixture, 1, hold("a", "x", "1"))), token);
    let other = Put { labels: None, ..hold("a", "x", "1") };
    assert_eq!(run(&mut fixture, 2, other), Outcome::Refused(Refusal::RequestMismatch));
    fixture.one(3, release("a", token));
    assert_eq!(run(&mut fixture, 4, hold("a", "x", "1")), Outcome::Ended { token, reason: EndReason::Released });
    let later = taken(&run(&mut fixture, 5, hold("a", "x", "2")));
    assert!(later > token);
    fixture.tick(10_000);
    assert_eq!(fixture.lease("a").state, LeaseState::Expired);
    assert!(taken(&run(&mut fixture, 10_001, hold("a", "w", "1"))) > later, "a lease whose hold ran out is granted");
}
