//! The Raft log on the machine's disk: raft-log.
//!
//! Opening never drops a record that may have been acknowledged: `log_check` looks first, and raft-log's own truncation is off.

use std::{io, path::Path, sync::Arc, time::Duration};

use raft_log::{Callback, RaftLog, Types, api::raft_log_writer::RaftLogWriter as _};

use super::{
    log_check,
    record::{ENTRY_OVERHEAD, LogPosition, Record},
};
use crate::disk::{Expected, Flushed, Log, LogHead, OpenedLog, SavedVote};

/// Entries in the file being written stay in memory, so this bounds memory as well.
const CHUNK_BYTES: usize = 16 << 20;
const CHUNK_RECORDS: usize = 64 << 10;
const CACHE_BYTES: usize = 16 << 20;

/// Who waits for an fsync.
pub(crate) struct Synced(Flushed);

impl Callback for Synced {
    fn send(self, result: io::Result<()>) {
        (self.0)(result);
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
        payload.cost()
    }
}

fn to_disk(at: LogPosition) -> DiskLogId {
    (at.term, (at.node, at.index))
}

fn from_disk(id: &DiskLogId) -> LogPosition {
    LogPosition { term: id.0, node: id.1.0, index: id.1.1 }
}

/// Opens the log in `dir` after checking all of it. Blocking: for a blocking thread or before the runtime has work.
pub(crate) fn open(dir: &Path, expected: Expected) -> anyhow::Result<OpenedLog> {
    std::fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent() {
        // raft-log fsyncs its directory, not the entry of that directory in ours.
        std::fs::File::open(parent)?.sync_all()?;
    }
    let found = log_check::verify(dir, expected)?;
    let bytes_after_snapshot = found.bytes_after_snapshot + found.entries_after_snapshot * ENTRY_OVERHEAD;

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
    Ok(OpenedLog { log: Box::new(SystemLog(log)), bytes_after_snapshot })
}

struct SystemLog(RaftLog<DiskTypes>);

impl Log for SystemLog {
    fn head(&self) -> LogHead {
        let state = self.0.log_state();
        LogHead {
            vote: state.vote().map(|((term, node), committed)| SavedVote { term: *term, node: *node, committed: *committed == 1 }),
            purged: state.purged().map(from_disk),
            last: state.last().map(from_disk),
            committed: state.committed().map(from_disk),
        }
    }

    fn read(&self, from: u64, to: u64, each: &mut dyn FnMut(LogPosition, Record) -> io::Result<bool>) -> io::Result<()> {
        for item in self.0.read(from, to) {
            let (id, record) = item?;
            if !each(from_disk(&id), record)? {
                break;
            }
        }
        Ok(())
    }

    fn append(&mut self, entries: &mut dyn Iterator<Item = (LogPosition, Record)>) -> io::Result<()> {
        self.0.append(entries.map(|(at, record)| (to_disk(at), record))).map(|_| ())
    }

    fn save_vote(&mut self, vote: SavedVote) -> io::Result<()> {
        self.0.save_vote(((vote.term, vote.node), u64::from(vote.committed))).map(|_| ())
    }

    fn save_committed(&mut self, committed: LogPosition) -> io::Result<()> {
        self.0.commit(to_disk(committed)).map(|_| ())
    }

    fn truncate(&mut self, from: u64) -> io::Result<()> {
        self.0.truncate(from).map(|_| ())
    }

    fn purge(&mut self, upto: LogPosition) -> io::Result<()> {
        self.0.purge(to_disk(upto)).map(|_| ())
    }

    fn flush(&mut self, done: Flushed) -> io::Result<()> {
        self.0.flush(true, Some(Synced(done)))
    }
}
