//! Reads the whole Raft log before raft-log opens it, and decides between a torn tail and damage.
//!
//! raft-log by itself cuts its last file at the first record that ends too early, whatever follows. A flipped bit in a length field would
//! thus silently drop acknowledged entries. Here a bad record is a torn tail only if it lies behind everything that is known to have been
//! synced (`log_mark`), no good record follows it and it looks unfinished; only that is cut off. Everything else refuses to start: so does a log
//! that lacks its end, its beginning, or a file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use raft_log::{RaftLogRecord, chunked_wal, codeq::Decode as _};

use super::{
    log_mark::{self, Known},
    log_walk::Walk,
    marked::Mark,
    system_log::DiskTypes,
};
use crate::disk::Expected;

pub(super) type DiskRecord = RaftLogRecord<DiskTypes>;

const ADVICE: &str = "Entries that were acknowledged may be lost, so this replica will not start from it. Remove this member from the cluster, move the \
                      data directory away, and add the replica anew with an empty one (docs: replacing a replica)";

/// What the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) files: u64,
    pub(crate) records: u64,
    pub(crate) bytes_after_snapshot: u64,
    pub(crate) entries_after_snapshot: u64,
    /// Bytes of an unfinished write that were cut off.
    pub(crate) torn_bytes: u64,
    end: Mark,
    /// What is wrong with the mark, while the log is whole.
    contradiction: Option<String>,
}

impl Found {
    /// Where the log ends, and what it says there.
    pub(crate) fn end(&self) -> Mark {
        self.end
    }

    /// What is wrong with the mark, for people; the log is whole.
    pub(crate) fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }
}

/// Why the log cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("cannot read the Raft log at {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("the Raft log is damaged: {path} at byte {offset}: {why}. {advice}", advice = ADVICE)]
    Damaged { path: PathBuf, offset: u64, why: String },
    #[error("the Raft log in {dir} is damaged: {why}. {advice}", advice = ADVICE)]
    Missing { dir: PathBuf, why: String },
    #[error(
        "the Raft log in {dir} is gone although this replica belongs to a cluster. It may have voted and acknowledged what it no longer knows, \
         so it will not start. Remove this member from the cluster, move the data directory away, and add the replica anew with an empty one"
    )]
    Gone { dir: PathBuf },
}

/// Checks every record of every file, cuts off a torn tail, and makes sure that what is left is on disk.
pub(crate) fn verify(dir: &Path, expected: Expected) -> Result<Found, LogError> {
    check(dir, expected, true)
}

/// As [`verify`], touching nothing.
pub(crate) fn inspect(dir: &Path, expected: Expected) -> Result<Found, LogError> {
    check(dir, expected, false)
}

