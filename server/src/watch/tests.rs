//! Watches over a real table.

use std::sync::Arc;

use super::*;
use crate::replica::{Applications, Progress};
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
        self.index += 1;
        let entry = Entry { stamp: LeaseTime(self.index), commands, ..Entry::default() };
        self.applications.apply(self.index, RaftLeaderId::default(), Some(entry));
    }

    fn put(&mut self, name: &str, labels: &[(&str, &str)]) {
        let labels: Labels = labels.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
        self.apply(vec![Command::Put(Box::new(Put {
            key: LeaseKey::trusted("default", name),
            labels: Some(Arc::new(labels)),
            annotations: None,
            retention_ms: None,
            if_revision: None,
            must_not_exist: false,
            hold: None,
        }))]);
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
        self.hub.watch(&self.applications, filter, start).map(|(watch, _)| watch).map_err(|error| format!("{error:?}")).unwrap()
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
    let late = world.hub.watch(&world.applications, everything(), Start::After(1_001)).map(|_| ());
    assert_eq!(late.unwrap_err(), Unwatchable::Compacted(tenure_lease::Compacted { floor }));
}

#[test]
fn watch_from_the_future_is_refused() {
    let world = World::new();
    let early = world.hub.watch(&world.applications, everything(), Start::After(world.revision() + 1)).map(|_| ());
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
    let (mut watch, frozen) = world.hub.watch(&world.applications, everything(), Start::Initial).map_err(|error| format!("{error:?}")).unwrap();
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
