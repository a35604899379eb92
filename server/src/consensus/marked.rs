//! A log that notes after each sync how far it is on disk ([`Mark`]), before anybody is told.
//!
//! After any write or sync that failed it writes nothing, tells nobody and makes no mark, ever again: what a log says of itself then need not be what
//! it was told to write. A record may be written and applied although the call failed, as when only the file behind it could not be made. The next
//! start reads what is there.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tenure_lease::bug;

use super::record::{LogPosition, Record};
use crate::disk::{Flushed, Log, LogHead, SavedVote};

/// A point in the log, and what the log said there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Where it is: how much was ever written to the log, what was purged included, in the [`Journal`]'s own unit.
    pub end: u64,
    /// The last vote saved.
    pub vote: Option<SavedVote>,
    /// The newest entry.
    pub last: Option<LogPosition>,
}

impl Mark {
    /// Whether the log says the same there and here, wherever the two are.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        (self.vote, self.last) == (other.vote, other.last)
    }
}

/// A Raft log that makes no marks. Its calls are those of [`Log`]; each that writes returns where the log ends then.
#[allow(clippy::missing_errors_doc)]
pub trait Journal: Send {
    /// As last written, even if that call failed.
    fn head(&self) -> LogHead;
    /// See [`Log::read`].
    fn read(&self, from: u64, to: u64, each: &mut dyn FnMut(LogPosition, Record) -> io::Result<bool>) -> io::Result<()>;
    /// See [`Log::append`].
    fn append(&mut self, entries: &mut dyn Iterator<Item = (LogPosition, Record)>) -> io::Result<u64>;
    /// See [`Log::save_vote`].
    fn save_vote(&mut self, vote: SavedVote) -> io::Result<u64>;
    /// See [`Log::save_committed`].
    fn save_committed(&mut self, committed: LogPosition) -> io::Result<u64>;
    /// See [`Log::truncate`].
    fn truncate(&mut self, from: u64) -> io::Result<u64>;
    /// See [`Log::purge`].
    fn purge(&mut self, upto: LogPosition) -> io::Result<u64>;
    /// See [`Log::flush`].
    fn flush(&mut self, done: Flushed) -> io::Result<()>;
}

/// Where marks are kept.
pub trait Marks: Send + Sync + 'static {
    /// The log is on disk up to here. A mark that cannot be kept is no failure: an older one is as true and only finds less.
    fn reached(&self, mark: &Mark);
}

/// Set at the first failure, for good.
#[derive(Debug, Default)]
struct Sealed(AtomicBool);

impl Sealed {
    fn seal(&self) {
        if bug!("bug_mark_after_failed_write") {
            // As earlier builds did: a log that could not make its next file was marked on the way out with an entry that the mark's own end did not have.
            return;
        }
        self.0.store(true, Ordering::Release);
    }

    fn open(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::Error::other("an earlier write to the Raft log has failed: it takes no more")) } else { Ok(()) }
    }
}

/// See the module.
pub struct MarkedLog<J: Journal> {
    journal: J,
    marks: Arc<dyn Marks>,
    sealed: Arc<Sealed>,
    /// Where the journal ends.
    end: u64,
}

impl<J: Journal> MarkedLog<J> {
    /// `end`: where the journal ends now, which is marked already.
    pub fn new(journal: J, marks: Arc<dyn Marks>, end: u64) -> Self {
        Self { journal, marks, sealed: Arc::default(), end }
    }

    fn write(&mut self, write: impl FnOnce(&mut J) -> io::Result<u64>) -> io::Result<()> {
        self.sealed.open()?;
        self.end = write(&mut self.journal).inspect_err(|_| self.sealed.seal())?;
        Ok(())
    }
}

impl<J: Journal> Drop for MarkedLog<J> {
    /// The journal writes out what is pending, and its mark belongs to that. There is nobody to tell of a failure any more.
    fn drop(&mut self) {
        let _ = self.flush(Box::new(drop));
    }
}

impl<J: Journal> Log for MarkedLog<J> {
    fn head(&self) -> LogHead {
        self.journal.head()
    }

    fn read(&self, from: u64, to: u64, each: &mut dyn FnMut(LogPosition, Record) -> io::Result<bool>) -> io::Result<()> {
        self.journal.read(from, to, each)
    }

    fn append(&mut self, entries: &mut dyn Iterator<Item = (LogPosition, Record)>) -> io::Result<()> {
        self.write(|journal| journal.append(entries))
    }

    fn save_vote(&mut self, vote: SavedVote) -> io::Result<()> {
        self.write(|journal| journal.save_vote(vote))
    }

    fn save_committed(&mut self, committed: LogPosition) -> io::Result<()> {
        self.write(|journal| journal.save_committed(committed))
    }

    fn truncate(&mut self, from: u64) -> io::Result<()> {
        self.write(|journal| journal.truncate(from))
    }

    fn purge(&mut self, upto: LogPosition) -> io::Result<()> {
        self.write(|journal| journal.purge(upto))
    }

    fn flush(&mut self, done: Flushed) -> io::Result<()> {
        self.sealed.open()?;
        let head = self.journal.head();
        let mark = Mark { end: self.end, vote: head.vote, last: head.last };
        let (marks, sealed) = (Arc::clone(&self.marks), Arc::clone(&self.sealed));
        let told = move |result: io::Result<()>| {
            // Another write may have failed while this was on its way. Then it is not marked, and who is told relies on its mark.
            let result = result.inspect_err(|_| sealed.seal()).and_then(|()| sealed.open());
            if result.is_ok() {
                crate::failpoint::pass("log_before_mark");
                marks.reached(&mark);
            }
            done(result);
        };
        self.journal.flush(Box::new(told)).inspect_err(|_| self.sealed.seal())
    }
}
