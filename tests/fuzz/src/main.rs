//! Fuzz campaigns: `cargo run --profile fuzz -p tenure-fuzz -- TARGET|all --seconds N`, or `just fuzz` for one that is guided by coverage.
//!
//! The last line has the counts; the exit code is 1 if anything was broken. What was broken is written to the corpus at once, where it fails
//! `cargo test` until it is mended, and stays for ever. What reached something new is left under the target folder: `--distil` makes the committed
//! corpus of it.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use tenure_fuzz::{
    ALL, Target,
    campaign::{Budget, Campaign, Tally, distilled},
    corpus,
    targets::seeds,
};

/// No corpus gets larger than this by distilling.
const MOST_SEEN: usize = 48;
const LARGEST_SEEN: usize = 1_500;

/// Fuzz campaigns against everything that reads what others send.
#[derive(Parser)]
struct Args {
    /// One of the targets, or all.
    target: String,
    /// For each target.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Repeats a run, as far as a run without a clock can be.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead: put what campaigns have found into the committed corpora, as little of it as reaches everything.
    #[arg(long)]
    distil: bool,
    /// Instead: write the valid inputs that are missing from the committed corpora.
    #[arg(long)]
    seeds: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let targets: Vec<&Target> = ALL.iter().filter(|target| args.target == "all" || args.target == target.name).collect();
    if targets.is_empty() {
        let names: Vec<_> = ALL.iter().map(|target| target.name).collect();
        eprintln!("no target {:?}: they are {}, and all", args.target, names.join(", "));
        return ExitCode::from(2);
    }
    let done = if args.seeds {
        targets.iter().try_for_each(|target| write_seeds(target)).map(|()| true)
    } else if args.distil {
        targets.iter().try_for_each(|target| distil(target)).map(|()| true)
    } else {
        fuzz(&args, &targets)
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was broken.
fn fuzz(args: &Args, targets: &[&Target]) -> std::io::Result<bool> {
    let mut total = Tally::default();
    let mut broken = 0;
    for target in targets {
        let tally = Campaign::begin(target, args.seed, true)?.go_on(Budget::Time(Duration::from_secs(args.seconds)))?;
        let of = |(taken, counted): (usize, usize)| if counted == 0 { String::new() } else { format!(", {taken} branches") };
        println!(
            "{:<10} {:>9} inputs, {:>2} % valid, {:>4} new{}, {} violations",
            target.name,
            tally.inputs,
            tally.taken * 100 / tally.inputs.max(1),
            tally.kept,
            of(tally.branches),
            tally.violations.len()
        );
        for (violation, input) in tally.violations.values() {
            let path = corpus::save(&corpus::committed(target), "broke", input)?;
            println!("    {violation}\n    with {}", path.display());
        }
        broken += tally.violations.len();
        total.inputs += tally.inputs;
        total.taken += tally.taken;
        total.kept += tally.kept;
        total.branches.1 = tally.branches.1;
    }
    let guided = if total.branches.1 == 0 { "blind".to_owned() } else { format!("guided by {} counters", total.branches.1) };
    println!(
        "fuzz: {} targets, {} inputs ({} % valid), {} new corpus entries, {broken} violations; seed {}, {guided}",
        targets.len(),
        total.inputs,
        total.taken * 100 / total.inputs.max(1),
        total.kept,
        args.seed
    );
    Ok(broken == 0)
}

fn distil(target: &Target) -> std::io::Result<()> {
    let folder = corpus::committed(target);
    let mut inputs = corpus::load(&folder)?;
    inputs.extend(corpus::load(&corpus::scratch(target))?);
    inputs.retain(|input| !input.name.starts_with("seen-") || input.bytes.len() <= LARGEST_SEEN);
    let all = inputs.len();
    let (seen, kept): (Vec<_>, Vec<_>) = distilled(target, inputs).into_iter().partition(|input| input.name.starts_with("seen-"));
    for old in corpus::load(&folder)?.iter().filter(|input| input.name.starts_with("seen-")) {
        std::fs::remove_file(folder.join(&old.name))?;
    }
    for input in seen.iter().take(MOST_SEEN) {
        corpus::save(&folder, "seen", &input.bytes)?;
    }
    println!("{:<10} {} of {all} inputs", target.name, kept.len() + seen.len().min(MOST_SEEN));
    Ok(())
}

fn write_seeds(target: &Target) -> std::io::Result<()> {
    let folder = corpus::committed(target);
    std::fs::create_dir_all(&folder)?;
    for (name, bytes) in seeds::of(target) {
        let path = folder.join(format!("valid-{name}"));
        if !path.exists() {
            std::fs::write(&path, bytes)?;
        }
    }
    Ok(())
}
