//! Follows a Raft log record by record, and says what does not follow from what came before: entries that are missing at its beginning, in its
//! middle or at its end, files that are not of this log. Reads nothing and repairs nothing.

use raft_log::{RaftLogAction, WALRecord};

use super::{
    log_check::DiskRecord,
    log_mark::Known,
    marked::Mark,
    system_log::{DiskLogId, DiskState, DiskVote, from_disk, saved_vote},
};

/// Where the walk is, and what the log says up to there.
pub(super) struct Walk {
    /// Entries up to here are in the newest snapshot.
    snapshot_index: Option<u64>,
    synced: Option<Mark>,
    /// Where the first file begins, and the entry before its first.
    begin: Option<(u64, Option<DiskLogId>)>,
    at: u64,
    /// The next record is a file's first.
    new_file: bool,
    state: State,
    met_mark: bool,
    /// What the log says where the mark is, if that is something else.
    at_mark: Option<Mark>,
    records: u64,
    entries: u64,
    bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    vote: Option<DiskVote>,
    last: Option<DiskLogId>,
    committed: Option<DiskLogId>,
    purged: Option<DiskLogId>,
}

impl From<&DiskState> for State {
    fn from(state: &DiskState) -> Self {
        Self { vote: state.vote().copied(), last: state.last().copied(), committed: state.committed().copied(), purged: state.purged().copied() }
    }
}

fn index(id: Option<&DiskLogId>) -> Option<u64> {
    id.map(|id| id.1.1)
}

/// For people.
fn entry(id: Option<&DiskLogId>) -> String {
    id.map_or_else(|| "no entry".to_owned(), |id| format!("entry {} of term {}", id.1.1, id.0))
}

impl Walk {
    pub(super) fn new(snapshot_index: Option<u64>, mark: &Known) -> Self {
        let synced = if let Known::Synced(mark) = mark { Some(*mark) } else { None };
        Self {
            snapshot_index,
            synced,
            begin: None,
            at: 0,
            new_file: false,
            state: State::default(),
            met_mark: false,
            at_mark: None,
            records: 0,
            entries: 0,
            bytes: 0,
        }
    }

    /// A file begins, and by its name there.
    pub(super) fn file(&mut self, start: u64) -> Result<(), String> {
        if self.begin.is_some() && self.at != start {
            return Err(format!("this file starts at {start}, but the one before ends at {}: a file is missing or cut short", self.at));
        }
        (self.at, self.new_file) = (start, true);
        Ok(())
    }

    /// The next record, and how long it is.
    pub(super) fn record(&mut self, record: &DiskRecord, length: u64) -> Result<(), String> {
        match (std::mem::take(&mut self.new_file), record) {
            (true, WALRecord::Checkpoint(state)) if self.begin.is_none() => {
                self.state = state.into();
                self.begin = Some((self.at, self.state.last));
            }
            // Replay would forget what came before.
            (_, WALRecord::Checkpoint(state)) if self.state != state.into() => {
                return Err("this does not go on where the log was: it belongs to another log, or to another place in this one".to_owned());
            }
            (_, WALRecord::Checkpoint(_)) => {}
            (true, WALRecord::Action(_)) => return Err("this file does not begin as every file of a log does".to_owned()),
            (false, WALRecord::Action(action)) => self.action(action, length)?,
        }
        self.records += 1;
        self.at += length;
        self.compare();
        Ok(())
    }

