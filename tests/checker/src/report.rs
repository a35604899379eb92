//! The verdict on a history: every property, how often it was put to the test, and what contradicts it.

use std::fmt;

use serde::Serialize;

use crate::{
    facts::Facts,
    findings::{Findings, Violation},
    history::History,
    properties::ALL,
};

/// What was found about each property.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the run.
    pub name: String,
    /// That reproduces it; 0: none.
    pub seed: u64,
    /// Operations in the history.
    pub operations: usize,
    /// Those of which nobody knows what came.
    pub unknown: usize,
    /// Committed changes in the witness.
    pub changes: usize,
    /// Faults.
    pub faults: usize,
    /// Property by property.
    pub lines: Vec<Line>,
}

/// One property.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its short name.
    pub id: &'static str,
    /// What it says.
    pub claim: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub findings: Findings,
}

/// Checks a history against every property.
#[must_use]
pub fn judge(history: &History) -> Report {
    let facts = Facts::of(history);
    let lines = ALL.iter().map(|property| {
        let mut findings = Findings::default();
        (property.check)(&facts, &mut findings);
        Line { id: property.id, claim: property.claim, findings }
    });
    Report {
        lines: lines.collect(),
        operations: facts.ops.len(),
        unknown: facts.ops.iter().filter(|op| op.to == u64::MAX).count(),
        changes: facts.witness.changes.len(),
        faults: facts.faults.len(),
        name: facts.meta.name,
        seed: facts.meta.seed,
    }
}

impl Report {
    /// All violations.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.lines.iter().map(|line| line.findings.violated).sum()
    }

    /// How often any property was put to the test.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.lines.iter().map(|line| line.findings.checked).sum()
    }

    /// How often this property was put to the test; 0 if there is no such property.
    #[must_use]
    pub fn checked_of(&self, id: &str) -> u64 {
        self.lines.iter().filter(|line| line.id == id).map(|line| line.findings.checked).sum()
    }

    /// The violations that are told in words, with their property.
    pub fn told(&self) -> impl Iterator<Item = (&'static str, &Violation)> {
        self.lines.iter().flat_map(|line| line.findings.violations.iter().map(|violation| (line.id, violation)))
    }

    /// As JSON, for machines.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data with string keys")
    }
}

/// The table, the violations in words, and a last line with counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            let Findings { checked, violated, note, .. } = &line.findings;
            let verdict = match (checked, violated) {
                (_, 1..) => format!("{violated} VIOLATED"),
                (0, 0) => format!("nothing to check{}", note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default()),
                _ => format!("holds{}", note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default()),
            };
            writeln!(f, "{:<10} {:<95} {checked:>9}  {verdict}", line.id, line.claim)?;
        }
        for (id, violation) in self.told() {
            writeln!(f, "{id} at {} {}: {}", violation.at, violation.lease, violation.text)?;
        }
        let silent = self.lines.iter().filter(|line| line.findings.checked == 0).count();
        write!(
            f,
            "{} seed {}: {} operations ({} unknown), {} changes, {} faults, {} checks of {} properties ({silent} had nothing to check), {} violations",
            self.name,
            self.seed,
            self.operations,
            self.unknown,
            self.changes,
            self.faults,
            self.checked(),
            self.lines.len(),
            self.violations()
        )
    }
}
