//! Attacks on real clusters, and the yardstick that a bystander is held against: `abuse list`, `abuse all`, `abuse NAME…`.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use tenure_tests::abuse::{self, Plan, Row, Scenario};

/// One client, peer or disk does too much, and everybody else must hardly notice.
///
/// Starts three replicas for each attack, attacks them over loopback from a process of its own, and ends in a table: the slowest renewal of a client
/// beside the attack, its failed calls, the leases that it lost, memory, the time until service was back, processes that ended. Exits with 1 if
/// anything is beyond the yardstick.
#[derive(Parser)]
struct Args {
    /// `list` says what there is, `all` runs everything; else names or rows of scenarios.
    #[arg(required = true)]
    what: Vec<String>,
    /// How long each attack lasts.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Writes the table to this file as JSON as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where `tenured` is; the default is the profile of this program, built when it is missing or stale.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// With `list`: as docs/abuse.md has it.
    #[arg(long)]
    markdown: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let words: Vec<&str> = args.what.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["list"] => {
            // Whoever has read enough (head, less) has closed the pipe.
            let _ = io::stdout().write_all(if args.markdown { abuse::markdown() } else { list() }.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        // The attacking process, which a run has started with its orders.
        ["attack", orders] => abuse::attacks::perform(orders).map(|told| {
            println!("{told}");
            ExitCode::SUCCESS
        }),
        ["all"] => run(&args, abuse::ALL.iter().collect()),
        _ => words.iter().map(|name| find(name)).collect::<anyhow::Result<_>>().and_then(|scenarios| run(&args, scenarios)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("abuse: {error:#}");
        ExitCode::FAILURE
    })
}

fn list() -> String {
    let entry = |Scenario { row, name, what, must, .. }: &Scenario| {
        let must = if must.is_empty() { String::new() } else { format!("{:<32}must hold: {must}\n", "") };
        format!("{row:<4} {name:<26} {what}\n{must}")
    };
    abuse::ALL.iter().map(entry).collect()
}

fn find(name: &str) -> anyhow::Result<&'static Scenario> {
    abuse::find(name).with_context(|| format!("there is no scenario {name}: see `abuse list`"))
}

fn run(args: &Args, scenarios: Vec<&'static Scenario>) -> anyhow::Result<ExitCode> {
    if let Some(dir) = &args.bin_dir {
        ensure!(dir.join("tenured").is_file(), "there is no tenured in {}", dir.display());
    }
    let mut rows: Vec<Row> = Vec::new();
    for scenario in scenarios {
        let plan = Plan { scenario, seconds: args.seconds, bin_dir: args.bin_dir.clone() };
        // Nothing of one run is left in the next.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let row = runtime.block_on(abuse::run(&plan));
        runtime.shutdown_timeout(Duration::from_secs(1));
        println!("{:<4} {}: {}", row.row, row.name, row.verdict());
        rows.push(row);
        if let Some(file) = &args.json {
            fs::write(file, serde_json::to_string_pretty(&rows)?).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    print!("{}", abuse::table(&rows));
    Ok(if rows.iter().all(Row::passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