fn check(dir: &Path, expected: Expected, repair: bool) -> Result<Found, LogError> {
    let in_dir = |error| LogError::Io { path: dir.into(), error };
    let files = match files(dir) {
        // Looked at, not opened: it would have been made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        files => files.map_err(in_dir)?,
    };
    let mark_path = log_mark::path(dir);
    let mark = log_mark::read(&mark_path).map_err(|error| LogError::Io { path: mark_path, error })?;
    // There may be a mark only: then there were entries once, if it is not from before the first.
    let begun = matches!(&mark, Known::Synced(mark) if mark.last.is_some() || mark.vote.is_some());
    if files.is_empty() && (expected.member || begun) {
        return Err(LogError::Gone { dir: dir.into() });
    }
    let mut found = Found { files: files.len() as u64, ..Found::default() };
    let mut walk = Walk::new(expected.snapshot_index, &mark);
    // Only the last file that holds anything may have a torn tail: the next is written after the one before was fsynced.
    let mut torn: Option<(PathBuf, u64, String)> = None;
    for (start, path) in &files {
        let damaged = |offset: usize, why: String| LogError::Damaged { path: path.clone(), offset: offset as u64, why };
        let bytes = fs::read(path).map_err(|error| LogError::Io { path: path.clone(), error })?;
        let mut at = 0;
        let mut bad = None;
        while at < bytes.len() {
            match decode(&bytes[at..]) {
                Ok((record, length)) => {
                    // Something good after something bad, or in another place than the name says.
                    if let Some((path, offset, why)) = torn.take() {
                        return Err(LogError::Damaged { path, offset, why });
                    }
                    if at == 0 {
                        walk.file(*start).map_err(|why| damaged(0, why))?;
                    }
                    walk.record(&record, length as u64).map_err(|why| damaged(at, why))?;
                    at += length;
                }
                Err(error) => {
                    bad = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = bad {
            let rest = &bytes[at..];
            let why = format!("an unreadable record ({error})");
            if torn.is_some() || good_record_in(&rest[1..]) || !looks_unfinished(rest, at, &error) {
                return Err(damaged(at, why));
            }
            found.torn_bytes += rest.len() as u64;
            torn = Some((path.clone(), at as u64, why));
        }
    }
    (found.records, found.entries_after_snapshot, found.bytes_after_snapshot) = walk.counts();
    (found.end, found.contradiction) = (walk.end(), walk.contradiction());
    match (walk.finish(), &torn, &mark) {
        // The end is missing: that is more of a reason than where it is torn.
        (Err(why), Some((path, offset, _)), _) => return Err(LogError::Damaged { path: path.clone(), offset: *offset, why }),
        (Err(why), None, _) => return Err(LogError::Missing { dir: dir.into(), why }),
        (Ok(()), Some((path, offset, why)), Known::Nothing) => {
            let why = format!("{why}, and {}, which says how much was synced, is missing", log_mark::path(dir).display());
            return Err(LogError::Damaged { path: path.clone(), offset: *offset, why });
        }
        (Ok(()), Some((path, offset, why)), Known::Unreadable(mark)) => {
            return Err(LogError::Damaged { path: path.clone(), offset: *offset, why: format!("{why}, and {mark}") });
        }
        (Ok(()), Some((path, offset, why)), Known::Synced(_)) if found.contradiction.is_some() => {
            // Whoever made such a mark had synced all of the log before.
            return Err(LogError::Damaged { path: path.clone(), offset: *offset, why: format!("{why}, and the mark says more than was synced") });
        }
        (Ok(()), None, Known::Unreadable(mark)) => tracing::warn!("{mark}; the log is whole, so it is made anew"),
        (Ok(()), ..) => {}
    }
    if let Some((path, offset, why)) = torn {
        tracing::warn!(path = %path.display(), offset, bytes = found.torn_bytes, why, "an unfinished write at the end of the log, never acknowledged");
        if repair {
            crate::failpoint::pass("repair_before_cut");
            cut(&path, offset).map_err(|error| LogError::Io { path, error })?;
            crate::failpoint::pass("repair_after_cut");
        }
    }
    if let Some(why) = &found.contradiction {
        tracing::warn!(dir = %dir.display(), "{why}: it goes on from there");
    }
    if repair {
        let synced = if let Known::Synced(mark) = mark { mark.end } else { 0 };
        for (start, path) in files {
            write_again(&path, synced.saturating_sub(start)).map_err(|error| LogError::Io { path, error })?;
        }
    }
    Ok(found)
}

/// Makes durable what a file has from here on. A process that was killed left it in the kernel's memory only, and from now on it counts as ours. If it was
/// an fsync that failed, the kernel takes what it could not write for written, so another fsync would do nothing: it is written anew.
fn write_again(path: &Path, from: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if from >= length {
        return Ok(());
    }
    let mut bytes = vec![0; usize::try_from(length - from).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    file.write_all_at(&bytes, from)?;
    file.sync_all()
}

fn decode(bytes: &[u8]) -> io::Result<(DiskRecord, usize)> {
    let mut rest = bytes;
    let record = DiskRecord::decode(&mut rest)?;
    Ok((record, bytes.len() - rest.len()))
}

/// Whether a good record starts anywhere in `bytes`.
fn good_record_in(bytes: &[u8]) -> bool {
    // Types 0 to 5, big endian: everything else is no record, and most bytes are ruled out without a checksum.
    (0..bytes.len().saturating_sub(7)).any(|at| bytes[at..at + 3] == [0, 0, 0] && bytes[at + 3] <= 5 && decode(&bytes[at..]).is_ok())
}

/// A write that power loss interrupted is short, or has zeros where whole sectors never reached the disk. Bytes that are all there and
/// yet wrong were written once, and changed since.
fn looks_unfinished(rest: &[u8], offset: usize, error: &io::Error) -> bool {
    const SECTOR: usize = 512;
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return true;
    }
    let first = SECTOR - offset % SECTOR;
    let (head, tail) = rest.split_at(first.min(rest.len()));
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    zero(head) || tail.chunks(SECTOR).any(zero)
}

fn cut(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// (start, path) of the log's files, in order.
fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(start) = entry.file_name().to_str().and_then(|name| chunked_wal::Config::parse_chunk_file_name(name).ok()) {
            files.push((start, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}
