//! Reads the whole Raft log before raft-log opens it, and decides between a torn tail and corruption.
//!
//! raft-log by itself cuts its last file at the first record that ends too early, whatever follows. A flipped bit in a length field would
//! thus silently drop acknowledged entries. Here a bad record is a torn tail only if no good record follows it and it looks unfinished;
//! only that is cut off. Everything else refuses to start.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use raft_log::{RaftLogAction, RaftLogRecord, WALRecord, chunked_wal, codeq::Decode as _};

use super::system_log::DiskTypes;
use crate::disk::Expected;

type DiskRecord = RaftLogRecord<DiskTypes>;

/// What the log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) files: u64,
    pub(crate) records: u64,
    pub(crate) bytes_after_snapshot: u64,
    pub(crate) entries_after_snapshot: u64,
    /// Bytes of an unfinished write that were cut off.
    pub(crate) torn_bytes: u64,
}

/// Why the log cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("cannot read the Raft log at {path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "the Raft log is damaged: {path} has an unreadable record at byte {offset} ({why}). Entries that were acknowledged may be lost, so this \
         replica will not start from it. Remove this member from the cluster, move the data directory away, and add the replica anew with an \
         empty one (docs: replacing a replica)"
    )]
    Damaged { path: PathBuf, offset: u64, why: String },
    #[error(
        "the Raft log in {dir} is gone although this replica belongs to a cluster. It may have voted and acknowledged what it no longer knows, \
         so it will not start. Remove this member from the cluster, move the data directory away, and add the replica anew with an empty one"
    )]
    Gone { dir: PathBuf },
}

/// Checks every record of every file, and cuts off a torn tail.
pub(crate) fn verify(dir: &Path, expected: Expected) -> Result<Found, LogError> {
    check(dir, expected, true)
}

/// As [`verify`], touching nothing.
pub(crate) fn inspect(dir: &Path, expected: Expected) -> Result<Found, LogError> {
    check(dir, expected, false)
}

fn check(dir: &Path, expected: Expected, repair: bool) -> Result<Found, LogError> {
    let files = files(dir).map_err(|error| LogError::Io { path: dir.into(), error })?;
    if files.is_empty() && expected.member {
        return Err(LogError::Gone { dir: dir.into() });
    }
    let mut found = Found { files: files.len() as u64, ..Found::default() };
    let mut expected_start = None;
    // Only the last file that holds anything may have a torn tail: the next is written after the one before was fsynced.
    let mut torn: Option<(PathBuf, u64, String)> = None;
    for (start, path) in files {
        let io_error = |error| LogError::Io { path: path.clone(), error };
        let bytes = fs::read(&path).map_err(io_error)?;
        let mut at = 0;
        let mut bad = None;
        while at < bytes.len() {
            match decode(&bytes[at..]) {
                Ok((record, length)) => {
                    // Something good after something bad, or in another place than the name says.
                    if let Some((path, offset, why)) = torn.take() {
                        return Err(LogError::Damaged { path, offset, why });
                    }
                    if let Some(end) = expected_start.filter(|end| *end != start) {
                        let why = format!("this file starts at {start}, but the one before ends at {end}: a file is missing or cut short");
                        return Err(LogError::Damaged { path, offset: 0, why });
                    }
                    count(&mut found, &record, length as u64, expected.snapshot_index);
                    at += length;
                    expected_start = Some(start);
                }
                Err(error) => {
                    bad = Some(error);
                    break;
                }
            }
        }
        if at > 0 {
            expected_start = Some(start + at as u64);
        }
        if let Some(error) = bad {
            let rest = &bytes[at..];
            let why = error.to_string();
            if torn.is_some() || good_record_in(&rest[1..]) || !looks_unfinished(rest, at, &error) {
                return Err(LogError::Damaged { path, offset: at as u64, why });
            }
            found.torn_bytes += rest.len() as u64;
            torn = Some((path, at as u64, why));
        }
    }
    if let Some((path, offset, why)) = torn {
        tracing::warn!(path = %path.display(), offset, bytes = found.torn_bytes, why, "an unfinished write at the end of the log, never acknowledged");
        if repair {
            cut(&path, offset).map_err(|error| LogError::Io { path, error })?;
        }
    }
    Ok(found)
}

fn count(found: &mut Found, record: &DiskRecord, length: u64, snapshot_index: Option<u64>) {
    found.records += 1;
    if let WALRecord::Action(RaftLogAction::Append(id, _)) = record
        && snapshot_index.is_none_or(|index| id.1.1 > index)
    {
        found.entries_after_snapshot += 1;
        found.bytes_after_snapshot += length;
    }
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
