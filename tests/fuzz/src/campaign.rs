//! The loop: choose an input, mutate it, run it, keep it if it reached something new, take down what it broke.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    Target, Violation, clock, corpus,
    coverage::{Coverage, News},
    mutate::mutate,
    run,
};

/// An input that takes longer is a finding that no verdict can tell: the process is ended, and the input is in `current`.
const HANGS_AFTER: Duration = Duration::from_secs(120);
/// Attempts to make what broke something smaller.
const SHRINKS: usize = 3_000;

/// How long to go on with a target.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// So many mutated inputs.
    Inputs(u32),
    /// So long.
    Time(Duration),
}

/// What a campaign has done.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Run, those of the corpus included.
    pub inputs: u64,
    /// Of these, taken for valid.
    pub taken: u64,
    /// Kept because they reached something new.
    pub kept: u64,
    /// Branches taken, of those that count; both 0 without counters.
    pub branches: (usize, usize),
    /// What was broken, by place, each with the smallest input known for it.
    pub violations: BTreeMap<String, (Violation, Vec<u8>)>,
}

/// One target's campaign, in this thread.
pub struct Campaign<'a> {
    target: &'a Target,
    rng: SmallRng,
    coverage: Coverage,
    pool: Vec<Vec<u8>>,
    tally: Tally,
    /// Where to write what is about to be run, and what was kept.
    scratch: Option<(PathBuf, fs::File)>,
    begun: Arc<AtomicU64>,
}

impl<'a> Campaign<'a> {
    /// Runs the corpus. With `leaving`, what is found is left in the scratch folder, and an input that kills the process too.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin(target: &'a Target, seed: u64, leaving: bool) -> io::Result<Self> {
        let mut inputs = corpus::load(&corpus::committed(target))?;
        let scratch = if leaving {
            let folder = corpus::scratch(target);
            inputs.extend(corpus::load(&folder)?);
            fs::create_dir_all(&folder)?;
            Some((folder.clone(), fs::File::create(folder.with_extension("current"))?))
        } else {
            None
        };
        let rng = SmallRng::seed_from_u64(seed);
        let begun = Arc::default();
        let mut campaign = Self { target, rng, coverage: Coverage::new(), pool: Vec::new(), tally: Tally::default(), scratch, begun };
        campaign.tally.branches.1 = campaign.coverage.counted();
        for input in inputs {
            campaign.one(&input.bytes);
            campaign.pool.push(input.bytes);
        }
        if campaign.pool.is_empty() {
            campaign.pool.push(Vec::new());
        }
        Ok(campaign)
    }

    /// Goes on until the budget is spent.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn go_on(mut self, budget: Budget) -> io::Result<Tally> {
        let until = clock::now() + if let Budget::Time(time) = budget { time } else { Duration::MAX / 2 };
        let watched = self.scratch.is_some().then(|| watchdog(&self.begun));
        for n in 0_u64.. {
            let spent = match budget {
                Budget::Inputs(most) => n >= u64::from(most),
                // A look at the clock costs as much as a small input.
                Budget::Time(_) => n % 16 == 0 && clock::now() >= until,
            };
            if spent {
                break;
            }
            let (parent, other) = (self.choose(), self.rng.random_range(0..self.pool.len()));
            let input = mutate(self.target, &self.pool[parent], &self.pool[other], &mut self.rng);
            self.coverage.clear();
            let broke = self.one(&input);
            if !broke && self.coverage.news() > News::None {
                self.tally.kept += 1;
                if let Some((folder, _)) = &self.scratch {
                    corpus::save(folder, "seen", &input)?;
                }
                self.pool.push(input);
            }
        }
        drop(watched);
        self.tally.branches.0 = self.coverage.taken();
        if let Some((folder, _)) = &self.scratch {
            fs::remove_file(folder.with_extension("current"))?;
        }
        Ok(self.tally)
    }

    /// The latest have been mutated least.
    fn choose(&mut self) -> usize {
        let from = if self.rng.random() { self.pool.len().saturating_sub(32) } else { 0 };
        self.rng.random_range(from..self.pool.len())
    }

    /// Whether it broke something.
    fn one(&mut self, input: &[u8]) -> bool {
        if let Some((_, current)) = &self.scratch {
            // Kept by the system when this process dies of it. What cannot be written is not needed yet.
            let _ = current.set_len(input.len() as u64).and_then(|()| current.write_all_at(input, 0));
            self.begun.store(u64::try_from(clock::now().as_millis()).unwrap_or(u64::MAX), Relaxed);
        }
        self.tally.inputs += 1;
        let verdict = run(self.target, input);
        self.begun.store(0, Relaxed);
        match verdict {
            Ok(taken) => {
                self.tally.taken += u64::from(taken);
                false
            }
            Err(violation) => {
                if !self.tally.violations.contains_key(&violation.place) {
                    let smallest = shrunk(self.target, input, &violation);
                    self.tally.violations.insert(violation.place.clone(), (violation, smallest));
                }
                true
            }
        }
    }
}

/// The same mistake with less.
fn shrunk(target: &Target, input: &[u8], violation: &Violation) -> Vec<u8> {
    let mut smallest = input.to_vec();
    let mut attempts = 0;
    let mut piece = smallest.len().div_ceil(2);
    while piece > 0 && attempts < SHRINKS {
        let mut at = 0;
        while at < smallest.len() && attempts < SHRINKS {
            let mut less = smallest.clone();
            less.drain(at..(at + piece).min(less.len()));
            attempts += 1;
            if run(target, &less).is_err_and(|other| other.place == violation.place) {
                smallest = less;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    smallest
}

/// Ends the process when an input hangs; until what is returned is dropped.
fn watchdog(begun: &Arc<AtomicU64>) -> mpsc::Sender<()> {
    let (over, is_over) = mpsc::channel();
    let begun = Arc::clone(begun);
    std::thread::spawn(move || {
        while is_over.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
            let since = begun.load(Relaxed);
            if since != 0 && clock::now().saturating_sub(Duration::from_millis(since)) > HANGS_AFTER {
                eprintln!("an input has run for {HANGS_AFTER:?}: it is in the file `….current`");
                std::process::abort();
            }
        }
    });
    over
}

/// The fewest inputs, small ones first, that take every branch that all of them take.
#[must_use]
pub fn distilled(target: &Target, mut inputs: Vec<corpus::Input>) -> Vec<corpus::Input> {
    // What is committed stays, so it comes first.
    inputs.sort_by_key(|input| (input.name.starts_with("seen-"), input.bytes.len()));
    let mut coverage = Coverage::new();
    inputs.retain(|input| {
        coverage.clear();
        let sound = run(target, &input.bytes).is_ok();
        sound && (coverage.news() == News::Branch || !input.name.starts_with("seen-"))
    });
    inputs
}
