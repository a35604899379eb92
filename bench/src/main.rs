//! `tenure-bench`: load on a cluster, and what came of it. Every answer is checked; one that is not as expected ends the run.
//!
//! Says nothing about other systems yet, and asserts no times: figures are for people (and JSON for programs) to compare side by side.

mod clock;
mod handover;
mod keep;
mod load;
mod report;
mod started;

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::{Parser, Subcommand};

use crate::{report::Line, started::Started};

/// Load on a Tenure cluster: a running one, or one of its own.
#[derive(Debug, Parser)]
#[command(name = "tenure-bench", version)]
struct Args {
    /// Client addresses, comma-separated; clients are spread over them.
    #[arg(long, env = "TENURE_ENDPOINTS", value_delimiter = ',', default_value = "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420")]
    endpoints: Vec<String>,
    /// Start three replicas in a temporary folder for this run, instead of using --endpoints.
    #[arg(long)]
    start: bool,
    /// The server for --start; the one beside this program unless said otherwise.
    #[arg(long, value_name = "FILE")]
    tenured_bin: Option<PathBuf>,
    /// How long to measure pairs, renewals and the cost of keeping.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// A line of JSON for each figure instead of a table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Acquire and release one lease a client, uncontended, after a second of warming up: the latency of the pair.
    Pair {
        /// Clients, each with a connection of its own.
        #[arg(long, default_value_t = 1)]
        clients: usize,
    },
    /// Renew over one stream a client, one message in flight, after a second of warming up.
    Renew {
        /// Streams.
        #[arg(long, default_value_t = 64)]
        streams: usize,
        /// Streams share this many connections.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Leases in each message.
        #[arg(long, default_value_t = 1)]
        leases: usize,
    },
    /// The elected leader resigns: time until the next one leads.
    Handover {
        /// How many wait, a line each.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
        waiters: Vec<usize>,
        /// Hand-overs for each line.
        #[arg(long, default_value_t = 300)]
        rounds: usize,
    },
    /// The elected leader is gone without a word: time from the end of its lease until the next one leads.
    Takeover {
        /// Of the lease.
        #[arg(long, default_value_t = 1_000)]
        lease_ms: u64,
        /// At once, with three candidates each.
        #[arg(long, default_value_t = 10)]
        elections: usize,
        /// Takeovers in each election.
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// One process keeps many leases on one stream: its share of a core, and the replicas' (with --start).
    Keep {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        leases: usize,
        /// Of each; renewed every third of it.
        #[arg(long, default_value_t = 10_000)]
        lease_ms: u64,
    },
    /// Handover, takeover and keep, as they are unless told otherwise: what the SDK promises.
    Sdk,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let seconds = args.seconds;
    ensure!((1..=3_600).contains(&seconds), "--seconds is 1 to 3600, not {seconds}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let started = if args.start { Some(Started::three(args.tenured_bin).await?) } else { None };
    let endpoints = started.as_ref().map_or(&args.endpoints, |started| &started.endpoints);
    let (pids, time, json) = (started.as_ref().map(Started::pids).unwrap_or_default(), Duration::from_secs(args.seconds), args.json);
    let scenarios = match args.scenario {
        Scenario::Sdk => vec![
            Scenario::Handover { waiters: vec![1, 16, 64], rounds: 300 },
            Scenario::Takeover { lease_ms: 1_000, elections: 10, rounds: 20 },
            Scenario::Keep { leases: 10_000, lease_ms: 10_000 },
        ],
        one => vec![one],
    };
    for scenario in scenarios {
        measure(scenario, endpoints, &pids, time, |line| println!("{}", if json { line.json() } else { line.table() })).await?;
    }
    Ok(())
}

fn within(what: &str, value: usize, most: usize) -> anyhow::Result<()> {
    ensure!((1..=most).contains(&value), "{what} is 1 to {most}, not {value}");
    Ok(())
}

async fn measure(scenario: Scenario, endpoints: &[String], pids: &[u32], time: Duration, show: impl Fn(Line)) -> anyhow::Result<()> {
    let most = 10_000;
    match scenario {
        Scenario::Pair { clients } => {
            within("--clients", clients, most)?;
            show(Line::Times(load::pairs(endpoints, clients, time).await?));
        }
        Scenario::Renew { streams, connections, leases } => {
            within("--streams", streams, most)?;
            within("--connections", connections, most)?;
            within("--leases", leases, most)?;
            show(Line::Times(load::renewals(endpoints, streams, connections, leases, time).await?));
        }
        Scenario::Handover { waiters, rounds } => {
            within("--rounds", rounds, most)?;
            for waiters in waiters {
                within("--waiters", waiters, 1_000)?;
                show(Line::Times(handover::handovers(endpoints, waiters, rounds).await?));
            }
        }
        Scenario::Takeover { lease_ms, elections, rounds } => {
            within("--elections", elections, 1_000)?;
            within("--rounds", rounds, most)?;
            show(Line::Times(handover::takeovers(endpoints, Duration::from_millis(lease_ms), elections, rounds).await?));
        }
        Scenario::Keep { leases, lease_ms } => {
            within("--leases", leases, 1_000_000)?;
            // Long enough to see every lease renewed.
            let (duration, least) = (Duration::from_millis(lease_ms), Duration::from_millis(lease_ms) * 2);
            show(Line::Load(keep::keep(endpoints, leases, duration, time.max(least), pids).await?));
        }
        Scenario::Sdk => {}
    }
    Ok(())
}