    fn action(&mut self, action: &RaftLogAction<super::system_log::DiskTypes>, length: u64) -> Result<(), String> {
        let state = &mut self.state;
        match action {
            RaftLogAction::SaveVote(vote) if Some(vote) < state.vote.as_ref() => return Err("a vote goes back".to_owned()),
            RaftLogAction::SaveVote(vote) => state.vote = Some(*vote),
            RaftLogAction::Append(id, _) => {
                let follows = index(state.last.as_ref()).is_none_or(|last| last + 1 == id.1.1) && Some(id) > state.last.as_ref();
                if !follows {
                    return Err(format!("{} does not follow {}", entry(Some(id)), entry(state.last.as_ref())));
                }
                state.last = Some(*id);
                if self.snapshot_index.is_none_or(|index| id.1.1 > index) {
                    self.entries += 1;
                    self.bytes += length;
                }
            }
            RaftLogAction::Commit(id) if Some(id) > state.last.as_ref() || Some(id) < state.committed.as_ref() => {
                return Err(format!("{} cannot be committed here", entry(Some(id))));
            }
            RaftLogAction::Commit(id) => state.committed = Some(*id),
            RaftLogAction::TruncateAfter(kept) if *kept < state.committed => return Err("committed entries are taken back".to_owned()),
            RaftLogAction::TruncateAfter(kept) => state.last = state.last.min(*kept),
            RaftLogAction::PurgeUpto(id) => {
                state.purged = state.purged.max(Some(*id));
                state.last = state.last.max(Some(*id));
            }
        }
        Ok(())
    }

    /// At the mark, the log must say what it said when the mark was made; what else that may mean is known at its end.
    fn compare(&mut self) {
        let Some(mark) = self.synced.filter(|mark| mark.end == self.at) else { return };
        self.met_mark = true;
        // A file's first record repeats the state, and so may say again what was already wrong.
        self.at_mark = (self.end() != mark).then(|| self.end());
    }

    /// Earlier builds made such a mark on their way out when the log's next file could not be made: where the log ended before the
    /// write that failed, and what it said behind it. Nobody was told anything after that mark's end, so a log that has everything up to there, and then
    /// goes on to say, at its very end, what the mark says, misses nothing, whichever half of the mark one believes.
    pub(super) fn contradiction(&self) -> Option<String> {
        let (there, mark) = (self.at_mark?, self.synced?);
        let says = |mark: &Mark| {
            let last = mark.last.map_or_else(|| "no entry".to_owned(), |last| format!("entry {}", last.index));
            mark.vote.map_or_else(|| last.clone(), |vote| format!("{last} and a vote in term {}", vote.term))
        };
        (self.at > mark.end && self.end().says_the_same(&mark)).then(|| {
            format!(
                "the mark of how far it was synced contradicts itself: at byte {} the log has {}, and the mark says {}, which is what the log has at byte {}. \
                 An earlier version left that when it could not make a file. The log is whole up to there, and nothing that was acknowledged is missing",
                mark.end,
                says(&there),
                says(&mark),
                self.at
            )
        })
    }

    pub(super) fn end(&self) -> Mark {
        Mark { end: self.at, vote: self.state.vote.map(saved_vote), last: self.state.last.as_ref().map(from_disk) }
    }

    /// Records, entries after the snapshot, and their bytes.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.records, self.entries, self.bytes)
    }

    /// Nothing comes any more.
    pub(super) fn finish(&self) -> Result<(), String> {
        let (begin, before_first) = self.begin.unwrap_or_default();
        if let Some(mark) = self.synced {
            if mark.end > self.at {
                let last = mark.last.map_or_else(String::new, |last| format!(", entry {} with it", last.index));
                return Err(format!("it ends at byte {}, but everything up to byte {} was synced{last}: its end is missing", self.at, mark.end));
            }
            if !self.met_mark && mark.end > begin {
                return Err(format!("no record ends at byte {}, where it was synced: it is another log", mark.end));
            }
            if self.at_mark.is_some() && self.contradiction().is_none() {
                return Err(format!("at byte {} the log says something else than when it was synced: it is another log", mark.end));
            }
        }
        let purged = index(self.state.purged.as_ref());
        if index(before_first.as_ref()) > purged {
            let (from, to) = (purged.map_or(0, |purged| purged + 1), index(before_first.as_ref()).unwrap_or(0));
            return Err(format!("entries {from} to {to} are missing at its beginning"));
        }
        if purged > self.snapshot_index {
            let newest = self.snapshot_index.map_or_else(|| "there is none".to_owned(), |index| format!("the newest one that is there ends at entry {index}"));
            return Err(format!("entries up to {} were removed from it because a snapshot had them, but {newest}", purged.unwrap_or(0)));
        }
        Ok(())
    }
}
