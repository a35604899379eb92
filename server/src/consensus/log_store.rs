//! The Raft log, the vote and the committed id on disk, on raft-log.
//!
//! Nothing is reported as written before it was fsynced, except the committed id, which may be lost (it rides on the next append).
//! Opening never drops a record that may have been acknowledged: `log_check` looks first, and raft-log's own truncation is off.

use std::{
    fmt::Debug,
    io::{self, Read as _},
    ops::{Bound, RangeBounds},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::{
    EntryPayload, OptionalSend, RaftLogReader,
    entry::RaftEntry as _,
    storage::{IOFlushed, LogState, RaftLogStorage},
    vote::{RaftLeaderId as _, RaftVote as _},
};
use parking_lot::Mutex;
use prost::Message as _;
use raft_log::{
    Callback, RaftLog, Types,
    api::raft_log_writer::RaftLogWriter as _,
    codeq::{Decode, Encode},
};
use tenure_proto::peer::v1 as pb;
use tokio::sync::{Notify, oneshot};

use super::{
    log_check,
    types::{Blob, Entry, LeaderId, LogId, Payload, TypeConfig, Vote, log_id},
    wire,
};

/// Entries in the file being written stay in memory, so this bounds memory as well.
const CHUNK_BYTES: usize = 16 << 20;
const CHUNK_RECORDS: usize = 64 << 10;
const CACHE_BYTES: usize = 16 << 20;
/// What an entry costs besides its bytes: cache and index, in memory; record framing, on disk.
const ENTRY_OVERHEAD: u64 = 200;
/// One read for replication or apply returns about this much at most.
const READ_BYTES: usize = 1 << 20;
/// No entry is larger: a message between replicas is at most this long.
const MAX_PAYLOAD: u32 = 64 << 20;

/// What else consensus wants of a log storage than openraft does.
pub(crate) trait LogControl: Send + Sync + 'static {
    /// How much was appended since it was last reset.
    fn meter(&self) -> Arc<LogMeter>;
    /// Writes out what is pending and lets go of the files; later calls fail.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// Counts the log since the last snapshot and says when there is enough of it for another.
#[derive(Debug)]
pub(crate) struct LogMeter {
    bytes: AtomicU64,
    limit: u64,
    full: Notify,
}

impl LogMeter {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), limit: limit.max(1), full: Notify::new() })
    }

    pub(crate) fn add(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before < self.limit && before.saturating_add(bytes) >= self.limit {
            self.full.notify_one();
        }
    }

    /// Resolves when the limit has been passed, and starts counting anew.
    pub(crate) async fn filled(&self) {
        self.full.notified().await;
        self.bytes.store(0, Ordering::Relaxed);
    }
}

/// A log payload on disk: length, format, kind, body.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    kind: Kind,
    body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blank = 0,
    Normal = 1,
    Membership = 2,
}

const FORMAT: u8 = 1;

impl Encode for Record {
    fn encode<W: io::Write>(&self, mut w: W) -> io::Result<usize> {
        let length = u32::try_from(self.body.len() + 2).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an entry of 4 GiB"))?;
        w.write_all(&length.to_be_bytes())?;
        w.write_all(&[FORMAT, self.kind as u8])?;
        w.write_all(&self.body)?;
        Ok(6 + self.body.len())
    }
}

impl Decode for Record {
    fn decode<R: io::Read>(mut r: R) -> io::Result<Self> {
        let mut head = [0; 6];
        r.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if !(2..=MAX_PAYLOAD).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an entry of {length} bytes")));
        }
        let kind = match (head[4], head[5]) {
            (FORMAT, 0) => Kind::Blank,
            (FORMAT, 1) => Kind::Normal,
            (FORMAT, 2) => Kind::Membership,
            (format, kind) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an entry of format {format}, kind {kind}: not known to this build")));
            }
        };
        // Grows with what is there, not with what is announced.
        let mut body = Vec::new();
        io::Read::take(&mut r, u64::from(length) - 2).read_to_end(&mut body)?;
        if body.len() as u64 != u64::from(length) - 2 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { kind, body: body.into() })
    }
}

