//! How far the Raft log was synced, kept beside it: whatever is missing below that point was acknowledged.
//!
//! A log that ends too early looks the same whether its last write never reached the disk, so that nobody was told, or was there and is gone.
//! So after each fsync, and before anybody is told, `raft-log.synced` is overwritten in place. It is not synced itself, which would be a second
//! fsync an entry: when the process dies the kernel has it; when the power fails it may be some seconds old. It may say less than is true,
//! never more.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::marked::{Mark, Marks};
use crate::disk::{LogPosition, SavedVote};

const MAGIC: [u8; 8] = *b"TNRSYNC\n";
const FORMAT: u64 = 1;
/// Magic, nine numbers, checksum of both.
const LENGTH: usize = 8 + 9 * 8 + 4;

/// What is known of a log when it is opened.
#[derive(Debug)]
pub(super) enum Known {
    /// There is no mark. It is there before the first entry, so a log without one has lost it.
    Nothing,
    /// It cannot be trusted.
    Unreadable(String),
    Synced(Mark),
}

/// Where a log in `dir` has its mark.
pub(super) fn path(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".synced");
    dir.with_file_name(name)
}

/// Reads the mark of a log.
pub(super) fn read(path: &Path) -> io::Result<Known> {
    let mut bytes = Vec::new();
    match File::open(path) {
        // One byte more than there should be.
        Ok(file) => file.take(LENGTH as u64 + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::Nothing),
        Err(error) => return Err(error),
    };
    Ok(match decode(&bytes) {
        Some(mark) => Known::Synced(mark),
        None => Known::Unreadable(format!("{} is damaged", path.display())),
    })
}

fn encode(mark: &Mark) -> [u8; LENGTH] {
    let vote = mark.vote.unwrap_or(SavedVote { term: 0, node: 0, committed: false });
    let last = mark.last.unwrap_or_default();
    // 0: none.
    let vote_kind = mark.vote.map_or(0, |vote| 1 + u64::from(vote.committed));
    let numbers = [FORMAT, mark.end, vote_kind, vote.term, vote.node, u64::from(mark.last.is_some()), last.term, last.node, last.index];
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    for (at, number) in numbers.into_iter().enumerate() {
        bytes[8 + at * 8..16 + at * 8].copy_from_slice(&number.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&bytes[..LENGTH - 4]);
    bytes[LENGTH - 4..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Mark> {
    let bytes: &[u8; LENGTH] = bytes.try_into().ok()?;
    let number = |at: usize| bytes[8 + at * 8..16 + at * 8].try_into().map_or(0, u64::from_le_bytes);
    let vote = SavedVote { term: number(3), node: number(4), committed: number(2) == 2 };
    let last = LogPosition { term: number(6), node: number(7), index: number(8) };
    let mark = Mark { end: number(1), vote: (number(2) > 0).then_some(vote), last: (number(5) > 0).then_some(last) };
    // Nothing but what was encoded: magic, format and checksum with it.
    (encode(&mark) == *bytes).then_some(mark)
}

/// Keeps the mark of an open log.
#[derive(Debug)]
pub(super) struct Marker {
    file: File,
    /// The last one could not be written, and that was said.
    failing: AtomicBool,
}

impl Marker {
    /// Begins anew at what was found, durably.
    pub(super) fn begin(path: &Path, mark: &Mark) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let marker = Self { file, failing: AtomicBool::new(false) };
        marker.write(mark)?;
        marker.file.set_len(LENGTH as u64)?;
        marker.file.sync_all()?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(marker)
    }

    fn write(&self, mark: &Mark) -> io::Result<()> {
        self.file.write_all_at(&encode(mark), 0)
    }
}

impl Marks for Marker {
    fn reached(&self, mark: &Mark) {
        match self.write(mark) {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            // Once, not at each entry.
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "cannot note how far the log was synced; nothing is lost, but an end of the log that goes missing would not be noticed");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_is_read_as_it_was_written_and_any_other_bit_makes_it_unreadable() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = path(&dir.path().join("raft-log"));
        assert!(matches!(read(&path), Ok(Known::Nothing)));
        let vote = SavedVote { term: 7, node: 2, committed: true };
        let marks = [
            Mark::default(),
            Mark { end: 700, vote: Some(vote), last: Some(LogPosition { term: 6, node: 3, index: 99 }) },
            Mark { end: 701, vote: Some(SavedVote { committed: false, ..vote }), last: None },
        ];
        for mark in marks {
            Marker::begin(&path, &mark).expect("written");
            assert!(matches!(read(&path), Ok(Known::Synced(known)) if known == mark), "{mark:?}");
        }
        let whole = std::fs::read(&path).expect("readable");
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_none(), "bit {bit}");
        }
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_none(), "{length} bytes");
        }
    }
}
