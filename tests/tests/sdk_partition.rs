//! An elected leader that is cut off from the cluster stops before the next one starts, every time.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_tests::{
    Cluster, Settings, clock,
    clock::Rng,
    elector::{Elector, judge},
    proxy::Proxy,
    replica::PATIENCE,
};

const LEASE: Duration = Duration::from_millis(600);
const CANDIDATES: usize = 3;

/// 8 in CI; `TENURE_TEST_LONG=1`: 50.
fn rounds() -> usize {
    if std::env::var_os("TENURE_TEST_LONG").is_some() { 50 } else { 8 }
}

/// A candidate in a process of its own, behind a network of its own.
struct Candidate {
    elector: Elector,
    network: Vec<Proxy>,
}

async fn leads(candidates: &[Candidate], besides: Option<usize>, since: u64) -> anyhow::Result<usize> {
    let others = candidates.iter().enumerate().filter(|(at, _)| Some(*at) != besides);
    let leading = others.map(|(at, candidate)| Box::pin(async move { candidate.elector.leads_after(since).await.map(|_| at) }));
    Ok(tokio::time::timeout(PATIENCE, futures::future::select_ok(leading)).await??.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elected_leader_that_is_cut_off_stops_before_the_next_one_starts() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("sdk-partition");
    let cluster = Cluster::start("sdk-partition", Settings { min_duration: "500ms", ..Settings::default() }).await?;
    let mut candidates = Vec::new();
    let files: Vec<PathBuf> = (0..CANDIDATES).map(|at| cluster.dir().join(format!("believed-{at}"))).collect();
    for file in &files {
        let mut network = Vec::new();
        for replica in &cluster.replicas {
            network.push(Proxy::start(&replica.client.addr()).await?);
        }
        let addresses: Vec<_> = network.iter().map(|proxy| proxy.addr.clone()).collect();
        let elector = Elector::start(env!("CARGO_BIN_EXE_elector"), &addresses.join(","), "main", LEASE, file)?;
        candidates.push(Candidate { elector, network });
    }
    let mut since = clock::now();
    let mut struck = Vec::new();
    for round in 0..rounds() {
        let leading = leads(&candidates, None, since).await?;
        tokio::time::sleep(Duration::from_millis(rng.below(200))).await;
        // Every other time what it asks still arrives, so that its lease is renewed and it does not know.
        let cut = |cut: bool| {
            for proxy in &candidates[leading].network {
                if round % 2 == 0 { proxy.cut(cut) } else { proxy.cut_answers(cut) }
            }
        };
        let at = clock::now();
        cut(true);
        leads(&candidates, Some(leading), at).await?;
        since = clock::now();
        struck.push((at, since));
        cut(false);
    }
    drop(candidates);
    // Fails if any two believed at once.
    let beliefs = judge(&files)?;
    let mut gaps = Vec::new();
    for (from, to) in struck {
        let next = beliefs.iter().position(|belief| belief.from > from && belief.from <= to).context("somebody else led")?;
        let before = next.checked_sub(1).map(|at| beliefs[at]).context("somebody led before")?;
        gaps.push((Duration::from_nanos(beliefs[next].from - before.to), Duration::from_nanos(beliefs[next].from - from)));
    }
    let smallest = gaps.iter().map(|(gap, _)| *gap).min().context("a round")?;
    let longest = gaps.iter().map(|(_, took)| *took).max().context("a round")?;
    println!(
        "{} partitions, leases of {LEASE:?}: nobody led for {smallest:?} at least in between; the next one led {longest:?} at most after the cut",
        gaps.len()
    );
    ensure!(gaps.len() == rounds());
    cluster.passed()
}