impl Record {
    fn new(payload: &Payload) -> Self {
        match payload {
            EntryPayload::Blank => Self { kind: Kind::Blank, body: Bytes::new() },
            EntryPayload::Normal(blob) => Self { kind: Kind::Normal, body: blob.0.clone() },
            EntryPayload::Membership(m) => Self { kind: Kind::Membership, body: wire::membership_to(m).encode_to_vec().into() },
        }
    }

    fn payload(self) -> io::Result<Payload> {
        Ok(match self.kind {
            Kind::Blank => EntryPayload::Blank,
            Kind::Normal => EntryPayload::Normal(Blob(self.body)),
            Kind::Membership => {
                let decoded = pb::Membership::decode(self.body).map_err(io::Error::other)?;
                EntryPayload::Membership(wire::membership_from(decoded).map_err(io::Error::other)?)
            }
        })
    }
}

/// Who waits for an fsync.
pub(crate) enum Synced {
    Append(IOFlushed<TypeConfig>),
    Caller(oneshot::Sender<io::Result<()>>),
}

impl Callback for Synced {
    fn send(self, result: io::Result<()>) {
        match self {
            Self::Append(done) => done.io_completed(result),
            // A caller that has gone away has nothing to learn.
            Self::Caller(done) => drop(done.send(result)),
        }
    }
}

/// (term, (node, index))
type DiskLogId = (u64, (u64, u64));

/// Our types, for raft-log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskTypes;

impl Types for DiskTypes {
    type LogId = DiskLogId;
    type LogPayload = Record;
    /// ((term, node), committed)
    type Vote = ((u64, u64), u64);
    type Callback = Synced;
    type UserData = ();

    fn log_index(id: &DiskLogId) -> u64 {
        id.1.1
    }
    fn payload_size(payload: &Record) -> u64 {
        payload.body.len() as u64 + ENTRY_OVERHEAD
    }
}

fn to_disk(id: &LogId) -> DiskLogId {
    let leader = id.committed_leader_id();
    (leader.term, (leader.node_id, id.index()))
}

fn from_disk(id: &DiskLogId) -> LogId {
    log_id(id.0, id.1.0, id.1.1)
}

fn entry_from_disk((id, record): (DiskLogId, Record)) -> io::Result<Entry> {
    Ok(Entry::new(from_disk(&id), record.payload()?))
}

/// The log; clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct LogStore {
    /// `None` once closed.
    log: Arc<Mutex<Option<RaftLog<DiskTypes>>>>,
    meter: Arc<LogMeter>,
}

/// What the log has to agree with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    /// The replica belongs to a cluster: an absent log was lost, not never there.
    pub(crate) member: bool,
    /// Entries up to here are in the newest snapshot.
    pub(crate) snapshot_index: Option<u64>,
}

/// Opens the log in `dir` after checking all of it. Blocking: for a blocking thread or before the runtime has work.
pub(crate) fn open(dir: &Path, expected: Expected, snapshot_log_bytes: u64) -> anyhow::Result<LogStore> {
    std::fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent() {
        // raft-log fsyncs its directory, not the entry of that directory in ours.
        std::fs::File::open(parent)?.sync_all()?;
    }
    let found = log_check::verify(dir, expected)?;
    let meter = LogMeter::new(snapshot_log_bytes);
    meter.add(found.bytes_after_snapshot + found.entries_after_snapshot * ENTRY_OVERHEAD);

    let mut config = raft_log::Config::new(dir.display());
    // Zero: whoever waits, waits for one fsync. Many commands share an entry already, so there is nothing to wait for.
    config.wal.flush_batch_wait = Some(Duration::ZERO);
    config.wal.read_buffer_size = Some(1 << 20);
    config.wal.chunk_max_size = Some(CHUNK_BYTES);
    config.wal.chunk_max_records = Some(CHUNK_RECORDS);
    config.wal.truncate_incomplete_record = Some(false);
    config.log_cache_capacity = Some(CACHE_BYTES);
    config.log_cache_max_items = Some(CHUNK_RECORDS);
    let log = RaftLog::open(Arc::new(config)).map_err(|error| anyhow::anyhow!("cannot open the Raft log in {}: {error}", dir.display()))?;
    Ok(LogStore { log: Arc::new(Mutex::new(Some(log))), meter })
}

