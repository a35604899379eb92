//! Watches over a real table.

use std::sync::Arc;

use super::*;
use crate::replica::{Applications, Progress};
use futures::FutureExt as _;
use tenure_lease::{Acquire, Command, Entry, Labels, LeaseKey, LeaseTime, Limits, Put, RaftLeaderId, Renew, RenewItem, Scope, SessionId};

const QUEUE: usize = 1_024;

struct World {
    applications: Arc<Applications>,
    hub: WatchHub,
    index: u64,
}

impl World {
    fn new() -> Self {
        let hub = WatchHub::new(QUEUE);
        let applications = Applications::new(LeaseTable::new(), Progress::default(), vec![Box::new(hub.clone())], None);
        let mut world = Self { applications, hub, index: 0 };
        world.apply(vec![Command::Bootstrap { counter_start: 1_000, limits: Limits::default() }]);
        world
    }

    fn apply(&mut self, commands: Vec<Command>) {
        self.apply_only(commands);
        self.dispatch();
    }

    /// Leaves what came of it with the hub.
    fn apply_only(&mut self, commands: Vec<Command>) {
        self.index += 1;
        let entry = Entry { stamp: LeaseTime(self.index), commands, ..Entry::default() };
        self.applications.apply(self.index, RaftLeaderId::default(), Some(entry));
    }

    /// Puts what was applied into the queues. There are too few watches here for pauses.
    fn dispatch(&self) {
        while self.hub.shared.dispatch().now_or_never().expect("no pause") {}
    }

    fn put(&mut self, name: &str, labels: &[(&str, &str)]) {
        self.apply(vec![Self::putting(name, labels)]);
    }

    fn putting(name: &str, labels: &[(&str, &str)]) -> Command {
        let labels: Labels = labels.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
        Command::Put(Box::new(Put {
            key: LeaseKey::trusted("default", name),
            labels: Some(Arc::new(labels)),
            annotations: None,
            retention_ms: None,
            if_revision: None,
            must_not_exist: false,
            hold: None,
        }))
    }

    /// Its token.
    fn acquire(&mut self, name: &str) -> u64 {
        self.apply(vec![Command::Acquire(Box::new(Acquire {
            key: LeaseKey::trusted("default", name),
            holder: "h".into(),
            duration_ms: 60_000,
            request_id: "r".into(),
            wait_ms: 0,
            reclaim: false,
            holder_data: Arc::from(&b""[..]),
            session: SessionId(0),
            retention_ms: 1_000,
            labels: Arc::default(),
            annotations: Arc::default(),
        }))]);
        self.revision()
    }

    fn renew(&mut self, token: u64) {
        self.apply(vec![Command::Renew(Renew { items: vec![RenewItem { token, duration_ms: None, key: None }] })]);
    }

    fn revision(&self) -> u64 {
        self.applications.progress().revision
    }

    fn watch(&self, filter: Filter, start: Start) -> Subscription {
        self.hub.watch(&self.applications, filter, start, None).map(|(watch, _)| watch).map_err(|error| format!("{error:?}")).unwrap()
    }

    /// What there is for the watch now: kinds and names.
    fn seen(&self, watch: &mut Subscription) -> Vec<(EventKind, String)> {
        let mut seen = Vec::new();
        while let Some(batch) = watch.take(&self.applications, 100).unwrap() {
            seen.extend(batch.deliveries.iter().map(|delivery| (delivery.kind(), delivery.lease().name.to_string())));
        }
        seen
    }
}

fn everything() -> Filter {
    Filter { scope: Scope::All, name: None, selector: "".parse().unwrap(), renewals: false }
}

fn selecting(selector: &str) -> Filter {
    Filter { selector: selector.parse().unwrap(), ..everything() }
}

