//! The disk as a seam: files, the Raft log, and where blocking work goes. [`SystemDisk`] is the machine's; the simulator's loses what was not
//! synced.
//!
//! Decides nothing: what to write, in what order, and when it counts is up to `identity` and `consensus`. History has sled and is not behind this.

use std::{
    any::Any,
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::oneshot;

pub use crate::consensus::{Journal, LogPosition, Mark, MarkedLog, Marks, Record};

/// What a replica asks of a disk. Calls block, but for [`Disk::offload`].
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Has work done that would hold up the runtime, on this disk or by its length. A runtime that goes down may leave it undone.
    fn offload(&self, work: Box<dyn FnOnce() + Send>);

    /// Makes a directory and those above it, if missing.
    ///
    /// # Errors
    /// As the file system's; so everywhere below.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes durable which names a directory has. File contents are synced by [`NewFile::sync_all`].
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// What is in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Opens a file to read it from its beginning.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// Length of a file in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;

    /// Makes a file, or empties one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Gives a file another name, at once; durable only after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Locks a file, which is made if missing, for as long as what is returned lives. [`io::ErrorKind::WouldBlock`]: somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>>;

    /// Opens the Raft log in a directory after checking all of it.
    ///
    /// # Errors
    /// It is damaged, or does not fit what is expected: with what an operator can do.
    fn open_log(&self, dir: &Path, expected: Expected) -> anyhow::Result<OpenedLog>;
}

/// As `run` wants it.
pub type SharedDisk = Arc<dyn Disk>;

/// A file being written.
pub trait NewFile: Write + Send {
    /// Makes its content durable.
    ///
    /// # Errors
    /// As fsync's: afterwards nothing is known about what was written.
    fn sync_all(&mut self) -> io::Result<()>;
}

/// Bytes of a large file that may be unsynced at a time. On a journaling file system whoever syncs anything, the log above all, waits for them.
const STEP: usize = 4 << 20;

/// A large file, made durable while it is written.
pub(crate) struct Stepwise {
    file: Box<dyn NewFile>,
    unsynced: usize,
}

impl Stepwise {
    pub(crate) fn new(file: Box<dyn NewFile>) -> Self {
        Self { file, unsynced: 0 }
    }
}

impl Write for Stepwise {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        if self.unsynced >= STEP {
            self.sync_all()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for Stepwise {
    fn sync_all(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync_all()
    }
}

/// What a log has to agree with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The replica belongs to a cluster: an absent log was lost, not never there.
    pub member: bool,
    /// Entries up to here are in the newest snapshot.
    pub snapshot_index: Option<u64>,
    /// How much of it there is between two snapshots, so how much can go at once; 0: as usual.
    pub snapshot_log_bytes: u64,
}

/// A log that was found sound.
pub struct OpenedLog {
    /// The log.
    pub log: Box<dyn Log>,
    /// What its entries after the snapshot take, in memory and on disk.
    pub bytes_after_snapshot: u64,
}

/// A vote as the log keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedVote {
    /// For this term,
    pub term: u64,
    /// for this node.
    pub node: u64,
    /// A quorum granted it.
    pub committed: bool,
}

/// What a log holds besides entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogHead {
    /// The last vote saved.
    pub vote: Option<SavedVote>,
    /// The newest entry that was purged.
    pub purged: Option<LogPosition>,
    /// The newest entry there is.
    pub last: Option<LogPosition>,
    /// The newest entry known to be committed; may be behind.
    pub committed: Option<LogPosition>,
}

/// Told once everything written before is durable, or that nobody can say. From any thread.
pub type Flushed = Box<dyn FnOnce(io::Result<()>) + Send>;

/// A Raft log on disk. What was written can be read at once; it is durable when a later [`Log::flush`] has said so, in the order of writing.
/// Dropping it writes out what is pending. Errors are the disk's: openraft stops at the first.
#[allow(clippy::missing_errors_doc)]
pub trait Log: Send {
    /// As last written.
    fn head(&self) -> LogHead;
    /// Hands out the entries with an index in `from..to`, until there is no more or `each` returns `false`.
    fn read(&self, from: u64, to: u64, each: &mut dyn FnMut(LogPosition, Record) -> io::Result<bool>) -> io::Result<()>;
    /// Adds entries that follow the last.
    fn append(&mut self, entries: &mut dyn Iterator<Item = (LogPosition, Record)>) -> io::Result<()>;
    /// Replaces the vote.
    fn save_vote(&mut self, vote: SavedVote) -> io::Result<()>;
    /// Replaces the committed position.
    fn save_committed(&mut self, committed: LogPosition) -> io::Result<()>;
    /// Removes the entries from this index on.
    fn truncate(&mut self, from: u64) -> io::Result<()>;
    /// Removes the entries up to and including this one, which need not be there.
    fn purge(&mut self, upto: LogPosition) -> io::Result<()>;
    /// Syncs what was written before.
    fn flush(&mut self, done: Flushed) -> io::Result<()>;
}

/// The work panicked, or the runtime went down first.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the work was not finished")]
pub(crate) struct Unfinished;

impl From<Unfinished> for io::Error {
    fn from(error: Unfinished) -> Self {
        Self::other(error)
    }
}

/// Waits for what [`Disk::offload`] does. Work that has begun goes on when nobody waits any more.
pub(crate) async fn offloaded<T: Send + 'static>(disk: &dyn Disk, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unfinished> {
    let (tell, told) = oneshot::channel();
    // Nobody waits any more: then nobody needs the answer.
    disk.offload(Box::new(move || drop(tell.send(work()))));
    told.await.map_err(|_| Unfinished)
}

/// The machine's file system and threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl SystemDisk {
    /// As `run` wants it.
    #[must_use]
    pub fn shared() -> SharedDisk {
        Arc::new(Self)
    }
}

impl Disk for SystemDisk {
    fn offload(&self, work: Box<dyn FnOnce() + Send>) {
        drop(tokio::task::spawn_blocking(work));
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path)?))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.try_lock()?;
        Ok(Box::new(file))
    }

    fn open_log(&self, dir: &Path, expected: Expected) -> anyhow::Result<OpenedLog> {
        crate::consensus::open_system_log(dir, expected)
    }
}

impl NewFile for File {
    fn sync_all(&mut self) -> io::Result<()> {
        Self::sync_all(self)
    }
}
