//! Notices and positions over a real table.

use super::*;
use crate::replica::Progress;
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
    assert_eq!(holder(news_b.try_recv().unwrap()), "b");
    assert!(news_c.try_recv().is_err());
    world.waiting.tell_positions_once(&world.applications);
    assert_eq!(news_c.try_recv().unwrap(), Heard::Position(1));
    world.waiting.tell_positions_once(&world.applications);
    assert!(news_c.try_recv().is_err(), "only changes are told");
}

#[test]
fn notice_that_came_before_its_subscription_is_delivered() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", HERE);
    world.release(ReleaseBy::Token(world.token()));
    let mut place = world.waiting.place();
    assert_eq!(holder(place.subscribe(key(), b, at).try_recv().unwrap()), "b");
    assert!(place.subscribe(key(), b, at).try_recv().is_err(), "once");
}

#[test]
fn notices_of_other_replicas_are_not_kept() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", ELSEWHERE);
    world.release(ReleaseBy::Token(world.token()));
    assert!(world.waiting.place().subscribe(key(), b, at).try_recv().is_err());
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
    let heard = place.subscribe(key(), b, at).try_recv();
    assert!(!matches!(heard, Ok(Heard::Notice(NoticeKind::Granted(ref lease))) if lease.holder.as_deref() == Some("b")), "{heard:?}");
}

#[test]
fn snapshot_makes_waiting_streams_ask_again() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", HERE);
    let mut place = world.waiting.place();
    let mut news = place.subscribe(key(), b, at);
    world.applications.replace(99, RaftLeaderId::default(), LeaseTable::new());
    assert_eq!(news.try_recv().unwrap(), Heard::AskAgain);
}

#[test]
fn second_stream_of_a_request_takes_the_place_over() {
    let mut world = World::new();
    world.acquire("a", SessionId(0));
    let (b, at) = world.queue("b", HERE);
    let (mut first, mut second) = (world.waiting.place(), world.waiting.place());
    let mut old = first.subscribe(key(), b, at);
    let mut new = second.subscribe(key(), b, at);
    assert_eq!(old.try_recv().unwrap(), Heard::Notice(NoticeKind::Moved));
    drop((old, first));
    world.release(ReleaseBy::Token(world.token()));
    assert_eq!(holder(new.try_recv().unwrap()), "b");
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
