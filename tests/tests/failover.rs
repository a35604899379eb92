//! Raft leaders come and go, by `kill -9` and by SIGTERM; leases whose holders do their part stay where they are.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use tenure_tests::{
    Cluster, History, api,
    clock::{self, Rng},
    probe::{Probe, distribution},
    replica::PATIENCE,
    watcher::Watcher,
    workload::{self, Ending, Holder, Outcome, Plan},
};
use tokio::task::JoinSet;

/// Holders that do nothing but keep what they have.
async fn keepers(cluster: &Cluster, history: &Arc<History>, count: usize, duration_ms: u64) -> anyhow::Result<Vec<Holder>> {
    let mut keepers: Vec<Holder> = (0..count)
        .map(|at| Holder::spawn(Plan::new("load", &format!("kept-{at}"), &format!("keeper-{at}"), duration_ms, &cluster.apis(), at), Arc::clone(history)))
        .collect();
    for keeper in &mut keepers {
        keeper.granted().await?;
    }
    Ok(keepers)
}

async fn all_kept(keepers: Vec<Holder>) -> anyhow::Result<()> {
    let mut renewals = 0;
    for keeper in keepers {
        let lease = keeper.plan.lease.clone();
        let hold = keeper.stop(Ending::Release).await?;
        ensure!(hold.outcome == Outcome::Stopped(Ending::Release), "{lease} was not kept: {hold:?}");
        renewals += hold.renewals;
    }
    println!("{renewals} renewals");
    Ok(())
}

/// Several that want the same leases, hold them for moments, and release them or just fall silent.
fn contenders(cluster: &Cluster, history: &Arc<History>, rng: &mut Rng) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for at in 0..6_usize {
        let mut rng = rng.fork();
        let history = Arc::clone(history);
        let mut plan = Plan::new("load", &format!("wanted-{}", at % 2), "", 1000, &cluster.apis(), at);
        plan.wait_ms = Some(4000);
        tasks.spawn(async move {
            for turn in 0.. {
                plan.holder = format!("contender-{at}-{turn}");
                let hold_for = Duration::from_millis(50 + rng.below(400));
                let ending = if rng.below(4) == 0 { Ending::Silence } else { Ending::Release };
                let (granted, mut holds) = tokio::sync::watch::channel(0);
                let stopped = async {
                    holds.wait_for(|token| *token > 0).await.ok();
                    tokio::time::sleep(hold_for).await;
                    ending
                };
                workload::hold(&plan, &history, stopped, Some(granted)).await;
            }
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_raft_leader_ten_times_loses_no_lease_and_no_event() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("killing_the_raft_leader_ten_times_loses_no_lease_and_no_event");
    let mut cluster = Cluster::three("kill-leader").await?;
    let history = Arc::new(History::of("killing-the-raft-leader"));
    let start = cluster.api().grant(api::acquire("load", "first", "me", 1000)).await?.revision;
    let watchers: Vec<Watcher> = (0..3).map(|at| Watcher::recorded(&cluster.apis(), at, "load", start, &history)).collect();
    let probe = Probe::spawn(&cluster.apis(), &history).await?;
    let keepers = keepers(&cluster, &history, 20, 3000).await?;
    let contenders = contenders(&cluster, &history, &mut rng);

    let mut gaps = Vec::new();
    for _ in 0..10 {
        let raft_leader = cluster.raft_leader().await?;
        let killed = clock::now();
        let fault = history.fault("kill -9", raft_leader);
        cluster.replica(raft_leader)?.kill()?;
        ensure!(probe.writes_again(killed, PATIENCE).await, "no write for {PATIENCE:?} after replica {raft_leader} was killed");
        tokio::time::sleep(Duration::from_millis(300 + rng.below(500))).await;
        gaps.push(probe.longest_silence(killed));
        cluster.start_all().await?;
        history.healed(fault);
        tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
    }
    println!("no write for (kill -9 of the raft leader, ten times): {}", distribution(gaps));

    drop(contenders);
    drop(probe);
    all_kept(keepers).await?;

    // What the watches saw is what a replay has, and every acknowledged grant is in it; one hash per applied index, whatever each replica went
    // through.
    let end = history.witness(&cluster.api(), "load", start).await?;
    let mut resumed = 0;
    for mut watcher in watchers {
        watcher.reached(end).await?;
        resumed += watcher.stop().await?.1;
    }
    println!("watches resumed {resumed} times");
    history.replicas(&cluster.settled().await?);
    let report = history.check()?;
    for property in ["P1", "P2", "P3", "P4", "P5", "P6.replay", "P6.order", "P6.search", "P7", "P8", "P10", "P11", "W2", "W5", "W7", "W8", "W10", "W12"] {
        ensure!(report.checked_of(property) > 0, "{property} had nothing to check");
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_of_the_raft_leader_fails_no_call_for_good() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sigterm-leader").await?;
    let history = Arc::new(History::of("sigterm-of-the-raft-leader"));
    let probe = Probe::spawn(&cluster.apis(), &history).await?;
    let keepers = keepers(&cluster, &history, 20, 3000).await?;
    let mut gaps = Vec::new();
    for _ in 0..5 {
        let raft_leader = cluster.raft_leader().await?;
        let told = clock::now();
        let fault = history.fault("SIGTERM", raft_leader);
        let status = cluster.replica(raft_leader)?.terminate().await?;
        ensure!(status.success(), "replica {raft_leader} ended with {status}");
        ensure!(probe.writes_again(clock::now(), PATIENCE).await, "no write for {PATIENCE:?} after replica {raft_leader} was told to end");
        gaps.push(probe.longest_silence(told));
        cluster.start_all().await?;
        history.healed(fault);
    }
    println!("no write for (SIGTERM of the raft leader, five times): {}", distribution(gaps));
    drop(probe);
    all_kept(keepers).await?;
    history.check()?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_keeps_fifty_leases_of_three_seconds() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("rolling-restart").await?;
    let history = Arc::new(History::of("rolling-restart"));
    let keepers = keepers(&cluster, &history, 50, 3000).await?;
    for id in 1..=3 {
        let fault = history.fault("SIGTERM", id);
        let status = cluster.replica(id)?.terminate().await?;
        ensure!(status.success(), "replica {id} ended with {status}");
        // Long enough for every holder to need the two that are left.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        cluster.start_all().await?;
        history.healed(fault);
    }
    all_kept(keepers).await?;
    history.check()?;
    cluster.passed()
}
