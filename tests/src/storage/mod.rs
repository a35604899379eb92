//! What happens to acknowledged data when storage fails: `cargo run -p tenure-tests --bin storage`, and bounded in `tests/storage.rs`.
//!
//! Each layer has rounds; a round follows from its seed as far as real processes allow, finds a violation or does not, and counts what it did.

pub mod damage;
pub mod enospc;
pub mod failpoints;
pub mod load;
pub mod offline;
pub mod points;
pub mod powerloss;
pub mod quorum;
pub mod slow;
pub mod syscalls;
pub mod terms;
pub mod tracer;
pub mod verdict;

use std::{fmt, str::FromStr, time::Duration};

use crate::clock::{self, Rng};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The process dies at a named place.
    Failpoints,
    /// Bits of files change.
    Bitflips,
    /// Files are cut, gone, doubled, swapped, old.
    Truncation,
    /// A system call on the disk fails, or is the last thing that the process does.
    Eio,
    /// The disk is full.
    Enospc,
    /// An fsync takes half a minute.
    Slow,
    /// What was not synced is gone.
    Powerloss,
}

/// All of them.
pub const LAYERS: [Layer; 7] = [Layer::Failpoints, Layer::Bitflips, Layer::Truncation, Layer::Eio, Layer::Enospc, Layer::Slow, Layer::Powerloss];

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failpoints => "failpoints",
            Self::Bitflips => "bitflips",
            Self::Truncation => "truncation",
            Self::Eio => "eio",
            Self::Enospc => "enospc",
            Self::Slow => "slow",
            Self::Powerloss => "powerloss",
        })
    }
}

impl FromStr for Layer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        LAYERS.into_iter().find(|layer| layer.to_string() == text).ok_or_else(|| format!("no layer {text:?}"))
    }
}

impl Layer {
    /// Rounds unless somebody says otherwise: each thing that there is to fail fails once at least.
    #[must_use]
    pub fn rounds(self) -> u64 {
        match self {
            Self::Failpoints => points::POINTS.len() as u64,
            Self::Eio => syscalls::CASES.len() as u64,
            Self::Bitflips | Self::Truncation => 4,
            Self::Enospc | Self::Powerloss => 6,
            Self::Slow => 2,
        }
    }

    async fn round(self, round: &mut Round) -> anyhow::Result<()> {
        match self {
            Self::Failpoints => failpoints::round(round).await,
            Self::Bitflips | Self::Truncation => {
                offline::round(round, self, 150).await?;
                quorum::round(round, self, 6).await
            }
            Self::Eio => syscalls::round(round).await,
            Self::Enospc => enospc::round(round).await,
            Self::Slow => slow::round(round).await,
            Self::Powerloss => powerloss::round(round).await,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Rounds.
    pub rounds: u64,
    /// Of them, those that this machine does not allow.
    pub skipped: u64,
    /// Acknowledged calls.
    pub operations: u64,
    /// Kills, failed system calls, damaged directories.
    pub faults: u64,
    /// Starts that were refused, as they should be.
    pub refused: u64,
    /// Starts, or verdicts of `tenured check`, with nothing lost.
    pub recovered: u64,
    /// What must not be.
    pub violations: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.skipped += other.skipped;
        self.operations += other.operations;
        self.faults += other.faults;
        self.refused += other.refused;
        self.recovered += other.recovered;
        self.violations += other.violations;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, skipped, operations, faults, refused, recovered, violations } = self;
        write!(f, "{rounds} rounds ({skipped} skipped), {operations} operations, {faults} faults, {refused} refused starts, {recovered} recovered, ")?;
        write!(f, "{violations} violations")
    }
}

/// A round under way.
#[derive(Debug)]
pub struct Round {
    /// From which all its choices follow.
    pub seed: u64,
    /// Its choices.
    pub rng: Rng,
    /// What it did.
    pub counts: Counts,
    /// What it chose, for people.
    pub what: String,
}

impl Round {
    /// With a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not make neighbouring choices.
        Self { seed, rng: Rng::of(Rng::of(seed).bits()), counts: Counts::default(), what: String::new() }
    }
}

/// This machine does not allow it.
#[derive(Debug)]
pub struct Skipped(pub String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not possible on this machine: {}", self.0)
    }
}

impl std::error::Error for Skipped {}

/// Longer than any round takes; a hang is a violation.
const ROUND: Duration = Duration::from_secs(600);

/// Runs rounds of a layer, one after the other, and says what each did. Begins none after `within`.
pub async fn campaign(layer: Layer, seed: u64, rounds: u64, within: Option<Duration>) -> Counts {
    let begun = clock::now();
    let mut counts = Counts::default();
    for seed in seed..seed + rounds {
        if within.is_some_and(|within| clock::since(begun) > within) {
            println!("{layer}: time is up");
            break;
        }
        counts += one(layer, seed).await;
    }
    println!("{layer}: {counts}");
    counts
}

/// Runs one round, and prints how it went.
pub async fn one(layer: Layer, seed: u64) -> Counts {
    let (begun, mut round) = (clock::now(), Round::new(seed));
    let result = tokio::time::timeout(ROUND, layer.round(&mut round)).await;
    round.counts.rounds = 1;
    let took = clock::since(begun).as_secs_f64();
    let what = &round.what;
    match result {
        Ok(Ok(())) => println!("{layer} {seed}: {what}: {} operations, {} faults, {took:.1} s", round.counts.operations, round.counts.faults),
        Ok(Err(error)) if error.is::<Skipped>() => {
            round.counts.skipped = 1;
            println!("{layer} {seed}: {what}: SKIPPED, {error:#}");
        }
        other => {
            round.counts.violations = 1;
            let why = other.map_or_else(|_| format!("it hangs: not done after {ROUND:?}"), |result| format!("{:#}", result.expect_err("is an error")));
            println!("{layer} {seed}: {what}: VIOLATION: {why}");
            println!("again: cargo run -p tenure-tests --bin storage -- --layer {layer} --seed {seed} --rounds 1");
        }
    }
    round.counts
}
