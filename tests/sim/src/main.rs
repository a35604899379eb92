//! `tenure-sim`: whole clusters in one process, in simulated time. A seed says everything; the same seed gives the same run, to the byte.
//!
//! The servers, openraft, tonic and the SDK are the real ones. Network, disk, clocks and randomness are not.

mod admin;
mod asking;
mod bugs;
mod campaign;
mod client;
mod clock;
mod convert;
mod direct;
mod disk;
mod entry;
mod faults;
mod hunt;
mod net;
mod observer;
mod panics;
mod plan;
mod reading;
mod replica;
mod run;
mod trace;
mod trap;
mod verdict;
mod world;

use std::{ops::Range, path::PathBuf, process::ExitCode};

use clap::Parser;

// As in `tenured`. A tenth of a run is allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs one seed, or many, each in a process of its own.
#[derive(Parser)]
#[command(group = clap::ArgGroup::new("what").required(true))]
struct Args {
    /// Run this seed. Fails if anything was violated.
    #[arg(long, group = "what")]
    seed: Option<u64>,
    /// Run these seeds, `A..B`, B excluded, each in a process of its own. Fails if one fails, or if all together missed something that must be seen.
    #[arg(long, group = "what", value_parser = campaign::range)]
    seeds: Option<Range<u64>>,
    /// Run the seeds of a file, one a line; what follows a `#` is for people.
    #[arg(long, group = "what")]
    regressions: Option<PathBuf>,
    /// Make each of the mistakes that there are on purpose, and run seeds until one finds it. Fails if one is not found. Needs `--features bugs`.
    #[arg(long, group = "what")]
    bugs: bool,
    /// With `--seed` or `--seeds`: make this mistake. Needs `--features bugs`, or that of its name.
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// With `--bugs`: so many seeds at most for each, instead of its own number.
    #[arg(long, value_name = "N")]
    within_seeds: Option<u64>,
    /// With `--bugs`: begin with the seeds of this file, of lines of a bug's name and a seed.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// With `--seeds` or `--bugs`: processes at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// With `--seeds`: begin no seed after so many seconds.
    #[arg(long)]
    within: Option<u64>,
    /// With `--seed`: log lines of all replicas and clients.
    #[arg(long)]
    verbose: bool,
    /// With `--seed`: write every line of the trace there.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// With `--seed`: write the history there. One that was violated is written in any case.
    #[arg(long)]
    history: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tenure-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<bool> {
    if let Some(bug) = &args.bug {
        bugs::choose(bug)?;
    }
    match (args.seed, args.seeds, args.regressions) {
        (Some(seed), _, _) => one(seed, args.verbose, args.trace.as_deref(), args.history),
        (_, Some(seeds), _) => campaign::run(seeds.collect(), args.jobs, args.within, true),
        (_, _, Some(file)) => campaign::listed(&file).and_then(|seeds| campaign::run(seeds, args.jobs, args.within, false)),
        _ => hunt::run(args.jobs, args.within_seeds, args.known.as_deref()),
    }
}

fn one(seed: u64, verbose: bool, trace: Option<&std::path::Path>, history: Option<PathBuf>) -> anyhow::Result<bool> {
    if verbose {
        let quiet = "debug,h2=info,hyper_util=info,tower=info,turmoil=info";
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| quiet.into());
        // On a thread of its own: a hash map made on this one would change the seeds of all that come after it, and so the run.
        let started = std::thread::spawn(|| tracing_subscriber::fmt().without_time().with_env_filter(filter).init()).join();
        anyhow::ensure!(started.is_ok(), "cannot write log lines");
    }
    let run = run::run(seed, trace)?;
    verdict::tell(&run, history)
}
