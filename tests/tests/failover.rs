//! Raft leaders come and go, by `kill -9` and by SIGTERM; leases whose holders do their part stay where they are.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use tenure_tests::{
    Cluster, History, api,
    clock::{self, Rng},
    history::What,
    probe::{Probe, distribution},
    replica::PATIENCE,
    v1::{self, event},
    watcher::{Watcher, no_gap_no_repeat, replay},
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
    let history = Arc::new(History::default());
    let start = cluster.api().grant(api::acquire("load", "first", "me", 1000)).await?.revision;
    let watchers: Vec<Watcher> = (0..3).map(|at| Watcher::spawn(&cluster.apis(), at, "load", start)).collect();
    let probe = Probe::spawn(&cluster.apis(), &history).await?;
    let keepers = keepers(&cluster, &history, 20, 3000).await?;
    let contenders = contenders(&cluster, &history, &mut rng);

    let mut gaps = Vec::new();
    for _ in 0..10 {
        let raft_leader = cluster.raft_leader().await?;
        let killed = clock::now();
        cluster.replica(raft_leader)?.kill()?;
        ensure!(probe.writes_again(killed, PATIENCE).await, "no write for {PATIENCE:?} after replica {raft_leader} was killed");
        tokio::time::sleep(Duration::from_millis(300 + rng.below(500))).await;
        gaps.push(probe.longest_silence(killed));
        cluster.start_all().await?;
        tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
    }
    println!("no write for (kill -9 of the raft leader, ten times): {}", distribution(gaps));

    drop(contenders);
    drop(probe);
    all_kept(keepers).await?;
    history.check()?;

    // What the watches saw is what a replay has, and every acknowledged grant is in it.
    let end = cluster.api().grant(api::acquire("load", "last", "me", 1000)).await?.revision;
    let replayed = replay(&cluster.api(), "load", start, end).await?;
    let mut resumed = 0;
    for mut watcher in watchers {
        watcher.reached(end).await?;
        let (seen, times) = watcher.stop().await?;
        resumed += times;
        no_gap_no_repeat(&seen, &replayed)?;
    }
    println!("{} events, watches resumed {resumed} times", replayed.len());
    for op in history.ops().iter().filter(|op| op.what == What::Granted) {
        let acquired = |event: &&v1::Event| event.revision == op.token && event.r#type() == event::Type::Acquired;
        ensure!(replayed.iter().filter(acquired).count() == 1, "no event for {op:?}");
    }
    // One hash per applied index, whatever each replica went through.
    let statuses = cluster.settled().await?;
    ensure!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "replicas differ: {statuses:?}");
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_of_the_raft_leader_fails_no_call_for_good() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sigterm-leader").await?;
    let history = Arc::new(History::default());
    let probe = Probe::spawn(&cluster.apis(), &history).await?;
    let keepers = keepers(&cluster, &history, 20, 3000).await?;
    let mut gaps = Vec::new();
    for _ in 0..5 {
        let raft_leader = cluster.raft_leader().await?;
        let told = clock::now();
        let status = cluster.replica(raft_leader)?.terminate().await?;
        ensure!(status.success(), "replica {raft_leader} ended with {status}");
        ensure!(probe.writes_again(clock::now(), PATIENCE).await, "no write for {PATIENCE:?} after replica {raft_leader} was told to end");
        gaps.push(probe.longest_silence(told));
        cluster.start_all().await?;
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
    let history = Arc::new(History::default());
    let keepers = keepers(&cluster, &history, 50, 3000).await?;
    for id in 1..=3 {
        let status = cluster.replica(id)?.terminate().await?;
        ensure!(status.success(), "replica {id} ended with {status}");
        // Long enough for every holder to need the two that are left.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        cluster.start_all().await?;
    }
    all_kept(keepers).await?;
    history.check()?;
    cluster.passed()
}