#[test]
fn leases_enter_and_leave_a_selector() {
    let mut world = World::new();
    let mut watch = world.watch(selecting("app=web"), Start::Now);
    world.put("a", &[("app", "db")]);
    assert_eq!(world.seen(&mut watch), []);
    world.put("a", &[("app", "web")]);
    world.put("a", &[("app", "web"), ("tier", "1")]);
    assert_eq!(world.seen(&mut watch), [(EventKind::Created, "a".into()), (EventKind::Updated, "a".into())]);
    world.put("a", &[("app", "db")]);
    let batch = watch.take(&world.applications, 10).unwrap().unwrap();
    assert_eq!(batch.deliveries[0].kind(), EventKind::Deleted);
    assert_eq!(&*batch.deliveries[0].lease().labels["app"], "web", "a deleted lease is shown as it was");
    world.put("a", &[("app", "queue")]);
    assert_eq!(world.seen(&mut watch), []);
}

#[test]
fn watches_see_their_scope_and_name_only() {
    let mut world = World::new();
    let default = Scope::Namespace("default".into());
    let mut named = world.watch(Filter { scope: default.clone(), name: Some("b".into()), ..everything() }, Start::Now);
    let mut spaced = world.watch(Filter { scope: default, ..everything() }, Start::Now);
    let mut elsewhere = world.watch(Filter { scope: Scope::Namespace("other".into()), ..everything() }, Start::Now);
    world.put("a", &[]);
    world.put("b", &[]);
    assert_eq!(world.seen(&mut named), [(EventKind::Created, "b".into())]);
    assert_eq!(world.seen(&mut spaced).len(), 2);
    assert_eq!(world.seen(&mut elsewhere), []);
    assert_eq!(elsewhere.bookmark(), world.revision(), "silence has a bookmark too");
}

#[test]
fn renewals_are_for_those_who_asked_and_live_only() {
    let mut world = World::new();
    let token = world.acquire("a");
    assert!(!world.hub.wants_renewals());
    let mut plain = world.watch(everything(), Start::Now);
    let mut eager = world.watch(Filter { renewals: true, ..everything() }, Start::Now);
    assert!(world.hub.wants_renewals());
    let before = world.revision();
    world.renew(token);
    assert_eq!(world.seen(&mut eager), [(EventKind::Renewed, "a".into())]);
    assert_eq!(world.seen(&mut plain), []);
    let mut resumed = world.watch(Filter { renewals: true, ..everything() }, Start::After(before));
    assert_eq!(world.seen(&mut resumed), [], "a renewal is never replayed");
    drop((eager, resumed));
    assert!(!world.hub.wants_renewals());
    assert_eq!(world.hub.open_watches(), 1);
}

#[test]
fn resumed_watch_neither_misses_nor_repeats() {
    let mut world = World::new();
    world.put("a", &[]);
    let seen = world.revision();
    world.put("b", &[]);
    world.put("c", &[]);
    let mut watch = world.watch(everything(), Start::After(seen));
    world.put("d", &[]);
    let names: Vec<String> = world.seen(&mut watch).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["b", "c", "d"]);
    assert_eq!(watch.bookmark(), world.revision());
}

#[test]
fn watch_that_overflows_goes_on_from_the_tail_without_a_gap() {
    let mut world = World::new();
    let mut watch = world.watch(everything(), Start::Now);
    let n = QUEUE * 3 + 7;
    for i in 0..n {
        world.put(&format!("l{i:05}"), &[]);
    }
    let mut names = Vec::new();
    let mut last = 0;
    while let Some(batch) = watch.take(&world.applications, 100).unwrap() {
        for delivery in &batch.deliveries {
            assert!(delivery.event.revision > last, "in order and once");
            last = delivery.event.revision;
            names.push(delivery.lease().name.to_string());
        }
        assert!(batch.bookmark >= last);
        if names.len() == 200 {
            world.put("z-in-between", &[]);
        }
    }
    assert_eq!(names.len(), n + 1);
    assert_eq!(names[n], "z-in-between");
    assert!(names[..n].iter().enumerate().all(|(i, name)| *name == format!("l{i:05}")));
}

