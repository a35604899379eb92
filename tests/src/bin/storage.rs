//! Storage that fails, against real `tenured` processes: `cargo run -p tenure-tests --bin storage -- --layer all`.
//!
//! Ends in a line with counts, and with 1 if there was a violation. A violation prints what runs its round again.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use tenure_tests::{
    clock,
    storage::{self, Counts, LAYERS, Layer},
};

/// Kills, damages and starves `tenured`'s storage, and looks for what was acknowledged and is gone.
#[derive(Parser)]
struct Args {
    /// failpoints, bitflips, truncation, eio, enospc, slow, powerloss, or all.
    #[arg(long, default_value = "all")]
    layer: String,
    /// The first round's; each round has the next. Without: by the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Of each layer. Without: so that everything that can fail in it does once at least.
    #[arg(long)]
    rounds: Option<u64>,
    /// Begin no round of a layer after so many seconds.
    #[arg(long)]
    within: Option<u64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let layers = match args.layer.as_str() {
        "all" => LAYERS.to_vec(),
        name => match name.parse::<Layer>() {
            Ok(layer) => vec![layer],
            Err(error) => {
                eprintln!("storage: {error}");
                return ExitCode::FAILURE;
            }
        },
    };
    let seed = args.seed.unwrap_or_else(|| clock::now() / 1_000_000);
    println!("seed {seed}");
    let begun = clock::now();
    let mut all = Counts::default();
    for layer in layers {
        let counts = storage::campaign(layer, seed, args.rounds.unwrap_or_else(|| layer.rounds()), args.within.map(Duration::from_secs)).await;
        all += counts;
    }
    println!("storage, seed {seed}: {all}, {:.0} s", clock::since(begun).as_secs_f64());
    if all.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
