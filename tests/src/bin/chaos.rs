//! Chaos on real processes: `chaos list`, `chaos run NAME`, `chaos all`. Runs on hosts of its own, which it makes in network namespaces and removes,
//! whatever becomes of the run; those of a run that was killed are removed by the next.

use std::{
    io::{self, Write as _},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tenure_tests::{
    chaos::{self, Need, Plan, Scenario, campaign, user},
    clock, faketime, netns,
};

/// Real clusters, real users, and one thing that goes wrong.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Says what there is.
    List {
        /// As docs/chaos.md has it.
        #[arg(long)]
        markdown: bool,
    },
    /// Runs one scenario; ends in a line with what came of it.
    Run {
        /// One of `list`.
        name: String,
        #[command(flatten)]
        how: How,
        /// The process that made the hosts; set by the outer process.
        #[arg(long, hide = true)]
        owner: Option<u32>,
    },
    /// Runs all scenarios, one after the other, each in a process of its own; ends in a line with counts.
    All {
        #[command(flatten)]
        how: How,
        /// How often; each time with the next seed.
        #[arg(long, default_value_t = 1)]
        times: u64,
        /// Only these, separated by commas.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// One user; started by a run.
    #[command(hide = true)]
    User {
        /// JSON.
        orders: String,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct How {
    /// Repeats the choices of the harness and of the users; fresh when not given. The machine makes choices of its own.
    #[arg(long)]
    seed: Option<u64>,
    /// How long things go wrong; before and after that comes peace.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Three or five.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=5))]
    replicas: u64,
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Sub::List { markdown } => {
            // Whoever has read enough (head, less) has closed the pipe.
            let _ = io::stdout().write_all(if markdown { chaos::table() } else { list() }.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Sub::Run { name, how, owner } => find(&name).and_then(|scenario| one(scenario, how, owner)),
        Sub::All { how, times, only } => all(how, times, &only),
        Sub::User { orders } => use_it(&orders),
    };
    result.unwrap_or_else(|error| {
        eprintln!("chaos: {error:#}");
        ExitCode::FAILURE
    })
}

fn list() -> String {
    chaos::all().map(|scenario| format!("{:<30} {}\n{:<30}   {}\n", scenario.name, scenario.what, "", scenario.must)).collect()
}

fn find(name: &str) -> anyhow::Result<&'static Scenario> {
    chaos::find(name).with_context(|| format!("there is no scenario {name}: see `chaos list`"))
}

fn fresh() -> u64 {
    clock::now() % 1_000_000
}

fn all(how: How, times: u64, only: &[String]) -> anyhow::Result<ExitCode> {
    let scenarios = if only.is_empty() { chaos::all().collect() } else { only.iter().map(|name| find(name)).collect::<anyhow::Result<_>>()? };
    let campaign = campaign::Campaign { scenarios, times, seed: how.seed.unwrap_or_else(fresh), seconds: how.seconds, replicas: how.replicas };
    Ok(if campaign.run()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(scenario: &'static Scenario, how: How, owner: Option<u32>) -> anyhow::Result<ExitCode> {
    let seed = how.seed.unwrap_or_else(fresh);
    if owner.is_none() {
        chaos::sweep();
        let id = std::process::id();
        let hosts = netns::make_hub(id);
        if let Some(why) = missing(scenario, hosts.as_ref().err()) {
            netns::remove(id);
            println!("{} SKIPPED: {why}", scenario.name);
            anyhow::ensure!(std::env::var_os("TENURE_TEST_NO_SKIP").is_none(), "it may not be skipped here");
            return Ok(ExitCode::from(campaign::SKIPPED));
        }
        if let Ok(hub) = hosts {
            return inside(hub, scenario, How { seed: Some(seed), ..how });
        }
    }
    let plan = Plan { scenario, seed, seconds: how.seconds, replicas: how.replicas, owner };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let summary = runtime.block_on(chaos::run(plan));
    runtime.shutdown_timeout(Duration::from_secs(1));
    for wrong in &summary.wrong {
        println!("WRONG: {wrong}");
    }
    if !summary.passed() {
        println!("repeat with: {}", plan.command());
    }
    println!("{} seed={seed} replicas={} {summary}", scenario.name, plan.replicas);
    Ok(if summary.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs it in the namespace of the hub, and clears away what is left.
fn inside(hub: netns::Place, scenario: &Scenario, how: How) -> anyhow::Result<ExitCode> {
    let id = std::process::id();
    let mut command = hub.command(std::env::current_exe()?);
    command.args(["run", scenario.name, "--owner", &id.to_string(), "--seconds", &how.seconds.to_string(), "--replicas", &how.replicas.to_string()]);
    if let Some(seed) = how.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    // An interrupt reaches both: this one stays, to clear away.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().context("cannot enter the namespace")?;
        let mut interrupted = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            status = child.wait() => anyhow::Ok(Some(status?)),
            _ = interrupted.recv() => Ok(None),
            _ = terminated.recv() => Ok(None),
        }
    });
    netns::remove(id);
    let code = status?.and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What a scenario needs and this machine does not have.
fn missing(scenario: &Scenario, no_hosts: Option<&anyhow::Error>) -> Option<String> {
    scenario.needs.iter().find_map(|need| match need {
        Need::Hosts => no_hosts.map(|why| format!("no hosts of its own: {why:#}")).or_else(|| lacks("nft", &["list", "ruleset"])),
        Need::Mounts => lacks("losetup", &["--find"]),
        Need::Strace => lacks("strace", &["-e", "trace=none", "true"]),
        Need::Faketime => faketime::library().err().map(|why| format!("{why:#}")),
    })
}

fn lacks(program: &str, args: &[&str]) -> Option<String> {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("{program}: {error}")),
    }
}

fn use_it(orders: &str) -> anyhow::Result<ExitCode> {
    let orders = serde_json::from_str(orders).context("orders are JSON")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(user::run(orders))?;
    Ok(ExitCode::SUCCESS)
}
