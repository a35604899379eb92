//! `tenured check`: looks at a data directory while no replica uses it, and says whether a replica would start from it. It reads; it never
//! repairs, and never changes a byte.

use std::{fmt, path::Path};

use crate::{consensus, history, identity};

/// What was found, part by part.
#[derive(Clone, Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

#[derive(Clone, Debug)]
struct Finding {
    part: &'static str,
    sound: bool,
    /// A replica does not start without it.
    needed: bool,
    text: String,
}

impl Report {
    /// Whether nothing was damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.sound)
    }

    /// Whether a replica would start from here. What it can do without may be damaged.
    #[must_use]
    pub fn starts(&self) -> bool {
        self.findings.iter().all(|finding| finding.sound || !finding.needed)
    }

    /// Of what a replica starts with all the same.
    fn add_spare(&mut self, part: &'static str, result: anyhow::Result<String>) {
        self.add(part, result);
        self.findings.iter_mut().last().expect("was just added").needed = false;
    }

    fn add(&mut self, part: &'static str, result: anyhow::Result<String>) {
        let sound = result.is_ok();
        let text = result.unwrap_or_else(|error| format!("{error:#}"));
        self.findings.push(Finding { part, sound, needed: true, text });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{:<10} {:<8} {}", finding.part, if finding.sound { "sound" } else { "DAMAGED" }, finding.text)?;
        }
        let verdict = match (self.is_sound(), self.starts()) {
            (true, _) => "everything is sound",
            (false, true) => "a replica starts from it: it can do without what is damaged",
            (false, false) => "a replica would refuse to start from it",
        };
        writeln!(f, "{:<10} {:<8} {verdict}", "verdict", if self.starts() { "starts" } else { "REFUSED" })
    }
}

/// Looks at everything in a data directory. Meant for one that no replica uses: a running one's is refused.
#[must_use]
pub fn data_dir(data_dir: &Path) -> Report {
    let mut report = Report::default();
    report.add("directory", directory(data_dir));
    if !report.is_sound() {
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

fn directory(data_dir: &Path) -> anyhow::Result<String> {
    anyhow::ensure!(data_dir.is_dir(), "{} is not a directory", data_dir.display());
    identity::assert_unused(data_dir)?;
    Ok(data_dir.display().to_string())
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
        text.push_str(&format!("; {why}: the next start goes on from it by itself"));
    }
    Ok(text)
}
