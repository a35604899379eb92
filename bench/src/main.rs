//! `tenure-bench`: load on a running cluster, closed loop, and what came of it. Every answer is checked; one that is not as expected ends the run.
//!
//! Says nothing about other systems yet, and asserts no times: figures are for people (and JSON for programs) to compare side by side.

mod clock;
mod load;
mod report;

use std::time::Duration;

use anyhow::ensure;
use clap::{Parser, Subcommand};

/// Load on a running Tenure cluster.
#[derive(Debug, Parser)]
#[command(name = "tenure-bench", version)]
struct Args {
    /// Client addresses, comma-separated; clients are spread over them.
    #[arg(long, env = "TENURE_ENDPOINTS", value_delimiter = ',', default_value = "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420")]
    endpoints: Vec<String>,
    /// How long to measure, after a second of warming up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// One line of JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Acquire and release one lease a client, uncontended: the latency of the pair.
    Pair {
        /// Clients, each with a connection of its own.
        #[arg(long, default_value_t = 1)]
        clients: usize,
    },
    /// Renew over one stream a client, one message in flight.
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
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (most, seconds) = (10_000, args.seconds);
    ensure!((1..=3_600).contains(&seconds), "--seconds is 1 to 3600, not {seconds}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        let time = Duration::from_secs(seconds);
        match args.scenario {
            Scenario::Pair { clients } => {
                ensure!((1..=most).contains(&clients), "--clients is 1 to {most}, not {clients}");
                load::pairs(&args.endpoints, clients, time).await
            }
            Scenario::Renew { streams, connections, leases } => {
                ensure!((1..=most).contains(&streams), "--streams is 1 to {most}, not {streams}");
                ensure!((1..=most).contains(&connections), "--connections is 1 to {most}, not {connections}");
                ensure!((1..=10_000).contains(&leases), "--leases is 1 to 10000, not {leases}");
                load::renewals(&args.endpoints, streams, connections, leases, time).await
            }
        }
    })?;
    println!("{}", if args.json { report::json(&measured) } else { report::table(&measured) });
    Ok(())
}
