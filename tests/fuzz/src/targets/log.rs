//! The Raft log's files: what is opened can be read, and opened again with the same in it.
//!
//! Checksums keep a mutated file from getting anywhere, so mostly the files are made around mutated records.

use std::{fs, io, path::Path};

use tenure_server::{
    disk::{Disk as _, Expected, LogHead, LogPosition, SystemDisk},
    fuzzing as door,
};

use super::{Shape, Target};

pub(super) const TARGET: Target =
    Target { name: "log", reads: "files of the Raft log", shape: Shape::Bytes, words: &["\0\0\0\u{1}", "\0\0\0\u{5}\u{1}"], mutations: 1_800, run };

/// First byte 0: one file as it is. Otherwise records as [`sealed`] takes them; if it is odd, one byte of what comes of it is broken.
fn run(input: &[u8]) -> bool {
    let Some((kind, rest)) = input.split_first() else { return false };
    let mut files = if *kind == 0 { vec![(0, rest.to_vec())] } else { sealed(rest) };
    let all: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    if kind % 2 == 1 && all > 0 {
        let mut at = usize::from(*kind) * 5 % all;
        for (_, bytes) in &mut files {
            match bytes.get_mut(at) {
                Some(byte) => {
                    *byte ^= 1;
                    break;
                }
                None => at -= bytes.len(),
            }
        }
    }
    // In memory where there is such a place: what counts here is what is read, not what is synced.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory");
    let log = dir.path().join("raft-log");
    fs::create_dir(&log).expect("a new directory");
    for (start, bytes) in &files {
        fs::write(log.join(name(*start)), bytes).expect("a new file");
    }
    let Ok(first) = opened(&log) else { return false };
    let second = opened(&log).expect("what was opened once is opened again");
    assert_eq!(first, second, "with the same in it");
    first.1 > 0
}

/// The head, and how many entries there are.
fn opened(dir: &Path) -> Result<(LogHead, u64), String> {
    let opened =
        SystemDisk.open_log(dir, Expected { member: true, snapshot_index: Some(1 << 40), ..Expected::default() }).map_err(|error| format!("{error:#}"))?;
    let (mut entries, mut before): (u64, Option<LogPosition>) = (0, None);
    let read = opened.log.read(0, u64::MAX, &mut |at, record| {
        assert!(before.is_none_or(|before| before.index < at.index), "entries come in order");
        before = Some(at);
        entries += 1;
        // An entry that says nothing to openraft stops the replica when it is read, with an error.
        let _understood: io::Result<()> = door::readable(record);
        Ok(true)
    });
    read.map_err(|error| error.to_string())?;
    Ok((opened.log.head(), entries))
}

/// Records behind their lengths in two bytes, each given its checksum. One of no length: here begins the next file.
pub(super) fn sealed(mut parts: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut files = vec![(0, Vec::new())];
    let mut end = 0;
    while let Some((length, rest)) = parts.split_first_chunk() {
        let (record, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        parts = rest;
        if record.is_empty() {
            files.push((end, Vec::new()));
            continue;
        }
        let file = &mut files.last_mut().expect("there is one").1;
        let before = file.len();
        file.extend(record);
        file.extend(door::log_record_sum(record));
        end += (file.len() - before) as u64;
    }
    files
}

/// As raft-log names the file whose first record is at this place.
fn name(start: u64) -> String {
    let digits = format!("{start:020}");
    let groups: Vec<&str> = [&digits[..2]].into_iter().chain((2..20).step_by(3).map(|at| &digits[at..at + 3])).collect();
    format!("r-{}.wal", groups.join("_"))
}