impl LogStore {
    fn with<T>(&self, f: impl FnOnce(&mut RaftLog<DiskTypes>) -> io::Result<T>) -> io::Result<T> {
        f(self.log.lock().as_mut().ok_or_else(|| io::Error::other("the log is closed"))?)
    }

    /// Does something and waits for its fsync.
    async fn synced(&self, f: impl FnOnce(&mut RaftLog<DiskTypes>) -> io::Result<()>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.with(|log| {
            f(log)?;
            log.flush(true, Some(Synced::Caller(done)))
        })?;
        wait.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }
}

impl LogControl for LogStore {
    fn meter(&self) -> Arc<LogMeter> {
        Arc::clone(&self.meter)
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let log = Arc::clone(&self.log);
        Box::pin(async move {
            // Dropping it writes and fsyncs what is pending and joins the writer thread.
            let closed = tokio::task::spawn_blocking(move || drop(log.lock().take())).await;
            if let Err(error) = closed {
                tracing::error!(%error, "closing the log panicked");
            }
        })
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(&mut self, range: RB) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        if from >= to {
            return Ok(Vec::new());
        }
        self.with(|log| log.read(from, to).map(|item| entry_from_disk(item?)).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.with(|log| {
            let (mut entries, mut bytes) = (Vec::new(), 0);
            for item in log.read(start, end) {
                let item = item?;
                bytes += item.1.body.len() + 64;
                entries.push(entry_from_disk(item)?);
                if bytes >= READ_BYTES {
                    break;
                }
            }
            Ok(entries)
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.with(|log| {
            let vote = log.log_state().vote();
            Ok(vote.map(|((term, node), committed)| Vote::from_leader_id(LeaderId::new(*term, *node), *committed == 1)))
        })
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.with(|log| {
            let purged = log.log_state().purged().map(from_disk);
            let last = log.log_state().last().map(from_disk).or(purged);
            Ok(LogState { last_purged_log_id: purged, last_log_id: last })
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let leader = vote.leader_id();
        let vote = ((leader.term, leader.node_id), u64::from(vote.is_committed()));
        self.synced(|log| log.save_vote(vote).map(|_| ())).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.with(|log| log.commit(to_disk(&committed)).map(|_| ()))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.with(|log| Ok(log.log_state().committed().map(from_disk)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut bytes = 0;
        self.with(|log| {
            log.append(entries.into_iter().map(|entry| {
                let record = Record::new(&entry.payload);
                bytes += DiskTypes::payload_size(&record);
                (to_disk(&entry.log_id()), record)
            }))?;
            log.flush(true, Some(Synced::Append(callback)))
        })?;
        self.meter.add(bytes);
        Ok(())
    }

    async fn truncate_after(&mut self, last_kept: Option<LogId>) -> io::Result<()> {
        // raft-log's index is the first to go, and it refuses one that is not there.
        let from = last_kept.map_or(0, |id| id.index() + 1);
        let next = self.with(|log| Ok(log.log_state().last().map_or(0, |last| last.1.1 + 1)))?;
        if from >= next {
            return Ok(());
        }
        self.synced(|log| log.truncate(from).map(|_| ())).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.synced(|log| log.purge(to_disk(&upto)).map(|_| ())).await
    }
}
