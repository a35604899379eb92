//! The Raft log on the machine's disk: raft-log.
//!
//! Opening never drops a record that may have been acknowledged: `log_check` looks first, and raft-log's own truncation is off.

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use raft_log::{Callback, RaftLog, RaftWalTypes, Segment, Types, WalTypes, api::raft_log_writer::RaftLogWriter as _};

use super::{
    log_check,
    log_mark::{self, Marker},
    marked::{Journal, MarkedLog},
    record::{ENTRY_OVERHEAD, LogPosition, Record},
};
use crate::disk::{Expected, Flushed, LogHead, OpenedLog, SavedVote};

/// Entries in the file being written stay in memory, so this bounds memory as well.
const CHUNK_BYTES: u64 = 16 << 20;
/// A file goes when all of it is in a snapshot, so there are some files to a snapshot, unless that makes them tiny.
const CHUNKS_PER_SNAPSHOT: u64 = 4;
const MIN_CHUNK_BYTES: u64 = 16 << 10;
const CHUNK_RECORDS: usize = 64 << 10;
const CACHE_BYTES: usize = 16 << 20;

/// Who waits for an fsync, until it was told.
pub(crate) struct Synced(Option<Flushed>);

impl Callback for Synced {
    fn send(mut self, result: io::Result<()>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl Drop for Synced {
    /// A log's writer that fails at anything else than an fsync, as at removing a file, forgets who waits for one.
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(io::Error::other("the log's writer has stopped")));
        }
    }
}

/// (term, (node, index))
pub(super) type DiskLogId = (u64, (u64, u64));
/// ((term, node), committed)
pub(super) type DiskVote = ((u64, u64), u64);
/// What a log says of itself.
pub(super) type DiskState = <RaftWalTypes<DiskTypes> as WalTypes>::Checkpoint;

/// Our types, for raft-log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskTypes;

impl Types for DiskTypes {
    type LogId = DiskLogId;
    type LogPayload = Record;
    type Vote = DiskVote;
    type Callback = Synced;
    type UserData = ();

    fn log_index(id: &DiskLogId) -> u64 {
        id.1.1
    }
    fn payload_size(payload: &Record) -> u64 {
        payload.cost()
    }
}

fn to_disk(at: LogPosition) -> DiskLogId {
    (at.term, (at.node, at.index))
}

pub(super) fn from_disk(id: &DiskLogId) -> LogPosition {
    LogPosition { term: id.0, node: id.1.0, index: id.1.1 }
}

pub(super) fn saved_vote(((term, node), committed): DiskVote) -> SavedVote {
    SavedVote { term, node, committed: committed == 1 }
}

/// Opens the log in `dir` after checking all of it. Blocking: for a blocking thread or before the runtime has work.
pub(crate) fn open(dir: &Path, expected: Expected) -> anyhow::Result<OpenedLog> {
    std::fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent() {
        // raft-log fsyncs its directory, not the entry of that directory in ours.
        std::fs::File::open(parent)?.sync_all()?;
    }
    let found = log_check::verify(dir, expected)?;
    // Before the first record: a log that has any has a mark.
    let marker = Marker::begin(&log_mark::path(dir), &found.end()).with_context(|| format!("cannot write {}", log_mark::path(dir).display()))?;
    let bytes_after_snapshot = found.bytes_after_snapshot + found.entries_after_snapshot * ENTRY_OVERHEAD;

    let mut config = raft_log::Config::new(dir.display());
    // Zero: whoever waits, waits for one fsync. Many commands share an entry already, so there is nothing to wait for.
    config.wal.flush_batch_wait = Some(Duration::ZERO);
    config.wal.read_buffer_size = Some(1 << 20);
    let chunk_bytes = if expected.snapshot_log_bytes == 0 { CHUNK_BYTES } else { expected.snapshot_log_bytes / CHUNKS_PER_SNAPSHOT };
    config.wal.chunk_max_size = Some(usize::try_from(chunk_bytes.clamp(MIN_CHUNK_BYTES, CHUNK_BYTES))?);
    config.wal.chunk_max_records = Some(CHUNK_RECORDS);
    config.wal.truncate_incomplete_record = Some(false);
    config.log_cache_capacity = Some(CACHE_BYTES);
    config.log_cache_max_items = Some(CHUNK_RECORDS);
    let log = RaftLog::open(Arc::new(config)).map_err(|error| anyhow::anyhow!("cannot open the Raft log in {}: {error}", dir.display()))?;
    let log = MarkedLog::new(SystemLog { log }, Arc::new(marker), found.end().end);
    Ok(OpenedLog { log: Box::new(log), bytes_after_snapshot })
}

struct SystemLog {
    log: RaftLog<DiskTypes>,
}

fn end(written: Segment) -> u64 {
    written.offset + written.size
}

impl Journal for SystemLog {
    fn head(&self) -> LogHead {
        let state = self.log.log_state();
        LogHead {
            vote: state.vote().copied().map(saved_vote),
            purged: state.purged().map(from_disk),
            last: state.last().map(from_disk),
            committed: state.committed().map(from_disk),
        }
    }

    fn read(&self, from: u64, to: u64, each: &mut dyn FnMut(LogPosition, Record) -> io::Result<bool>) -> io::Result<()> {
        for item in self.log.read(from, to) {
            let (id, record) = item?;
            if !each(from_disk(&id), record)? {
                break;
            }
        }
        Ok(())
    }

    fn append(&mut self, entries: &mut dyn Iterator<Item = (LogPosition, Record)>) -> io::Result<u64> {
        self.log.append(entries.map(|(at, record)| (to_disk(at), record))).map(end)
    }

    fn save_vote(&mut self, vote: SavedVote) -> io::Result<u64> {
        self.log.save_vote(((vote.term, vote.node), u64::from(vote.committed))).map(end)
    }

    fn save_committed(&mut self, committed: LogPosition) -> io::Result<u64> {
        self.log.commit(to_disk(committed)).map(end)
    }

    fn truncate(&mut self, from: u64) -> io::Result<u64> {
        self.log.truncate(from).map(end)
    }

    fn purge(&mut self, upto: LogPosition) -> io::Result<u64> {
        self.log.purge(to_disk(upto)).map(end)
    }

    fn flush(&mut self, done: Flushed) -> io::Result<()> {
        self.log.flush(true, Some(Synced(Some(done))))
    }
}
