//! Notices and positions over a real table.

use super::*;
use crate::replica::Progress;
use futures::FutureExt as _;
use tenure_lease::{Acquire, Command as Core, Entry, Limits, Outcome, RaftLeaderId, Release, ReleaseBy};

const HERE: SessionId = SessionId(7);
const ELSEWHERE: SessionId = SessionId(8);

struct World {
    applications: Arc<Applications>,
    waiting: Waiting,
    index: u64,
}

fn key() -> LeaseKey {
    LeaseKey::trusted("default", "db")
}

impl World {
    fn new() -> Self {
        let waiting = Waiting::new(HERE);
        let applications = Applications::new(LeaseTable::new(), Progress::default(), vec![Box::new(waiting.clone())], None);
        let mut world = Self { applications, waiting, index: 0 };
        world.apply(Core::Bootstrap { counter_start: 1_000, limits: Limits::default() });
        world
    }

    fn apply(&mut self, command: Core) -> Outcome {
        self.index += 1;
        let entry = Entry { stamp: LeaseTime(self.index), commands: vec![command], ..Entry::default() };
        self.applications.apply(self.index, RaftLeaderId::default(), Some(entry)).outcomes.remove(0)
    }

    fn acquire(&mut self, holder: &str, session: SessionId) -> Outcome {
        self.apply(Core::Acquire(Box::new(Acquire {
            key: key(),
            holder: holder.into(),
            duration_ms: 60_000,
            request_id: "r".into(),
            wait_ms: 600_000,
            reclaim: false,
            holder_data: Arc::from(&b""[..]),
            session,
            retention_ms: 3_600_000,
            labels: Arc::default(),
            annotations: Arc::default(),
        })))
    }

    fn queue(&mut self, holder: &str, session: SessionId) -> (WaiterId, u32) {
        let Outcome::Queued { position, waiter, .. } = self.acquire(holder, session) else { panic!("somebody holds it") };
        (waiter, position)
    }

    fn release(&mut self, by: ReleaseBy) {
        self.apply(Core::Release(Box::new(Release { key: key(), by })));
    }

    fn token(&self) -> u64 {
        self.applications.table.read().get(&key()).expect("it is there").token
    }
}

impl News {
    /// What is there now.
    fn heard(&mut self) -> Option<Heard> {
        self.next().now_or_never().flatten()
    }
}

fn holder(heard: Heard) -> String {
    let Heard::Notice(NoticeKind::Granted(lease)) = heard else { panic!("{heard:?}") };
    lease.holder.as_deref().expect("held").to_owned()
}

#[test]
fn grant_reaches_the_stream_it_is_for_and_no_other() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at_b) = world.queue("b", HERE);
    let (c, at_c) = world.queue("c", HERE);
    let (mut place_b, mut place_c) = (world.waiting.place(), world.waiting.place());
    let (mut news_b, mut news_c) = (place_b.subscribe(key(), b, at_b), place_c.subscribe(key(), c, at_c));
    world.release(ReleaseBy::Token(world.token()));
    assert_eq!(holder(news_b.heard().unwrap()), "b");
    assert!(news_c.heard().is_none());
    world.waiting.tell_positions_once(&world.applications);
    assert_eq!(news_c.heard().unwrap(), Heard::Position(1));
    world.waiting.tell_positions_once(&world.applications);
    assert!(news_c.heard().is_none(), "only changes are told");
}

#[test]
fn notice_that_came_before_its_subscription_is_delivered() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", HERE);
    world.release(ReleaseBy::Token(world.token()));
    let mut place = world.waiting.place();
    assert_eq!(holder(place.subscribe(key(), b, at).heard().unwrap()), "b");
    assert!(place.subscribe(key(), b, at).heard().is_none(), "once");
}

#[test]
fn notices_of_other_replicas_are_not_kept() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", ELSEWHERE);
    world.release(ReleaseBy::Token(world.token()));
    assert!(world.waiting.place().subscribe(key(), b, at).heard().is_none());
}

