//! Many runs, each in a process of its own, and a table of what came of them.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use anyhow::Context as _;

use super::{Scenario, all};

/// Exit code of a run that needs what this machine does not have.
pub const SKIPPED: u8 = 3;

/// What is run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// In this order.
    pub scenarios: Vec<&'static Scenario>,
    /// How often.
    pub times: u64,
    /// Of the first run; the others count up.
    pub seed: u64,
    /// How long things go wrong in each.
    pub seconds: u64,
    /// Replicas.
    pub replicas: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    numbers: [u64; 4],
}

/// Numbers that are added up, as [`super::Summary`] names them.
const ADDED: [&str; 4] = ["operations", "faults", "checks", "violations"];

impl Tally {
    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        for (sum, number) in self.numbers.iter_mut().zip(other.numbers) {
            *sum += number;
        }
    }
}

impl Campaign {
    /// Runs everything, prints each run's line as it comes and the table at the end; whether nothing failed.
    pub fn run(&self) -> anyhow::Result<bool> {
        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        for time in 0..self.times {
            for scenario in &self.scenarios {
                let tally = self.one(scenario, self.seed + time)?;
                tallies.entry(scenario.name).or_default().add(&tally);
            }
        }
        println!(
            "\n{:<30} {:>6} {:>6} {:>7} {:>10} {:>7} {:>9} {:>10}",
            "scenario", "passed", "failed", "skipped", "operations", "faults", "checks", "violations"
        );
        let mut total = Tally::default();
        for scenario in all() {
            let Some(tally) = tallies.get(scenario.name) else { continue };
            let Tally { passed, failed, skipped, numbers: [operations, faults, checks, violations] } = tally;
            println!("{:<30} {passed:>6} {failed:>6} {skipped:>7} {operations:>10} {faults:>7} {checks:>9} {violations:>10}", scenario.name);
            total.add(tally);
        }
        let Tally { passed, failed, skipped, numbers: [operations, faults, checks, violations] } = total;
        println!(
            "chaos: {} scenarios {} times: {passed} passed, {failed} failed, {skipped} skipped; {operations} operations, {faults} faults, {checks} checks, {violations} violations",
            tallies.len(),
            self.times
        );
        Ok(failed == 0)
    }

    fn one(&self, scenario: &Scenario, seed: u64) -> anyhow::Result<Tally> {
        let (seed, seconds, replicas) = (seed.to_string(), self.seconds.to_string(), self.replicas.to_string());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run", scenario.name, "--seed", &seed, "--seconds", &seconds, "--replicas", &replicas]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start a run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().unwrap_or_default();
        let mut tally = Tally::default();
        match output.status.code() {
            Some(0) => tally.passed = 1,
            Some(code) if code == i32::from(SKIPPED) => tally.skipped = 1,
            _ => tally.failed = 1,
        }
        for (sum, name) in tally.numbers.iter_mut().zip(ADDED) {
            let value = line.split(' ').filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name);
            *sum = value.and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
        }
        // All of it where it matters.
        println!("{}", if tally.failed > 0 { text.trim_end() } else { line });
        Ok(tally)
    }
}
