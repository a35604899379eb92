//! What came of a run: figures, the yardstick that they are held against, and the table.

use std::time::Duration;

use serde::Serialize;

use super::{Expect, Scenario};

/// The slowest renewal of the bystander.
pub(super) const WORST: Duration = Duration::from_millis(250);
/// Of a replica, above what it has when all is quiet.
pub(super) const MEMORY_MIB: u64 = 512;
/// From the end of the attack until a new client is served by every replica.
pub(super) const BACK_WITHIN: Duration = Duration::from_secs(2);
/// The same where replicas have to be started again first.
pub(super) const RESTARTED_WITHIN: Duration = Duration::from_secs(10);
/// Of a data directory, above what it has when all is quiet; only of runs in which peers send files.
pub(super) const DISK_MIB: u64 = 512;

/// What was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// The bystander's slowest renewal before the attack, in milliseconds: what this machine does by itself.
    pub quiet_worst_ms: u64,
    /// The bystander's median renewal during the attack and for a while after it, in milliseconds.
    pub median_ms: u64,
    /// The bystander's slowest call in the same time, failed ones too, in milliseconds.
    pub worst_ms: u64,
    /// Calls of the bystander in the same time.
    pub calls: usize,
    /// Those without an answer that is worth something within their deadline.
    pub failed: usize,
    /// Leases that the bystander lost.
    pub lost: u64,
    /// Memory of each replica before the attack, in MiB.
    pub quiet_mib: Vec<u64>,
    /// The most that a replica took above that, in MiB.
    pub above_mib: u64,
    /// The most that a data directory grew, in MiB.
    pub disk_mib: u64,
    /// Seconds from the end of the attack until new clients could acquire and renew through every replica; none: not within the patience of the run.
    pub back_s: Option<f64>,
    /// Processes that ended though nobody had told them to.
    pub ended: usize,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Of the table of attacks.
    pub row: String,
    /// Of the scenario.
    pub name: String,
    /// See there.
    pub figures: Figures,
    /// What the attacking process counted.
    pub told: String,
    /// What else is worth knowing.
    pub remarks: Vec<String>,
    /// What is not as it must be.
    pub wrong: Vec<String>,
    /// Why it was not run.
    pub skipped: Option<String>,
}

impl Row {
    pub(super) fn of(scenario: &Scenario) -> Self {
        Self { row: scenario.row.into(), name: scenario.name.into(), ..Self::default() }
    }

    /// Nothing is wrong.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.wrong.is_empty()
    }

    /// In a word.
    #[must_use]
    pub const fn verdict(&self) -> &'static str {
        match (self.skipped.is_some(), self.passed()) {
            (true, _) => "SKIP",
            (false, true) => "PASS",
            (false, false) => "FAIL",
        }
    }

    /// Holds the figures against what the scenario expects.
    pub(super) fn judge(&mut self, scenario: &Scenario) {
        self.hold_against(scenario.expect);
        let disk_mib = self.figures.disk_mib;
        if scenario.setup.disk_is_bounded && disk_mib > DISK_MIB {
            self.wrong.push(format!("a data directory grew by {disk_mib} MiB, allowed {DISK_MIB} MiB"));
        }
    }

    fn hold_against(&mut self, expect: Expect) {
        let Figures { worst_ms, failed, lost, above_mib, back_s, ended, calls, .. } = self.figures;
        let mut demand = |holds: bool, what: String| {
            if !holds {
                self.wrong.push(what);
            }
        };
        let majority = expect != Expect::NoMajority;
        if majority {
            demand(calls > 0, "the bystander made no call".into());
            demand(u128::from(worst_ms) <= WORST.as_millis(), format!("slowest renewal {worst_ms} ms, allowed {} ms", WORST.as_millis()));
            demand(failed == 0, format!("{failed} of {calls} renewals failed"));
            demand(lost == 0, format!("{lost} leases lost"));
        }
        demand(above_mib <= MEMORY_MIB, format!("a replica took {above_mib} MiB above quiet, allowed {MEMORY_MIB} MiB"));
        if !matches!(expect, Expect::VictimsMayStop | Expect::NoMajority) {
            demand(ended == 0, format!("{ended} processes ended"));
        }
        let within = if matches!(expect, Expect::VictimsMayStop | Expect::NoMajority) { RESTARTED_WITHIN } else { BACK_WITHIN };
        match back_s {
            Some(seconds) => demand(seconds <= within.as_secs_f64(), format!("service back after {seconds:.1} s, allowed {within:?}")),
            None => demand(false, "service did not come back".into()),
        }
    }

    fn line(&self) -> String {
        let Figures { worst_ms, failed, lost, above_mib, back_s, ended, .. } = self.figures;
        let back = back_s.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.1}"));
        let Self { row, name, .. } = self;
        format!("{row:<4} {name:<26} {worst_ms:>9} {failed:>7} {lost:>5} {above_mib:>8} {back:>7} {ended:>6}  {}", self.verdict())
    }
}

/// For people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:<4} {:<26} {:>9} {:>7} {:>5} {:>8} {:>7} {:>6}\n{:<4} {:<26} {:>9} {:>7} {:>5} {:>8} {:>7} {:>6}\n",
        "row", "attack", "worst", "failed", "lost", "RSS", "back", "ended", "", "", "ms", "calls", "", "+MiB", "s", ""
    );
    for row in rows {
        text.push_str(&row.line());
        text.push('\n');
        for wrong in &row.wrong {
            text.push_str(&format!("       {wrong}\n"));
        }
        if let Some(why) = &row.skipped {
            text.push_str(&format!("       {why}\n"));
        }
    }
    let count = |verdict| rows.iter().filter(|row| row.verdict() == verdict).count();
    text.push_str(&format!("abuse: {} attacks: {} passed, {} failed, {} skipped\n", rows.len(), count("PASS"), count("FAIL"), count("SKIP")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures { worst_ms: 20, calls: 100, above_mib: 10, back_s: Some(0.1), ..Figures::default() }
    }

    fn wrong(expect: Expect, figures: Figures) -> Vec<String> {
        let mut row = Row { figures, ..Row::default() };
        row.hold_against(expect);
        row.wrong
    }

    #[test]
    fn each_figure_beyond_the_yardstick_fails_the_row() {
        assert!(wrong(Expect::Yardstick, good()).is_empty());
        for bad in [
            Figures { worst_ms: 251, ..good() },
            Figures { failed: 1, ..good() },
            Figures { lost: 1, ..good() },
            Figures { above_mib: 513, ..good() },
            Figures { back_s: Some(2.1), ..good() },
            Figures { back_s: None, ..good() },
            Figures { ended: 1, ..good() },
            Figures { calls: 0, ..good() },
        ] {
            assert_eq!(wrong(Expect::Yardstick, bad.clone()).len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn replicas_that_were_hurt_may_stop_and_must_come_back() {
        assert!(wrong(Expect::VictimsMayStop, Figures { ended: 1, back_s: Some(5.0), ..good() }).is_empty());
        assert_eq!(wrong(Expect::VictimsMayStop, Figures { failed: 1, ..good() }).len(), 1);
        assert!(wrong(Expect::NoMajority, Figures { failed: 9, lost: 3, ended: 2, back_s: Some(5.0), ..good() }).is_empty());
        assert_eq!(wrong(Expect::NoMajority, Figures { back_s: None, ..good() }).len(), 1);
    }
}
