//! A log whose next file cannot be made stops, and is whole: nothing that was told is missing, and nothing that it wrote about itself is wrong.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
};

use crate::{
    consensus::{
        log_check,
        log_mark::{self, Known, Marker},
    },
    disk::{Disk as _, Expected, Log, LogHead, LogPosition, Mark, OpenedLog, Record, SavedVote, SystemDisk},
};

const TERM: u64 = 3;

fn expected() -> Expected {
    // Files of 16 KiB; whatever is purged is in a snapshot.
    Expected { member: true, snapshot_index: Some(1_000), snapshot_log_bytes: 64 << 10 }
}

fn open(dir: &Path, expected: Expected) -> anyhow::Result<Box<dyn Log>> {
    SystemDisk.open_log(dir, expected).map(|OpenedLog { log, .. }| log)
}

fn at(index: u64) -> LogPosition {
    LogPosition { term: TERM, node: 1, index }
}

fn record() -> Record {
    Record::new(&openraft::EntryPayload::Normal(crate::consensus::types::Blob(vec![7; 700].into())))
}

fn vote(term: u64) -> SavedVote {
    SavedVote { term, node: 1, committed: true }
}

fn synced(log: &mut dyn Log) -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    log.flush(Box::new(move |result| tell.send(result).expect("somebody waits")))?;
    told.recv().expect("it is told")
}

/// What a log is asked to write when its file is full.
#[derive(Clone, Copy, Debug)]
enum Last {
    Entry,
    /// Several at once: the file is full after the first.
    Entries,
    Vote,
    Committed,
    Truncate,
    Purge,
}

const LAST: [Last; 6] = [Last::Entry, Last::Entries, Last::Vote, Last::Committed, Last::Truncate, Last::Purge];

fn write(log: &mut dyn Log, last: Last, next: u64) -> io::Result<()> {
    match last {
        Last::Entry => log.append(&mut std::iter::once((at(next), record()))),
        Last::Entries => log.append(&mut (next..next + 3).map(|index| (at(index), record()))),
        Last::Vote => log.save_vote(vote(log.head().vote.map_or(TERM, |vote| vote.term) + 1)),
        Last::Committed => log.save_committed(at(next - 1)),
        Last::Truncate => log.truncate(next - 1),
        Last::Purge => log.purge(at(next - 2)),
    }
}

/// Writes until the next file is needed and cannot be made, because the directory has vanished: the log, the last entry that was synced and told so, and
/// where the directory is.
fn write_until_refused(dir: &Path, last: Last) -> (Box<dyn Log>, u64, PathBuf) {
    let aside = dir.with_extension("aside");
    let mut log = open(dir, Expected { member: false, ..expected() }).expect("a new log");
    log.save_vote(vote(TERM)).expect("written");
    let mut told = 0;
    for index in 1..=15 {
        log.append(&mut std::iter::once((at(index), record()))).expect("written");
        synced(&mut *log).expect("synced");
        told = index;
    }
    fs::rename(dir, &aside).expect("gone");
    let refused = loop {
        let next = told + 1;
        if let Err(error) = write(&mut *log, last, next) {
            break error;
        }
        // What removes an entry needs one to remove.
        if matches!(last, Last::Truncate | Last::Purge) {
            let index = log.head().last.map_or(1, |last| last.index + 1);
            if let Err(error) = log.append(&mut std::iter::once((at(index), record()))) {
                break error;
            }
        }
        synced(&mut *log).expect("synced");
        told = log.head().last.map_or(told, |last| last.index);
        assert!(told < 1_000, "{last:?}: the file is never full");
    };
    assert_eq!(refused.kind(), io::ErrorKind::NotFound, "{last:?}: {refused}");
    (log, told, aside)
}

#[test]
fn log_whose_next_file_cannot_be_made_is_whole_at_the_next_start() {
    for last in LAST {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let dir = temporary.path().join("raft-log");
        let (log, told, aside) = write_until_refused(&dir, last);
        drop(log);
        fs::rename(&aside, &dir).expect("back");
        let mut log = open(&dir, expected()).unwrap_or_else(|error| panic!("{last:?}: {error:#}"));
        let there = log.head().last.map_or(0, |last| last.index);
        let kept = if matches!(last, Last::Truncate) { told - 1 } else { told };
        assert!(there >= kept, "{last:?}: entry {told} was synced, and it ends with {there}");
        log.append(&mut std::iter::once((at(there + 1), record()))).expect("it goes on");
        synced(&mut *log).expect("synced");
        drop(log);
        open(&dir, expected()).expect("whole");
    }
}

#[test]
fn nothing_is_written_told_or_marked_after_a_failed_write() {
    for last in LAST {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let dir = temporary.path().join("raft-log");
        let mark = log_mark::path(&dir);
        let (mut log, _, aside) = write_until_refused(&dir, last);
        let before = fs::read(&mark).expect("readable");
        fs::rename(&aside, &dir).expect("back");
        synced(&mut *log).expect_err("nothing is told any more");
        log.save_vote(vote(TERM + 5_000)).expect_err("nothing is written any more");
        drop(log);
        assert_eq!(fs::read(&mark).expect("readable"), before, "{last:?}: it was marked");
    }
}

