//! Many seeds, each in a process of its own, some at a time; what they did together; and what none of them ever did.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;

use crate::{bugs, verdict::MARK, world::COVERED};

/// A campaign of this many seeds must have seen everything.
const ENOUGH: usize = 50;

pub(crate) fn range(text: &str) -> Result<Range<u64>, String> {
    let numbers = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.filter(|(a, b)| a < b).map(|(a, b)| a..b).ok_or_else(|| "expected A..B, A below B".into())
}

/// Seeds of a file.
///
/// # Errors
/// It cannot be read, or a line is no seed.
pub(crate) fn listed(file: &Path) -> anyhow::Result<Vec<u64>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let seeds = text.lines().map(|line| line.split('#').next().unwrap_or("").trim()).filter(|line| !line.is_empty());
    seeds.map(|seed| seed.parse().with_context(|| format!("{seed:?} in {} is no seed", file.display()))).collect()
}

#[derive(Default)]
struct Total {
    /// By what a run's line names.
    sums: BTreeMap<String, u64>,
    failed: Vec<u64>,
    done: usize,
}

/// Runs them. `all_seen`: many enough of them must have seen everything that there is to see.
///
/// # Errors
/// A process cannot be started.
pub(crate) fn run(seeds: Vec<u64>, jobs: usize, within: Option<u64>, all_seen: bool) -> anyhow::Result<bool> {
    let (next, total) = (AtomicUsize::new(0), Mutex::new(Total::default()));
    let me = std::env::current_exe().context("who am I?")?;
    let over = std::sync::atomic::AtomicBool::new(false);
    let finished = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        if let Some(within) = within {
            let (over, finished) = (&over, &finished);
            // Counts pauses: this program reads no clock that it replaces.
            scope.spawn(move || {
                for _ in 0..within * 10 {
                    if finished.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(100));
                }
                over.store(true, Ordering::Relaxed);
            });
        }
        let workers: Vec<_> = (0..jobs.max(1))
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed)
                        && let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let output = bugs::passed_on(Command::new(&me)).args(["--seed", &seed.to_string()]).output();
                        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                        total.take(*seed, output, seeds.len());
                    }
                })
            })
            .collect();
        for worker in workers {
            // Its panic comes out at the end of the scope.
            drop(worker.join());
        }
        finished.store(true, Ordering::Relaxed);
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(total.tell(all_seen))
}

impl Total {
    fn take(&mut self, seed: u64, output: std::io::Result<std::process::Output>, of: usize) {
        self.done += 1;
        let (good, text) = match &output {
            Ok(output) => (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))),
            Err(error) => (false, error.to_string()),
        };
        for pair in text.lines().filter_map(|line| line.strip_prefix(MARK)).flat_map(|line| line.split(';')) {
            if let Some((what, times)) = pair.split_once('=')
                && let Ok(times) = times.parse::<u64>()
            {
                *self.sums.entry(what.to_owned()).or_default() += times;
            }
        }
        if !good {
            self.failed.push(seed);
            let lines: Vec<&str> = text.lines().collect();
            println!("seed {seed} FAILED:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        if self.done.is_multiple_of(10) {
            eprintln!("{} of {of} seeds", self.done);
        }
    }

    fn sum(&self, what: &str) -> u64 {
        self.sums.get(what).copied().unwrap_or(0)
    }

    fn tell(&self, all_seen: bool) -> bool {
        let missed: Vec<&str> = COVERED.into_iter().filter(|what| self.sum(what) == 0).collect();
        for what in COVERED {
            println!("{:>9}  {what}", self.sum(what));
        }
        let vacuous = all_seen && self.done >= ENOUGH && !missed.is_empty();
        if vacuous {
            println!("NEVER SEEN: {}. A campaign that misses what it is for has failed", missed.join(", "));
        }
        for seed in &self.failed {
            println!("REPRODUCE WITH: {} --seed {seed} --verbose", bugs::command());
        }
        println!(
            "{} seeds, {} operations, {} changes, {} faults, {} checks, {} simulated s, {} violations, {} seeds failed",
            self.done,
            self.sum("operations"),
            self.sum("changes"),
            self.sum("faults"),
            self.sum("checks"),
            self.sum("simulated_ms") / 1_000,
            self.sum("violations"),
            self.failed.len()
        );
        self.failed.is_empty() && !vacuous && self.done > 0
    }
}
