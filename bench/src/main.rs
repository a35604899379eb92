//! `tenure-bench`: load on a cluster of Tenure, or of etcd, and what came of it. Every answer is checked; one that is not as expected ends the run.
//!
//! Asserts no times: figures are for people (and JSON for programs) to compare.

mod cli;
mod clock;
mod cluster;
mod compare;
mod connect;
mod etcd;
mod exclusive;
mod lab;
mod load;
mod report;
mod scenario;
mod sdk;
mod tenure;
mod usage;

use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use crate::{
    cli::{Args, Command, Setup},
    cluster::Target,
    lab::Lab,
    load::Plan,
    report::Figure,
    scenario::{Case, Fanout, Size},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WARM_UP: Duration = Duration::from_secs(1);
/// Of whatever there may be many of.
const MOST: usize = 10_000;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // One thread: the generator shares the machine with what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        // So that what was started is ended in any case.
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = run(args) => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn run(Args { setup, command }: Args) -> anyhow::Result<()> {
    let lab = Lab::new(&setup);
    match command {
        Command::Compare(compare) => compare.run(&lab, &setup).await,
        Command::Handover { .. } | Command::Takeover { .. } | Command::Keep { .. } | Command::Sdk => {
            for command in one_by_one(command) {
                through_sdk(command, &lab, &setup).await?;
            }
            Ok(())
        }
        other => {
            let plan = Plan { warm_up: WARM_UP, time: Duration::from_secs(setup.seconds), rate: setup.rate.map(f64::from) };
            for case in cases(other)? {
                for _ in 0..setup.rounds {
                    for target in setup.target.iter().filter(|target| case.is_for(**target)) {
                        let mut cluster = lab.cluster(*target).await?;
                        show(&case.run(&mut cluster, plan).await?, &setup);
                    }
                }
            }
            Ok(())
        }
    }
}

fn show(figure: &Figure, setup: &Setup) {
    if setup.json { println!("{}", figure.json()) } else { println!("{}", figure.line()) }
}

fn within(what: &str, value: usize, most: usize) -> anyhow::Result<()> {
    ensure!((1..=most).contains(&value), "{what} is 1 to {most}, not {value}");
    Ok(())
}

fn all_within(what: &str, values: &[usize], most: usize) -> anyhow::Result<()> {
    values.iter().try_for_each(|value| within(what, *value, most))
}

/// What a command asks to be measured.
fn cases(command: Command) -> anyhow::Result<Vec<Case>> {
    match command {
        Command::Renew { streams, connections, leases, unary } => {
            all_within("--streams", &streams, MOST)?;
            within("--connections", connections, MOST)?;
            all_within("--leases", &leases, MOST)?;
            if unary {
                ensure!(leases == [1], "--unary renews one lease at a time");
                return Ok(streams.into_iter().map(|clients| Case::RenewUnary { clients, connections }).collect());
            }
            let of = |streams| leases.iter().map(move |leases| Case::Renew { streams, connections, leases: *leases });
            Ok(streams.into_iter().flat_map(of).collect())
        }
        Command::KeepAlive { streams, connections } => {
            all_within("--streams", &streams, MOST)?;
            within("--connections", connections, MOST)?;
            Ok(streams.into_iter().map(|streams| Case::KeepAlive { streams, connections }).collect())
        }
        Command::Pair { clients, connections } => {
            all_within("--clients", &clients, MOST)?;
            within("--connections", connections, MOST)?;
            Ok(clients.into_iter().map(|clients| Case::Pair { clients, connections }).collect())
        }
        Command::Contend { waiters, connections, unclaimed } => {
            all_within("--waiters", &waiters, MOST)?;
            within("--connections", connections, MOST)?;
            Ok(waiters.into_iter().map(|waiters| Case::Contend { waiters, connections, claim: !unclaimed }).collect())
        }
        Command::Failover { times } => Ok(vec![Case::Failover { times }]),
        Command::Transfer { times } => Ok(vec![Case::Transfer { times }]),
        Command::Expiry { times } => Ok(vec![Case::Expiry { times }]),
        Command::MassExpiry { leases } => Ok(vec![Case::Mass { leases }]),
        Command::Storm { leases } => Ok(vec![Case::Storm { leases }]),
        Command::Million { leases, every_seconds, minutes } => {
            ensure!(leases >= 1_000, "--leases is 1,000 or more, not {leases}");
            let (every, steady) = (Duration::from_secs(every_seconds.max(1)), Duration::from_secs(minutes * 60));
            Ok(vec![Case::Million(Size { leases, every, steady, until_snapshots: true })])
        }
        Command::Restart { leases } => Ok(vec![Case::Restart { leases }]),
        Command::Watch { watchers, of_everything, changes } => {
            let of = |watchers| Case::Fanout(Fanout { watchers, of_everything, rate: changes.max(1) });
            Ok(watchers.into_iter().map(of).collect())
        }
        Command::Reads { leases } => {
            leases.iter().try_for_each(|leases| within("--leases", *leases, 10_000_000))?;
            Ok(leases.into_iter().map(|leases| Case::Reads { leases }).collect())
        }
        other => unreachable!("not a case: {other:?}"),
    }
}

fn one_by_one(command: Command) -> Vec<Command> {
    match command {
        Command::Sdk => vec![
            Command::Handover { waiters: vec![1, 16, 64], rounds_each: 300 },
            Command::Takeover { lease_ms: 1_000, elections: 10, rounds_each: 20 },
            Command::Keep { leases: 10_000, lease_ms: 10_000 },
        ],
        one => vec![one],
    }
}

async fn through_sdk(command: Command, lab: &Lab, setup: &Setup) -> anyhow::Result<()> {
    ensure!(setup.target == [Target::Tenure], "this is of Tenure's SDK only");
    let cluster = lab.cluster(Target::Tenure).await?;
    let endpoints = cluster.endpoints();
    match command {
        Command::Handover { waiters, rounds_each } => {
            within("--rounds-each", rounds_each, MOST)?;
            all_within("--waiters", &waiters, 1_000)?;
            for waiters in waiters {
                show(&sdk::handover::handovers(&endpoints, waiters, rounds_each).await?, setup);
            }
        }
        Command::Takeover { lease_ms, elections, rounds_each } => {
            within("--elections", elections, 1_000)?;
            within("--rounds-each", rounds_each, MOST)?;
            show(&sdk::handover::takeovers(&endpoints, Duration::from_millis(lease_ms), elections, rounds_each).await?, setup);
        }
        Command::Keep { leases, lease_ms } => {
            within("--leases", leases, 1_000_000)?;
            // Long enough to see every lease renewed.
            let (duration, least) = (Duration::from_millis(lease_ms), Duration::from_millis(lease_ms) * 2);
            let time = Duration::from_secs(setup.seconds).max(least);
            show(&sdk::keep::keep(&endpoints, leases, duration, time, &cluster.pids()).await?, setup);
        }
        other => unreachable!("not of the SDK: {other:?}"),
    }
    Ok(())
}
