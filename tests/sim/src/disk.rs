//! A disk that survives its replica's crash, but not with everything: what was not synced may be gone, in whole or from some point on.
//!
//! Work and syncs take simulated time on the replica's own runtime, so that a crash finds them half done.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Cursor, Read, Write},
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tenure_server::disk::{Disk, Expected, Flushed, Log, LogHead, LogPosition, NewFile, OpenedLog, Record, SavedVote};
use tokio::{sync::mpsc, time::sleep};

/// One machine's disk.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Whose it is.
    node: u64,
    rng: StdRng,
    files: BTreeMap<u64, Inode>,
    next: u64,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    /// As of the last sync of their directories.
    durable_names: BTreeMap<PathBuf, u64>,
    locked: BTreeSet<PathBuf>,
    log: Journal,
    /// Counts crashes: whatever was opened before the last one is dead.
    boot: u64,
    /// A sync takes as long as this, at most; and does not end while it is stuck.
    slowest_sync: Duration,
    stuck: bool,
    /// The next sync of the log fails.
    fail_next_sync: bool,
    vote: Watched,
}

/// Whether somebody wants to know of a vote.
#[derive(Clone, Copy, Default)]
enum Watched {
    #[default]
    No,
    Yes,
    /// It was given, to this node.
    Voted(u64),
}

#[derive(Default)]
struct Inode {
    data: Vec<u8>,
    synced: Option<Vec<u8>>,
}

/// The Raft log: what was written, in order, and how much of it is durable.
#[derive(Default)]
struct Journal {
    written: Vec<Written>,
    durable: usize,
    exists: bool,
}

#[derive(Clone)]
enum Written {
    Append(LogPosition, Record),
    Vote(SavedVote),
    Committed(LogPosition),
    Truncate(u64),
    Purge(LogPosition),
}

/// What a crash did to a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    /// Writes to the log that are gone.
    pub(crate) records: usize,
    /// Files cut short or gone.
    pub(crate) files: usize,
}

