//! `tenure-sim`: whole clusters in one process, in simulated time. A seed says everything; the same seed gives the same run, to the byte.
//!
//! The servers, openraft, tonic and the SDK are the real ones. Network, disk, clocks and randomness are not.

mod admin;
mod asking;
mod campaign;
mod client;
mod clock;
mod convert;
mod disk;
mod faults;
mod net;
mod observer;
mod plan;
mod replica;
mod run;
mod trace;
mod verdict;
mod world;

use std::{ops::Range, path::PathBuf, process::ExitCode};

use clap::Parser;

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
    /// With `--seeds`: processes at a time.
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
    let args = Args::parse();
    let result = match (args.seed, args.seeds, args.regressions) {
        (Some(seed), _, _) => one(seed, args.verbose, args.trace.as_deref(), args.history),
        (_, Some(seeds), _) => campaign::run(seeds.collect(), args.jobs, args.within, true),
        (_, _, Some(file)) => campaign::listed(&file).and_then(|seeds| campaign::run(seeds, args.jobs, args.within, false)),
        _ => unreachable!("one of the group is required"),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tenure-sim: {error:#}");
            ExitCode::FAILURE
        }
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