fn mark(dir: &Path) -> Mark {
    match log_mark::read(&log_mark::path(dir)) {
        Ok(Known::Synced(mark)) => mark,
        other => panic!("{other:?}"),
    }
}

fn bytes(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir).expect("there").map(|entry| entry.expect("readable").path());
    let mut all: Vec<_> = files.filter(|path| path.extension().is_some()).map(|path| (path.clone(), fs::read(&path).expect("readable"))).collect();
    all.sort();
    all
}

/// What earlier versions left behind: a mark that ends before the write that failed, and says what the log says behind it. And what they knew before.
fn contradiction(dir: &Path, last: Last) -> (Mark, LogHead) {
    let (log, _, aside) = write_until_refused(dir, last);
    let head = log.head();
    drop(log);
    fs::rename(aside, dir).expect("back");
    let before = mark(dir);
    Marker::begin(&log_mark::path(dir), &Mark { end: before.end, vote: head.vote, last: head.last }).expect("written");
    (before, head)
}

#[test]
fn log_with_a_mark_that_contradicts_itself_is_told_from_another_log_and_goes_on() {
    for last in LAST {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let dir = temporary.path().join("raft-log");
        let (before, head) = contradiction(&dir, last);
        let found = log_check::inspect(&dir, expected()).unwrap_or_else(|error| panic!("{last:?}: {error}"));
        let differs = (before.vote, before.last) != (head.vote, head.last);
        let said = found.contradiction();
        assert_eq!(said.is_some(), differs, "{last:?}");
        assert!(said.is_none_or(|said| said.contains("contradicts itself") && said.contains("The log is whole")), "{said:?}");
        let mut log = open(&dir, expected()).unwrap_or_else(|error| panic!("{last:?}: {error:#}"));
        assert_eq!((log.head().vote, log.head().last), (head.vote, head.last), "{last:?}");
        synced(&mut *log).expect("synced");
        drop(log);
        let found = log_check::inspect(&dir, expected()).expect("whole");
        assert_eq!(found.contradiction(), None, "{last:?}: it is made anew");
    }
}

#[test]
fn check_says_that_a_mark_contradicts_itself_and_how_to_go_on() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    fs::write(temporary.path().join("identity.json"), r#"{"format":1,"node_id":1,"replica_id":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#).expect("written");
    contradiction(&temporary.path().join("raft-log"), Last::Entry);
    let report = crate::check::data_dir(temporary.path());
    assert_eq!(report.verdict(), crate::check::Verdict::Sound, "{report}");
    let said = report.to_string();
    for words in ["contradicts itself", "The log is whole", "nothing that was acknowledged is missing", "Start this version"] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn log_that_lost_anything_is_refused_though_its_mark_contradicts_itself() {
    for last in [Last::Entry, Last::Entries, Last::Vote] {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let dir = temporary.path().join("raft-log");
        let (before, _) = contradiction(&dir, last);
        let (file, whole) = bytes(&dir).pop().expect("a file");
        // Where the mark ends, where records end, and all along: everything that was told is there, but it is not what the mark says.
        let ends = usize::try_from(before.end).expect("small");
        for length in (0..whole.len()).filter(|length| length % 331 == 0 || whole.len() - length < 40 || length.abs_diff(ends) < 4) {
            fs::write(&file, &whole[..length]).expect("written");
            let why = log_check::inspect(&dir, expected()).expect_err("damage").to_string();
            assert!(why.contains("is damaged") || why.contains("is gone"), "{last:?}, {length} of {}: {why}", whole.len());
        }
        let mut torn = whole.clone();
        torn.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
        fs::write(&file, &torn).expect("written");
        let why = log_check::inspect(&dir, expected()).expect_err("damage").to_string();
        assert!(why.contains("more than was synced"), "{why}");
        fs::write(&file, &whole).expect("written");
        open(&dir, expected()).expect("whole");
    }
}

#[test]
fn another_log_of_the_same_length_is_refused() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let logs = [0, 1].map(|which| {
        let dir = temporary.path().join(format!("{which}")).join("raft-log");
        let mut log = open(&dir, Expected { member: false, ..expected() }).expect("a new log");
        log.save_vote(vote(TERM + which)).expect("written");
        for index in 1..=5 {
            log.append(&mut std::iter::once((LogPosition { term: TERM + which, ..at(index) }, record()))).expect("written");
        }
        synced(&mut *log).expect("synced");
        drop(log);
        dir
    });
    assert_eq!(mark(&logs[0]).end, mark(&logs[1]).end);
    fs::copy(log_mark::path(&logs[0]), log_mark::path(&logs[1])).expect("copied");
    let why = log_check::inspect(&logs[1], expected()).expect_err("damage").to_string();
    assert!(why.contains("it is another log"), "{why}");
}
