//! The Raft log, the vote and the committed id, as openraft wants them, on a [`Log`].
//!
//! Nothing is reported as written before it was fsynced, except the committed id, which may be lost (it rides on the next append).

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::future::BoxFuture;
use openraft::{
    OptionalSend, RaftLogReader,
    entry::RaftEntry as _,
    storage::{IOFlushed, LogState, RaftLogStorage},
    vote::{RaftLeaderId as _, RaftVote as _},
};
use parking_lot::Mutex;
use tenure_lease::bug;
use tokio::sync::{Notify, oneshot};

use super::{
    record::{LogPosition, Record},
    types::{Entry, LeaderId, LogId, TypeConfig, Vote, log_id},
};
use crate::{
    disk::{Log, OpenedLog, SavedVote, SharedDisk, offloaded},
    failpoint,
};

/// One read for replication or apply returns about this much at most.
const READ_BYTES: usize = 1 << 20;

/// What else consensus wants of a log storage than openraft does.
pub(crate) trait LogControl: Send + Sync + 'static {
    /// How much was appended since it was last reset.
    fn meter(&self) -> Arc<LogMeter>;
    /// How often it was synced since it was opened.
    fn syncs(&self) -> u64;
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

fn position(id: &LogId) -> LogPosition {
    let leader = id.committed_leader_id();
    LogPosition { term: leader.term, node: leader.node_id, index: id.index() }
}

fn log_id_at(at: LogPosition) -> LogId {
    log_id(at.term, at.node, at.index)
}

fn entry_at(at: LogPosition, record: Record) -> io::Result<Entry> {
    Ok(Entry::new(log_id_at(at), record.payload()?))
}

/// The log; clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct LogStore {
    /// `None` once closed.
    log: Arc<Mutex<Option<Box<dyn Log>>>>,
    meter: Arc<LogMeter>,
    syncs: Arc<AtomicU64>,
    disk: SharedDisk,
}

impl LogStore {
    /// `counted`: how full its meter is, besides what there is after the snapshot.
    pub(crate) fn new(disk: SharedDisk, opened: OpenedLog, snapshot_log_bytes: u64, counted: u64) -> Self {
        let meter = LogMeter::new(snapshot_log_bytes);
        meter.add(opened.bytes_after_snapshot + counted);
        Self { log: Arc::new(Mutex::new(Some(opened.log))), meter, syncs: Arc::default(), disk }
    }

    fn with<T>(&self, f: impl FnOnce(&mut dyn Log) -> io::Result<T>) -> io::Result<T> {
        f(self.log.lock().as_deref_mut().ok_or_else(|| io::Error::other("the log is closed"))?)
    }

    /// Syncs what was written, and says so.
    fn flush(&self, log: &mut dyn Log, done: impl FnOnce(io::Result<()>) + Send + 'static) -> io::Result<()> {
        let syncs = Arc::clone(&self.syncs);
        log.flush(Box::new(move |result| {
            syncs.fetch_add(1, Ordering::Relaxed);
            done(result);
        }))
    }

    /// Does something and waits for its fsync.
    async fn synced(&self, f: impl FnOnce(&mut dyn Log) -> io::Result<()>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.with(|log| {
            f(log)?;
            // A caller that has gone away has nothing to learn.
            self.flush(log, move |result| drop(done.send(result)))
        })?;
        wait.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }
}

impl LogControl for LogStore {
    fn meter(&self) -> Arc<LogMeter> {
        Arc::clone(&self.meter)
    }

    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let (log, disk) = (Arc::clone(&self.log), Arc::clone(&self.disk));
        Box::pin(async move {
            // Dropping it writes and fsyncs what is pending and joins the writer thread.
            let closed = offloaded(&*disk, move || drop(log.lock().take())).await;
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
        self.with(|log| {
            let mut entries = Vec::new();
            log.read(from, to, &mut |at, record| {
                entries.push(entry_at(at, record)?);
                Ok(true)
            })?;
            Ok(entries)
        })
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.with(|log| {
            let (mut entries, mut bytes) = (Vec::new(), 0);
            log.read(start, end, &mut |at, record| {
                bytes += record.len() + 64;
                entries.push(entry_at(at, record)?);
                Ok(bytes < READ_BYTES)
            })?;
            // What follows a purged beginning is no answer to who wants the beginning. openraft takes nothing for a heartbeat; see `network`.
            Ok(if entries.first().is_some_and(|entry| entry.index() == start) { entries } else { Vec::new() })
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        let vote = self.with(|log| Ok(log.head().vote))?;
        Ok(vote.map(|vote| Vote::from_leader_id(LeaderId::new(vote.term, vote.node), vote.committed)))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let head = self.with(|log| Ok(log.head()))?;
        Ok(LogState { last_purged_log_id: head.purged.map(log_id_at), last_log_id: head.last.or(head.purged).map(log_id_at) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let leader = vote.leader_id();
        let vote = SavedVote { term: leader.term, node: leader.node_id, committed: vote.is_committed() };
        if bug!("bug_vote_unsynced") {
            // The vote is told before it is on disk, so that a crash forgets it and votes again (etcd#14370's kind; Raft's first rule of storage).
            return self.with(|log| log.save_vote(vote));
        }
        failpoint::pass("vote_before_save");
        self.synced(|log| log.save_vote(vote)).await?;
        failpoint::pass("vote_after_save");
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.with(|log| log.save_committed(position(&committed)))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.with(|log| Ok(log.head().committed.map(log_id_at)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut bytes = 0;
        failpoint::pass("log_before_append");
        self.with(|log| {
            log.append(&mut entries.into_iter().map(|entry| {
                let record = Record::new(&entry.payload);
                bytes += record.cost();
                (position(&entry.log_id()), record)
            }))?;
            if bug!("bug_ack_unsynced") {
                // Written is taken for durable, and acknowledged (etcd#14370, #13766; every database that was run on LazyFS).
                callback.io_completed(Ok(()));
                return self.flush(log, drop);
            }
            failpoint::pass("log_before_fsync");
            self.flush(log, move |result| {
                failpoint::pass("log_after_fsync");
                callback.io_completed(result);
            })
        })?;
        self.meter.add(bytes);
        Ok(())
    }

    async fn truncate_after(&mut self, last_kept: Option<LogId>) -> io::Result<()> {
        // A log's index is the first to go, and it refuses one that is not there.
        let from = last_kept.map_or(0, |id| id.index() + 1);
        let next = self.with(|log| Ok(log.head().last.map_or(0, |last| last.index + 1)))?;
        if from >= next {
            return Ok(());
        }
        failpoint::pass("truncate_before");
        self.synced(|log| log.truncate(from)).await?;
        failpoint::pass("truncate_after");
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        failpoint::pass("purge_before");
        self.synced(|log| log.purge(position(&upto))).await?;
        failpoint::pass("purge_after");
        Ok(())
    }
}
