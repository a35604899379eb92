//! `kill -9` of all members, and all of them started again: how long until there is a write, and until all are ready.

use std::time::Duration;

use anyhow::ensure;

use super::million::request;
use crate::{
    clock,
    cluster::{Cluster, MEMBERS},
    connect,
    report::Figure,
    tenure::{renew::Renewals, storm},
};

const PATIENCE: Duration = Duration::from_secs(300);

/// From the start of the processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restart {
    /// A lease that was held before has been renewed.
    pub(super) first: Duration,
    pub(super) all_ready: Duration,
}

pub(super) async fn run(what: String, cluster: &mut Cluster, leases: usize) -> anyhow::Result<Figure> {
    ensure!(cluster.is_ours(), "this needs a cluster that may be hurt (--start)");
    let storm = storm::acquire(&cluster.endpoints(), leases, request).await?;
    let restart = all(cluster, &storm.tokens).await?;
    let mut figure = Figure::new(what, cluster.target);
    figure.values.push(("restart_first_s", restart.first.as_secs_f64()));
    figure.values.push(("restart_s", restart.all_ready.as_secs_f64()));
    Ok(figure)
}

/// Every one of the tokens must still hold its lease.
pub(super) async fn all(cluster: &mut Cluster, tokens: &[u64]) -> anyhow::Result<Restart> {
    for at in 0..MEMBERS {
        cluster.kill(at)?;
    }
    let begun = clock::now();
    for at in 0..MEMBERS {
        cluster.restart(at)?;
    }
    let endpoints = cluster.endpoints();
    for address in endpoints.iter().cycle() {
        ensure!(begun.passed() < PATIENCE, "no renewal within {PATIENCE:?}");
        if tokio::time::timeout(Duration::from_secs(1), renew(address, &tokens[..1])).await.is_ok_and(|renewed| renewed.is_ok()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let first = begun.passed();
    cluster.ready().await?;
    let all_ready = begun.passed();
    for some in tokens.chunks(10_000) {
        renew(&endpoints[0], some).await?;
    }
    eprintln!("  restart: a renewal after {:.2} s, all ready after {:.2} s, all {} leases held", first.as_secs_f64(), all_ready.as_secs_f64(), tokens.len());
    Ok(Restart { first, all_ready })
}

async fn renew(address: &str, tokens: &[u64]) -> anyhow::Result<()> {
    Renewals::open(connect::channel(address).await?, tokens).await.map(drop)
}