#[test]
fn notices_nobody_came_for_are_forgotten() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", HERE);
    world.queue("c", HERE);
    world.release(ReleaseBy::Token(world.token()));
    world.index += KEEP_NOTICES_MS + 1;
    world.release(ReleaseBy::Request { holder: "c".into(), request_id: "r".into() });
    let mut place = world.waiting.place();
    let heard = place.subscribe(key(), b, at).heard();
    assert!(!matches!(heard, Some(Heard::Notice(NoticeKind::Granted(ref lease))) if lease.holder.as_deref() == Some("b")), "{heard:?}");
}

#[test]
fn snapshot_makes_waiting_streams_ask_again() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", HERE);
    let mut place = world.waiting.place();
    let mut news = place.subscribe(key(), b, at);
    world.applications.replace(99, RaftLeaderId::default(), LeaseTable::new());
    assert_eq!(news.heard().unwrap(), Heard::AskAgain);
}

#[test]
fn second_stream_of_a_request_takes_the_place_over() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", HERE);
    let (mut first, mut second) = (world.waiting.place(), world.waiting.place());
    let mut old = first.subscribe(key(), b, at);
    let mut new = second.subscribe(key(), b, at);
    assert_eq!(old.heard().unwrap(), Heard::Notice(NoticeKind::Moved));
    drop((old, first));
    world.release(ReleaseBy::Token(world.token()));
    assert_eq!(holder(new.heard().unwrap()), "b");
}

#[test]
fn places_are_given_up_with_their_streams() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", HERE);
    let mut place = world.waiting.place();
    drop(place.subscribe(key(), b, at));
    drop(place);
    assert_eq!(world.waiting.shared.places.load(Ordering::Relaxed), 0);
    assert!(world.waiting.shared.streams.lock().by_waiter.is_empty());
}

/// A stream that waits behind `ahead` others, which all wait elsewhere.
fn behind(world: &mut World, ahead: u32) -> (Place, News) {
    world.acquire("first", SessionId(0));
    for n in 1..=ahead {
        world.queue(&format!("ahead-{n}"), ELSEWHERE);
    }
    let (waiter, position) = world.queue("last", HERE);
    assert_eq!(position, ahead + 1);
    let mut place = world.waiting.place();
    let news = place.subscribe(key(), waiter, position);
    (place, news)
}

#[test]
fn stream_that_does_not_read_keeps_only_its_newest_position() {
    let mut world = World::new();
    let (_place, mut news) = behind(&mut world, 4);
    for _ in 0..3 {
        world.release(ReleaseBy::Token(world.token()));
        world.waiting.tell_positions_once(&world.applications);
    }
    assert_eq!(news.heard().unwrap(), Heard::Position(2));
    assert!(news.heard().is_none(), "one piece of news, however many there were");
}

#[test]
fn position_that_the_table_shows_late_is_not_told() {
    let mut world = World::new();
    let (mut place, _) = behind(&mut world, 4);
    let waiter = place.waiter.expect("it subscribed");
    // As a raft leader says it who has applied more than this replica.
    let mut news = place.subscribe(key(), waiter, 3);
    world.waiting.tell_positions_once(&world.applications);
    assert!(news.heard().is_none(), "nobody falls back in a queue");
    for _ in 0..3 {
        world.release(ReleaseBy::Token(world.token()));
    }
    world.waiting.tell_positions_once(&world.applications);
    assert_eq!(news.heard().unwrap(), Heard::Position(2));
}

#[test]
fn end_of_a_wait_is_not_replaced_by_what_comes_after_it() {
    let mut world = World::new();
    let (_place, mut news) = behind(&mut world, 0);
    world.release(ReleaseBy::Token(world.token()));
    world.applications.replace(99, RaftLeaderId::default(), LeaseTable::new());
    assert_eq!(holder(news.heard().unwrap()), "last");
    assert!(news.heard().is_none());
}
