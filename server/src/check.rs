//! `tenured check`: looks at a data directory while no replica uses it, and says whether a replica would start from it. It reads; it never
//! repairs, and never changes a byte.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::{consensus, history, identity};

/// What was found, part by part.
#[derive(Clone, Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

/// What is to be said of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    Damaged,
    /// A running replica has it.
    Busy,
    /// There is nothing to look at.
    Nothing,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Damaged => "DAMAGED",
            Self::Busy => "BUSY",
            Self::Nothing => "NONE",
        }
    }
}

#[derive(Clone, Debug)]
struct Finding {
    part: &'static str,
    state: State,
    /// A replica does not start without it.
    needed: bool,
    text: String,
}

/// What all of it comes to, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A replica would start from it, and nothing is damaged.
    Sound,
    /// A replica would start from it: it can do without what is damaged.
    Spared,
    /// A replica would refuse to start from it.
    Refused,
    /// Nothing was looked at: it is no replica's directory, or one that a replica uses.
    Unknown,
}

impl Report {
    /// The worst that was found.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let worst = self.findings.iter().map(|finding| match finding.state {
            State::Busy | State::Nothing => Verdict::Unknown,
            State::Damaged if finding.needed => Verdict::Refused,
            State::Damaged => Verdict::Spared,
            State::Sound => Verdict::Sound,
        });
        worst.max().unwrap_or(Verdict::Unknown)
    }

    /// Of what a replica starts with all the same.
    fn add_spare(&mut self, part: &'static str, result: anyhow::Result<String>) {
        self.add(part, result);
        self.findings.iter_mut().last().expect("was just added").needed = false;
    }

    fn add(&mut self, part: &'static str, result: anyhow::Result<String>) {
        let state = if result.is_ok() { State::Sound } else { State::Damaged };
        self.say(part, state, result.unwrap_or_else(|error| format!("{error:#}")));
    }

    fn say(&mut self, part: &'static str, state: State, text: String) {
        self.findings.push(Finding { part, state, needed: true, text });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{:<10} {:<8} {}", finding.part, finding.state.word(), finding.text)?;
        }
        let (word, verdict) = match self.verdict() {
            Verdict::Sound => ("starts", "everything is sound"),
            Verdict::Spared => ("starts", "a replica starts from it: it can do without what is damaged"),
            Verdict::Refused => ("REFUSED", "a replica would refuse to start from it"),
            Verdict::Unknown => ("unknown", "nothing was looked at"),
        };
        writeln!(f, "{:<10} {word:<8} {verdict}", "verdict")
    }
}

/// Looks at everything in a data directory. Meant for one that no replica uses: a running one's is refused.
#[must_use]
pub fn data_dir(data_dir: &Path) -> Report {
    let mut report = Report::default();
    let (state, text) = directory(data_dir);
    report.say("directory", state, text);
    if state != State::Sound {
        return report;
    }
    let identity = identity::inspect(data_dir);
    // Without an identity the log is looked at as strictly as with one.
    let member = identity.as_ref().map_or(true, |(_, member)| *member);
    report.add("identity", identity.map(|(text, _)| text));
    let mut snapshot_index = None;
    match consensus::inspect_snapshots(data_dir) {
        Ok(snapshots) if snapshots.is_empty() => report.add("snapshots", Ok("none yet".into())),
        Ok(mut snapshots) => {
            // The newest comes last. The ones before are kept to be looked at.
            let newest = snapshots.pop();
            for spare in snapshots {
                report.add_spare("snapshot", spare.map(|index| format!("up to entry {index}, not the newest")));
            }
            if let Some(newest) = newest {
                snapshot_index = newest.as_ref().ok().copied();
                report.add("snapshot", newest.map(|index| format!("up to entry {index}")));
            }
        }
        Err(error) => report.add("snapshots", Err(error)),
    }
    report.add("log", log(data_dir, member, snapshot_index));
    report.add_spare("history", history::inspect(data_dir));
    report
}

/// Whether this is a directory that can be looked at.
fn directory(data_dir: &Path) -> (State, String) {
    let shown = data_dir.display();
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (State::Nothing, format!("{shown} does not exist")),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return (State::Nothing, format!("{shown} is not a directory")),
        Err(error) => return (State::Nothing, format!("cannot read {shown}: {error}")),
    };
    if identity::in_use(data_dir) {
        return (State::Busy, format!("{shown} is in use by a running tenured: stop it first"));
    }
    if is_a_replicas(data_dir) {
        return (State::Sound, shown.to_string());
    }
    let mut below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_a_replicas(path)).collect();
    below.sort();
    let names: Vec<String> = below.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    match below.first() {
        Some(first) => (State::Nothing, format!("{shown}: no replica's data here ({} lie below; try --data-dir {})", names.join(", "), first.display())),
        None => (State::Nothing, format!("{shown}: no replica's data here")),
    }
}

/// Whether a replica has begun to keep its data there. The history is none of its own marks: it is never there alone.
fn is_a_replicas(dir: &Path) -> bool {
    ["identity.json", "raft-log", "raft-log.synced", "snapshots"].iter().any(|name| dir.join(name).exists())
}

fn log(data_dir: &Path, member: bool, snapshot_index: Option<u64>) -> anyhow::Result<String> {
    let found = consensus::inspect_log(data_dir, member, snapshot_index)?;
    let end = found.end();
    let last = end.last.map_or_else(|| "no entry".to_owned(), |last| format!("entry {} of term {}", last.index, last.term));
    let vote = end.vote.map_or_else(|| "no vote".to_owned(), |vote| format!("vote for node {} in term {}", vote.node, vote.term));
    let mut text = format!(
        "{} records in {} files, {} entries after the snapshot, ends at byte {} with {last} and {vote}",
        found.records, found.files, found.entries_after_snapshot, end.end
    );
    if found.torn_bytes > 0 {
        // Nobody was told that it is there: the next start drops it.
        text.push_str(&format!(", and {} bytes of an unfinished write at the end", found.torn_bytes));
    }
    if let Some(why) = found.contradiction() {
        text.push_str(&format!("; {why}. Start this version: it goes on from there by itself"));
    }
    Ok(text)
}
