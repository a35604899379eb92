//! `tenured check`: looks at a data directory while no replica uses it. It reads; it never repairs, and never changes a byte.

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
    text: String,
}

impl Report {
    /// Whether nothing was damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.sound)
    }

    fn add(&mut self, part: &'static str, result: anyhow::Result<String>) {
        let sound = result.is_ok();
        let text = result.unwrap_or_else(|error| format!("{error:#}"));
        self.findings.push(Finding { part, sound, text });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{:<10} {:<8} {}", finding.part, if finding.sound { "sound" } else { "DAMAGED" }, finding.text)?;
        }
        Ok(())
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
        Ok(snapshots) => {
            for snapshot in snapshots {
                // The newest comes last.
                snapshot_index = snapshot.as_ref().ok().copied();
                report.add("snapshot", snapshot.map(|index| format!("up to entry {index}")));
            }
        }
        Err(error) => report.add("snapshots", Err(error)),
    }
    report.add("log", log(data_dir, member, snapshot_index));
    report.add("history", history::inspect(data_dir));
    report
}

fn directory(data_dir: &Path) -> anyhow::Result<String> {
    anyhow::ensure!(data_dir.is_dir(), "{} is not a directory", data_dir.display());
    identity::assert_unused(data_dir)?;
    Ok(data_dir.display().to_string())
}

fn log(data_dir: &Path, member: bool, snapshot_index: Option<u64>) -> anyhow::Result<String> {
    let found = consensus::inspect_log(data_dir, member, snapshot_index)?;
    let mut text = format!("{} records in {} files, {} entries after the snapshot", found.records, found.files, found.entries_after_snapshot);
    if found.torn_bytes > 0 {
        // Nobody was told that it is there: the next start drops it.
        text.push_str(&format!(", and {} bytes of an unfinished write at the end", found.torn_bytes));
    }
    Ok(text)
}
