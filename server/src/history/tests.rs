//! The recorder with a real table and a real sled in a temporary folder.

use super::*;
use crate::replica::{Applications, Progress};
use tenure_lease::{Acquire, Command, EndReason, Entry, LeaseTime, Limits, Outcome, RaftLeaderId, Release, ReleaseBy, SessionId, UnixMillis};

struct World {
    applications: Arc<Applications>,
    history: History,
    index: u64,
}

fn key() -> LeaseKey {
    LeaseKey::trusted("default", "db")
}

impl World {
    /// A replica that starts with an empty table.
    fn start(dir: &Path) -> Self {
        let history = History::open(dir).unwrap();
        let table = LeaseTable::new();
        history.replaced(&table);
        let applications = Applications::new(table, Progress::default(), vec![Box::new(history.clone())], None);
        let mut world = Self { applications, history, index: 0 };
        world.apply(Command::Bootstrap { counter_start: 1_000, limits: Limits::default() });
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        let entry = Entry { stamp: LeaseTime(self.index), wall: UnixMillis(self.index * 1_000), commands: vec![command], ..Entry::default() };
        self.applications.apply(self.index, RaftLeaderId::default(), Some(entry)).outcomes.remove(0)
    }

    /// Acquires and releases, as `holder`.
    fn hold(&mut self, holder: &str) -> u64 {
        let acquire = Acquire {
            key: key(),
            holder: holder.into(),
            duration_ms: 60_000,
            request_id: format!("{holder}-{}", self.index).into(),
            wait_ms: 0,
            reclaim: false,
            holder_data: Arc::from(&b""[..]),
            session: SessionId(0),
            retention_ms: 3_600_000,
            labels: Arc::default(),
            annotations: Arc::default(),
        };
        let Outcome::Granted { lease, .. } = self.apply(Command::Acquire(Box::new(acquire))) else { panic!("the lease is free") };
        self.apply(Command::Release(Box::new(Release { key: key(), by: ReleaseBy::Token(lease.token) })));
        lease.token
    }

    async fn holders(&self, limit: usize) -> Vec<String> {
        self.history.of(&key(), limit).await.unwrap().holds.into_iter().map(|hold| hold.holder.to_string()).collect()
    }
}

#[tokio::test]
async fn holds_come_newest_first_and_as_of_everything_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path());
    let tokens = ["a", "b", "c"].map(|holder| world.hold(holder));
    let known = world.history.of(&key(), 10).await.unwrap();
    assert_eq!(known.holds.iter().map(|hold| hold.token).collect::<Vec<_>>(), [tokens[2], tokens[1], tokens[0]]);
    assert_eq!(known.complete_since, 0);
    assert_eq!(known.holds[0].end_reason, Some(EndReason::Released));
    assert!(known.holds[0].end_time > Some(known.holds[0].acquire_time));
    assert_eq!(world.holders(2).await, ["c", "b"]);
    let other = world.history.of(&LeaseKey::trusted("default", "d"), 10).await.unwrap();
    assert_eq!(other.holds, [], "the prefix of a name is another name");
    world.history.close();
}

#[tokio::test]
async fn history_outlives_the_process_and_replay_records_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path());
    for holder in ["a", "b"] {
        world.hold(holder);
    }
    world.history.close();
    let mut again = World::start(dir.path());
    assert_eq!(again.holders(10).await, ["b", "a"]);
    for holder in ["a", "b", "c"] {
        again.hold(holder);
    }
    assert_eq!(again.holders(10).await, ["c", "b", "a"]);
    assert_eq!(again.history.of(&key(), 10).await.unwrap().complete_since, 0, "a replay is no gap");
    again.history.close();
}

#[tokio::test]
async fn snapshot_that_skips_changes_leaves_a_gap_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (mut here, mut there) = (World::start(dir.path()), World::start(elsewhere.path()));
    here.hold("a");
    for holder in ["a", "b"] {
        there.hold(holder);
    }
    let mut bytes = Vec::new();
    there.applications.table.read().freeze().write_to(&mut bytes).unwrap();
    let table = LeaseTable::restore(&mut &bytes[..]).unwrap();
    let jumped_to = table.revision();
    here.applications.replace(there.index, RaftLeaderId::default(), table);
    here.index = there.index;
    here.hold("c");
    assert_eq!(here.holders(10).await, ["c", "a"]);
    assert_eq!(here.history.of(&key(), 10).await.unwrap().complete_since, jumped_to);
    here.history.close();
    there.history.close();
}

#[tokio::test]
async fn damaged_history_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::start(dir.path());
    world.hold("a");
    world.history.close();
    let conf = dir.path().join("history/conf");
    fs::write(&conf, b"not what sled wrote").unwrap();
    let mut again = World::start(dir.path());
    assert!(dir.path().join("history.damaged-1").exists());
    again.hold("b");
    assert_eq!(again.holders(10).await, ["b"]);
    again.history.close();
}

#[tokio::test]
async fn closed_history_answers_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path());
    world.history.close();
    world.history.close();
    assert!(world.history.of(&key(), 1).await.is_err());
}
