//! Stopped processes: time that nobody could use is not counted, and a raft leader that slept through its own replacement does no harm.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use rustix::process::Signal;
use tenure_tests::{
    Cluster, History, api, clock,
    replica::PATIENCE,
    v1::lease,
    watcher::Watcher,
    workload::{Ending, Holder, Outcome, Plan},
};

/// 6 s in CI; `TENURE_TEST_LONG=1`: 30 s.
fn pause() -> Duration {
    Duration::from_secs(if std::env::var_os("TENURE_TEST_LONG").is_some() { 30 } else { 6 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_all_replicas_ends_no_lease_with_time_left() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sigstop-all").await?;
    // Shorter than the pause: by a clock that ran on, all of them would be over.
    let mut held = Vec::new();
    for at in 0..30_usize {
        held.push(cluster.apis()[at % 3].grant(api::acquire("default", &format!("lease-{at}"), "me", 5000)).await?);
    }
    let before = cluster.api().status().await?.lease_clock_ms;
    for replica in &cluster.replicas {
        replica.signal(Signal::STOP)?;
    }
    tokio::time::sleep(pause()).await;
    for replica in &cluster.replicas {
        replica.signal(Signal::CONT)?;
    }
    let continued = clock::now();
    for replica in &mut cluster.replicas {
        replica.ready().await?;
    }
    let after = loop {
        // Linearizable, so that it says what a quorum says.
        match cluster.api().list("default", "").await {
            Ok(leases) => break leases,
            Err(status) if api::may_retry(&status) && clock::since(continued) < PATIENCE => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(status) => return Err(status.into()),
        }
    };
    let waited = clock::since(continued);
    for granted in &held {
        let now = after.iter().find(|lease| lease.name == granted.name);
        let kept = now.is_some_and(|now| now.token == granted.token && now.state() == lease::State::Held);
        ensure!(kept, "{} was ended by the pause ({waited:?} after it): {now:?}", granted.name);
    }
    let ran = cluster.api().status().await?.lease_clock_ms.saturating_sub(before);
    println!("the lease clock ran {ran} ms over a pause of {:?}; readable again after {waited:?}", pause());
    let answer = cluster.api().renew(held.iter().map(|lease| api::renewal(lease.token)).collect()).await?;
    for result in &answer.results {
        ensure!(matches!(result.result, Some(tenure_tests::v1::renew_result::Result::Renewed(_))), "{result:?}");
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_leader_that_slept_through_its_replacement_does_no_harm() -> anyhow::Result<()> {
    let cluster = Cluster::three("sigstop-leader").await?;
    let history = Arc::new(History::of("raft-leader-that-slept"));
    let start = cluster.api().grant(api::acquire("load", "first", "me", 1000)).await?.revision;
    let mut watcher = Watcher::recorded(&cluster.apis(), 0, "load", start, &history);
    let mut holders = Vec::new();
    for at in 0..12_usize {
        // Two for each lease: the second waits for the first to fail.
        let mut plan = Plan::new("load", &format!("lease-{}", at / 2), &format!("holder-{at}"), 3000, &cluster.apis(), at);
        plan.wait_ms = Some(60_000);
        let mut holder = Holder::spawn(plan, Arc::clone(&history));
        if at % 2 == 0 {
            holder.granted().await?;
        }
        holders.push(holder);
    }
    for _ in 0..2 {
        let raft_leader = cluster.raft_leader().await?;
        let stopped = cluster.replicas.iter().find(|replica| replica.id == raft_leader).expect("is one of them");
        let fault = history.fault("SIGSTOP", raft_leader);
        stopped.signal(Signal::STOP)?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        stopped.signal(Signal::CONT)?;
        history.healed(fault);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for (at, holder) in holders.into_iter().enumerate() {
        if at % 2 == 1 {
            continue;
        }
        let lease = holder.plan.lease.clone();
        let hold = holder.stop(Ending::Silence).await?;
        ensure!(hold.outcome == Outcome::Stopped(Ending::Silence), "{lease} was not kept: {hold:?}");
    }
    let end = history.witness(&cluster.api(), "load", start).await?;
    watcher.reached(end).await?;
    watcher.stop().await?;
    history.replicas(&cluster.settled().await?);
    history.check()?;
    cluster.passed()
}