/// Changes until the oldest are forgotten.
fn compact(world: &mut World) {
    while world.applications.table.read().watch_floor() <= 1_002 {
        let commands = (0..5_000).map(|i| {
            Command::Put(Box::new(Put {
                key: LeaseKey::trusted("default", "busy"),
                labels: Some(Arc::new([("n".into(), format!("{}-{i}", world.index).into())].into())),
                annotations: None,
                retention_ms: None,
                if_revision: None,
                must_not_exist: false,
                hold: None,
            }))
        });
        let commands = commands.collect();
        world.apply(commands);
    }
}

#[test]
fn watch_that_is_too_far_behind_is_told_the_floor() {
    let mut world = World::new();
    let mut watch = world.watch(everything(), Start::Now);
    compact(&mut world);
    let floor = world.applications.table.read().watch_floor();
    let mut taken = 0;
    let error = loop {
        match watch.take(&world.applications, 1_000) {
            Ok(batch) => taken += batch.expect("an error ends it, not silence").deliveries.len(),
            Err(error) => break error,
        }
    };
    assert_eq!((taken, error.floor), (QUEUE, floor), "what was queued is still delivered");
    let late = world.hub.watch(&world.applications, everything(), Start::After(1_001), None).map(|_| ());
    assert_eq!(late.unwrap_err(), Unwatchable::Compacted(tenure_lease::Compacted { floor }));
}

#[test]
fn watch_from_the_future_is_refused() {
    let world = World::new();
    let early = world.hub.watch(&world.applications, everything(), Start::After(world.revision() + 1), None).map(|_| ());
    assert_eq!(early.unwrap_err(), Unwatchable::Future);
}

#[test]
fn snapshot_makes_watches_resume_from_the_tail_that_came_with_it() {
    let mut ahead = World::new();
    let mut behind = World::new();
    for world in [&mut ahead, &mut behind] {
        world.put("a", &[]);
    }
    let mut watch = behind.watch(everything(), Start::Now);
    behind.put("b", &[]);
    ahead.put("b", &[]);
    ahead.put("c", &[]);
    let mut bytes = Vec::new();
    ahead.applications.table.read().freeze().write_to(&mut bytes).unwrap();
    behind.applications.replace(9, RaftLeaderId::default(), LeaseTable::restore(&mut &bytes[..]).unwrap());
    behind.put("d", &[]);
    let names: Vec<String> = behind.seen(&mut watch).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["b", "c", "d"]);
}

#[test]
fn initial_list_and_first_change_have_no_gap_between_them() {
    let mut world = World::new();
    world.put("a", &[]);
    let (mut watch, frozen) = world.hub.watch(&world.applications, everything(), Start::Initial, None).map_err(|error| format!("{error:?}")).unwrap();
    world.put("b", &[]);
    let initial = frozen.unwrap();
    assert_eq!(initial.list(&Scope::All, &"".parse().unwrap()).len(), 1);
    assert_eq!(watch.begins_after(), initial.revision());
    assert_eq!(world.seen(&mut watch), [(EventKind::Created, "b".into())]);
}

#[tokio::test]
async fn next_waits_for_an_event_and_dropping_it_loses_none() {
    let mut world = World::new();
    let mut watch = world.watch(everything(), Start::Now);
    assert!(futures::poll!(std::pin::pin!(watch.next(&world.applications, 10))).is_pending());
    world.put("a", &[]);
    let batch = watch.next(&world.applications, 10).await.unwrap();
    assert_eq!((batch.deliveries.len(), batch.bookmark), (1, world.revision()));
}

#[test]
fn apply_hands_events_over_once_however_many_watch() {
    let mut world = World::new();
    let mut watches: Vec<Subscription> = (0..10).map(|_| world.watch(everything(), Start::Now)).collect();
    world.apply_only(vec![World::putting("a", &[])]);
    assert_eq!(world.hub.shared.pending.lock().events.len(), 1);
    let begun_after = watches[0].begins_after();
    assert!(watches.iter_mut().all(|watch| watch.take(&world.applications, 10).unwrap().is_none() && watch.bookmark() == begun_after));
    world.dispatch();
    for watch in &mut watches {
        assert_eq!(world.seen(watch), [(EventKind::Created, "a".into())]);
        assert_eq!(watch.bookmark(), world.revision());
    }
}