impl SimDisk {
    pub(crate) fn new(node: u64, seed: u64, slowest_sync: Duration) -> Self {
        let state = State {
            node,
            rng: StdRng::seed_from_u64(seed),
            files: BTreeMap::new(),
            next: 0,
            dirs: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            locked: BTreeSet::new(),
            log: Journal::default(),
            boot: 0,
            slowest_sync,
            stuck: false,
            fail_next_sync: false,
            vote: Watched::No,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Syncs do not end until it is unstuck.
    pub(crate) fn stick(&self, stuck: bool) {
        self.state.lock().stuck = stuck;
    }

    /// The next sync of the log says that it failed; what it was for may be there or not.
    pub(crate) fn fail_next_sync(&self) {
        self.state.lock().fail_next_sync = true;
    }

    /// From now on: see [`Self::voted_for`].
    pub(crate) fn watch_for_vote(&self) {
        self.state.lock().vote = Watched::Yes;
    }

    pub(crate) fn stop_watching(&self) {
        self.state.lock().vote = Watched::No;
    }

    /// Whom the first vote since then went to that was for another node. It may not be synced yet.
    pub(crate) fn voted_for(&self) -> Option<u64> {
        if let Watched::Voted(candidate) = self.state.lock().vote { Some(candidate) } else { None }
    }

    /// The power goes: of what was not synced, what happened to be written stays.
    pub(crate) fn crash(&self) -> Loss {
        self.lose(false)
    }

    /// The power goes before anything was written that was not synced.
    pub(crate) fn crash_before_writing(&self) -> Loss {
        self.lose(true)
    }

    fn lose(&self, all: bool) -> Loss {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.boot += 1;
        state.stuck = false;
        state.fail_next_sync = false;
        state.vote = Watched::No;
        state.locked.clear();
        let mut loss = Loss::default();
        let pending = state.log.written.len() - state.log.durable;
        let kept = if all { 0 } else { state.rng.random_range(0..=pending) };
        loss.records = pending - kept;
        state.log.written.truncate(state.log.durable + kept);
        state.log.durable = state.log.written.len();
        // All the latest renames of a machine are there, or none.
        if state.rng.random_bool(0.5) {
            state.names = state.durable_names.clone();
        }
        for inode in state.files.values_mut() {
            let synced = inode.synced.clone().unwrap_or_default();
            if inode.data == synced {
                continue;
            }
            loss.files += 1;
            let extends = inode.data.starts_with(&synced);
            let from = if extends { synced.len() } else { 0 };
            let length = if extends || inode.synced.is_none() { state.rng.random_range(from..=inode.data.len()) } else { 0 };
            if length > 0 {
                inode.data.truncate(length);
            } else {
                inode.data = synced;
            }
            inode.synced = Some(inode.data.clone());
        }
        state.durable_names = state.names.clone();
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.files.retain(|id, _| named.contains(id));
        loss
    }

    /// All is gone, as on a new machine.
    pub(crate) fn wipe(&self) {
        let mut state = self.state.lock();
        state.boot += 1;
        state.files.clear();
        state.dirs.clear();
        state.names.clear();
        state.durable_names.clear();
        state.locked.clear();
        state.log = Journal::default();
    }
}

/// `a/b/..` is `a`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

fn absent(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file or directory", path.display()))
}

impl State {
    fn inode(&self, path: &Path) -> io::Result<&Inode> {
        self.names.get(&normal(path)).and_then(|id| self.files.get(id)).ok_or_else(|| absent(path))
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl Disk for SimDisk {
    fn offload(&self, work: Box<dyn FnOnce() + Send>) {
        let (boot, length) = {
            let mut state = self.state.lock();
            (state.boot, Duration::from_millis(state.rng.random_range(0..3)))
        };
        let disk = self.clone();
        tokio::spawn(async move {
            sleep(length).await;
            while disk.state.lock().stuck {
                sleep(Duration::from_millis(5)).await;
            }
            if disk.state.lock().boot == boot {
                work();
            }
        });
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = normal(dir);
        self.state.lock().dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (dir, mut state) = (normal(dir), self.state.lock());
        let state = &mut *state;
        state.durable_names.retain(|path, _| path.parent() != Some(&dir));
        state.durable_names.extend(state.names.iter().filter(|(path, _)| path.parent() == Some(&dir)).map(|(path, id)| (path.clone(), *id)));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let (dir, state) = (normal(dir), self.state.lock());
        if !state.dirs.contains(&dir) {
            return Err(absent(&dir));
        }
        Ok(state.names.keys().filter(|path| path.parent() == Some(&dir)).cloned().collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let state = self.state.lock();
        Ok(Box::new(Cursor::new(state.inode(path)?.data.clone())))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(self.state.lock().inode(path)?.data.len() as u64)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let (path, mut state) = (normal(path), self.state.lock());
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(absent(&path));
        }
        state.next += 1;
        let id = state.next;
        state.files.insert(id, Inode::default());
        state.names.insert(path, id);
        Ok(Box::new(SimFile { disk: self.clone(), boot: state.boot, id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.names.remove(&normal(from)).ok_or_else(|| absent(from))?;
        state.names.insert(normal(to), id);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state.lock().names.remove(&normal(path)).map(drop).ok_or_else(|| absent(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let mut state = self.state.lock();
        if !state.locked.insert(normal(path)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Locked { disk: self.clone(), boot: state.boot, path: normal(path) }))
    }

    fn open_log(&self, _dir: &Path, expected: Expected) -> anyhow::Result<OpenedLog> {
        let mut state = self.state.lock();
        anyhow::ensure!(state.log.exists || !expected.member, "the Raft log is gone although this replica belongs to a cluster");
        state.log.exists = true;
        let mut view = View::default();
        for written in &state.log.written {
            view.take(written.clone());
        }
        let after = expected.snapshot_index.map_or(0, |index| index + 1);
        let bytes_after_snapshot = view.entries.range(after..).count() as u64 * 300;
        let (flushes, asked) = mpsc::unbounded_channel();
        tokio::spawn(sync(self.clone(), state.boot, asked));
        Ok(OpenedLog { log: Box::new(SimLog { disk: self.clone(), boot: state.boot, view, flushes }), bytes_after_snapshot })
    }
}

struct Locked {
    disk: SimDisk,
    boot: u64,
    path: PathBuf,
}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.boot == self.boot {
            state.locked.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    boot: u64,
    id: u64,
}

impl SimFile {
    fn with(&self, f: impl FnOnce(&mut Inode)) {
        let mut state = self.disk.state.lock();
        if state.boot == self.boot
            && let Some(inode) = state.files.get_mut(&self.id)
        {
            f(inode);
        }
    }
}

impl Write for SimFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.with(|inode| inode.data.extend_from_slice(data));
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for SimFile {
    fn sync_all(&mut self) -> io::Result<()> {
        self.with(|inode| inode.synced = Some(inode.data.clone()));
        Ok(())
    }
}

/// The log as its replica reads it.
#[derive(Default)]
struct View {
    head: LogHead,
    entries: BTreeMap<u64, (LogPosition, Record)>,
}

impl View {
    fn take(&mut self, written: Written) {
        match written {
            Written::Append(at, record) => {
                assert!(self.head.last.or(self.head.purged).is_none_or(|last| last.index + 1 == at.index), "the log has no gaps");
                self.entries.insert(at.index, (at, record));
            }
            Written::Vote(vote) => self.head.vote = Some(vote),
            Written::Committed(at) => self.head.committed = Some(at),
            Written::Truncate(from) => drop(self.entries.split_off(&from)),
            Written::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.head.purged = self.head.purged.max(Some(upto));
            }
        }
        self.head.last = self.entries.last_key_value().map(|(_, (at, _))| *at).or(self.head.purged);
    }
}

struct SimLog {
    disk: SimDisk,
    boot: u64,
    view: View,
    flushes: mpsc::UnboundedSender<(usize, Flushed)>,
}

impl SimLog {
    fn write(&mut self, written: Written) {
        let mut state = self.disk.state.lock();
        if state.boot == self.boot {
            state.log.written.push(written.clone());
        }
        drop(state);
        self.view.take(written);
    }
}

impl Log for SimLog {
    fn head(&self) -> LogHead {
        self.view.head
    }

    fn read(&self, from: u64, to: u64, each: &mut dyn FnMut(LogPosition, Record) -> io::Result<bool>) -> io::Result<()> {
        for (at, record) in self.view.entries.range(from..to.max(from)).map(|(_, entry)| entry.clone()) {
            if !each(at, record)? {
                break;
            }
        }
        Ok(())
    }

    fn append(&mut self, entries: &mut dyn Iterator<Item = (LogPosition, Record)>) -> io::Result<()> {
        for (at, record) in entries {
            self.write(Written::Append(at, record));
        }
        Ok(())
    }

    fn save_vote(&mut self, vote: SavedVote) -> io::Result<()> {
        self.write(Written::Vote(vote));
        let mut state = self.disk.state.lock();
        if matches!(state.vote, Watched::Yes) && !vote.committed && vote.node != state.node {
            state.vote = Watched::Voted(vote.node);
        }
        Ok(())
    }

    fn save_committed(&mut self, committed: LogPosition) -> io::Result<()> {
        self.write(Written::Committed(committed));
        Ok(())
    }

    fn truncate(&mut self, from: u64) -> io::Result<()> {
        self.write(Written::Truncate(from));
        Ok(())
    }

    fn purge(&mut self, upto: LogPosition) -> io::Result<()> {
        self.write(Written::Purge(upto));
        Ok(())
    }

    fn flush(&mut self, done: Flushed) -> io::Result<()> {
        let upto = self.disk.state.lock().log.written.len();
        self.flushes.send((upto, done)).map_err(|_| io::Error::other("the disk is gone"))
    }
}

/// Syncs one after the other, each in its time.
async fn sync(disk: SimDisk, boot: u64, mut asked: mpsc::UnboundedReceiver<(usize, Flushed)>) {
    while let Some((upto, done)) = asked.recv().await {
        // One sync for all that have come by now, as a disk does.
        let mut all = vec![(upto, done)];
        while let Ok(another) = asked.try_recv() {
            all.push(another);
        }
        let length = {
            let mut state = disk.state.lock();
            let slowest = u64::try_from(state.slowest_sync.as_micros()).unwrap_or(0);
            Duration::from_micros(state.rng.random_range(0..=slowest))
        };
        sleep(length).await;
        while disk.state.lock().stuck {
            sleep(Duration::from_millis(1)).await;
        }
        let failed = {
            let mut state = disk.state.lock();
            if state.boot != boot {
                return;
            }
            let failed = std::mem::take(&mut state.fail_next_sync);
            if !failed && let Some((upto, _)) = all.last() {
                state.log.durable = state.log.durable.max(*upto);
            }
            failed
        };
        for (_, done) in all {
            done(if failed { Err(io::Error::other("the disk failed")) } else { Ok(()) });
        }
    }
}
