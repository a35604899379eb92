//! The search for every bug that there is on purpose: seed after seed, each in a process of its own, until one finds it. And some without any bug,
//! which must find nothing.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, ensure};

use crate::{
    bugs::{self, BUGS, Bug, FoundBy},
    verdict::{BROKEN, MARK},
};

/// Seeds that make no mistake, to show that it is not the build that is found.
const INNOCENT: u64 = 4;

/// What came of looking for one.
struct Hunted {
    bug: &'static Bug,
    /// What found it, if anything did.
    by: Option<String>,
    /// The seed that did; 0: none.
    seed: u64,
    seeds: u64,
    most: u64,
}

/// Looks for all, each within its number of seeds or `within`, beginning with those that are known to find it.
///
/// # Errors
/// This build does not have them, or a process cannot be started.
pub(crate) fn run(jobs: usize, within: Option<u64>, known: Option<&Path>) -> anyhow::Result<bool> {
    ensure!(cfg!(feature = "bugs"), "this build has not all bugs: cargo run -p tenure-sim --features bugs -- --bugs");
    let known = known.map(bugs::known).transpose()?.unwrap_or_default();
    let (next, hunted) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let result = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    while let Some(bug) = BUGS.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let first = known.iter().filter(|(name, _)| name == bug.name).map(|(_, seed)| *seed);
                        let one = hunt(bug, first.collect(), within)?;
                        eprintln!("{}", one.text());
                        hunted.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    }
                    Ok(())
                })
            })
            .collect();
        // A panic comes out at the end of the scope.
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
    });
    result?;
    let mut hunted = hunted.into_inner().unwrap_or_else(PoisonError::into_inner);
    hunted.sort_by_key(|one| BUGS.iter().position(|bug| bug.name == one.bug.name));
    let mut innocent = 0;
    for seed in 1..=INNOCENT {
        innocent += u64::from(broken(&seed_with(None, seed)?).is_some());
    }
    Ok(tell(&hunted, innocent))
}

fn hunt(bug: &'static Bug, first: Vec<u64>, within: Option<u64>) -> anyhow::Result<Hunted> {
    let most = match bug.found_by {
        FoundBy::LeaseTest(test) => return lease_test(bug, test),
        FoundBy::Seeds(most) => within.unwrap_or(most),
    };
    let mut seeds = 0;
    for seed in first.iter().copied().chain((1..).filter(|seed| !first.contains(seed))).take(usize::try_from(most)?) {
        seeds += 1;
        if let Some(by) = broken(&seed_with(Some(bug), seed)?) {
            return Ok(Hunted { bug, by: Some(by), seed, seeds, most });
        }
    }
    Ok(Hunted { bug, by: None, seed: 0, seeds, most })
}

fn seed_with(bug: Option<&Bug>, seed: u64) -> anyhow::Result<Output> {
    let mut command = Command::new(std::env::current_exe().context("who am I?")?);
    command.args(["--seed", &seed.to_string()]);
    if let Some(bug) = bug {
        command.args(["--bug", bug.name]);
    }
    command.output().context("cannot start a run")
}

/// Which rules and properties a run says were broken; `None`: all was well.
fn broken(run: &Output) -> Option<String> {
    if run.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&run.stdout);
    let said = text.lines().filter_map(|line| line.strip_prefix(MARK)).flat_map(|line| line.split(';')).find_map(|part| part.strip_prefix(BROKEN));
    Some(said.unwrap_or("a run that broke off").to_owned())
}

/// A build of its own: the lease table is small.
fn lease_test(bug: &'static Bug, test: &str) -> anyhow::Result<Hunted> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["test", "--locked", "-p", "tenure-lease", "--features", bug.name, "--test", "rules", "--", "--exact", test]);
    let output = command.output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let counted = |result: &str| text.lines().any(|line| line.starts_with(result));
    ensure!(counted("running 1 test"), "{command:?} did not run its test:\n{}", String::from_utf8_lossy(&output.stderr));
    let by = counted("test result: FAILED").then(|| format!("test {}", test.rsplit("::").next().unwrap_or(test)));
    Ok(Hunted { bug, by, seed: 0, seeds: 0, most: 0 })
}

impl Hunted {
    fn text(&self) -> String {
        let Self { bug, by, seed, seeds, most } = self;
        match (by, seeds) {
            (Some(by), 0) => format!("{}: found by {by}", bug.name),
            (Some(by), _) => format!("{}: found by {by} at seed {seed}, the {seeds}. of {most}", bug.name),
            (None, _) => format!("{}: NOT FOUND within {seeds} seeds", bug.name),
        }
    }
}

fn tell(hunted: &[Hunted], innocent: u64) -> bool {
    println!("| bug | what it does | found by | seed | seeds until then | at most |\n|---|---|---|---|---|---|");
    for Hunted { bug, by, seed, seeds, most } in hunted {
        let by = by.as_deref().unwrap_or("NOTHING");
        match bug.found_by {
            FoundBy::Seeds(_) => println!("| `{}` | {} | {by} | {seed} | {seeds} | {most} |", bug.name, bug.what),
            FoundBy::LeaseTest(_) => println!("| `{}` | {} | {by} | – | – | – |", bug.name, bug.what),
        }
    }
    let found = hunted.iter().filter(|one| one.by.is_some()).count();
    let seeds: u64 = hunted.iter().map(|one| one.seeds).sum();
    println!("{} bugs, {found} found in {seeds} seeds; {INNOCENT} seeds without a bug, {innocent} of them with violations", hunted.len());
    found == hunted.len() && innocent == 0
}