#[test]
fn watch_that_begins_while_events_are_pending_sees_none_of_them_twice() {
    let mut world = World::new();
    let _first = world.watch(everything(), Start::Now);
    let before = world.revision();
    world.apply_only(vec![World::putting("a", &[])]);
    let mut resumed = world.watch(everything(), Start::After(before));
    let mut fresh = world.watch(everything(), Start::Now);
    assert_eq!(world.seen(&mut resumed), [(EventKind::Created, "a".into())], "from the tail");
    world.dispatch();
    assert_eq!(world.seen(&mut resumed), []);
    assert_eq!(world.seen(&mut fresh), []);
}

#[test]
fn more_events_than_may_be_pending_are_found_in_the_tail() {
    let mut world = World::new();
    let mut watch = world.watch(everything(), Start::Now);
    let mut of_other_scope = world.watch(Filter { scope: Scope::Namespace("other".into()), ..everything() }, Start::Now);
    for round in 0..=PENDING / 4_096 {
        world.apply_only((0..4_096).map(|i| World::putting(&format!("l{}", round * 4_096 + i), &[])).collect());
        assert!(world.hub.shared.pending.lock().events.len() <= PENDING);
    }
    world.dispatch();
    assert!(matches!(watch.take(&world.applications, 10), Err(tenure_lease::Compacted { .. })), "the tail is as long as what may be pending");
    assert!(matches!(of_other_scope.take(&world.applications, 10), Err(tenure_lease::Compacted { .. })));
    let mut later = world.watch(everything(), Start::Now);
    world.put("after", &[]);
    assert_eq!(world.seen(&mut later), [(EventKind::Created, "after".into())]);
}

#[test]
fn one_source_has_a_quarter_of_all_watches() {
    let world = World::new();
    let of = |source: &str| world.hub.watch(&world.applications, everything(), Start::Now, Some(Source::Name(source.into()))).map(|(watch, _)| watch);
    let mut greedy: Vec<Subscription> = (0..MAX_WATCHES_OF_SOURCE).map(|_| of("greedy").map_err(|error| format!("{error:?}")).unwrap()).collect();
    assert_eq!(of("greedy").map(|_| ()).unwrap_err(), Unwatchable::TooManyOfSource);
    assert!(of("modest").is_ok());
    greedy.pop();
    assert!(of("greedy").is_ok(), "its place is free again");
    drop(greedy);
    assert!(world.hub.shared.registry.lock().by_source.is_empty());
}

#[tokio::test]
async fn queues_of_all_watches_together_are_bounded_and_filled_in_turns() {
    let mut world = World::new();
    let unread: Vec<Subscription> = (0..QUEUED / QUEUE + 10).map(|_| world.watch(everything(), Start::Now)).collect();
    world.apply_only((0..QUEUE).map(|i| World::putting(&format!("l{i}"), &[])).collect());
    let shared = Arc::clone(&world.hub.shared);
    let mut dispatching = std::pin::pin!(shared.dispatch());
    assert!(futures::poll!(&mut dispatching).is_pending(), "other calls have their turn");
    assert_eq!(shared.queued.load(Ordering::Relaxed), AT_A_TIME * QUEUE);
    world.apply_only((0..QUEUE).map(|i| World::putting(&format!("m{i}"), &[])).collect());
    assert!(dispatching.await);
    while world.hub.shared.dispatch().await {}
    assert_eq!(world.hub.shared.queued.load(Ordering::Relaxed), QUEUED);
    for mut watch in unread {
        let names: Vec<String> = world.seen(&mut watch).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), 2 * QUEUE, "what found no room is in the tail");
    }
    assert_eq!(world.hub.shared.queued.load(Ordering::Relaxed), 0);
}
