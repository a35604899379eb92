//! One fsync of the raft leader takes half a minute. Its cluster goes on, what it had in hand comes too late for anybody, and no hold ends early or
//! twice.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;

use crate::{
    Cluster, History, Settings, api, clock,
    storage::{
        Round,
        load::Load,
        tracer::{self, Injection, Tracer},
    },
    workload::{Ending, Holder, Plan},
};

const NAMESPACE: &str = "storage";

/// Half a minute.
pub async fn round(round: &mut Round) -> anyhow::Result<()> {
    with(round, Duration::from_secs(30)).await
}

/// As long as that.
pub async fn with(round: &mut Round, delay: Duration) -> anyhow::Result<()> {
    let when = 1 + round.rng.below(100);
    round.what = format!("the raft leader's fdatasync {when} takes {delay:?}");
    tracer::possible()?;
    let mut cluster = Cluster::start("storage-slow", Settings { snapshot_log_bytes: "64KiB", ..Settings::default() }).await?;
    let history = Arc::new(History::of("storage-slow"));
    let start = cluster.api().grant(api::acquire(NAMESPACE, "first", "me", 1000)).await?.revision;
    // Holders whose time is short: some would have run out in the hands of a raft leader that does not know that it is none any more.
    let mut holders = Vec::new();
    for at in 0..6_usize {
        let mut plan = Plan::new(NAMESPACE, &format!("short-{}", at % 3), &format!("holder-{at}"), 2000, &cluster.apis(), at);
        plan.wait_ms = Some(120_000);
        holders.push(Holder::spawn(plan, Arc::clone(&history)));
    }
    let load = Load::spawn(&history, &cluster.apis(), NAMESPACE, "load", 6, &mut round.rng);
    load.goes_on(100).await?;
    let leader = cluster.raft_leader().await?;
    let term = cluster.replica(leader)?.api.status().await?.term;
    let out = cluster.dir().join("trace");
    let injection = Injection { calls: "fdatasync", what: format!("delay_enter={}", delay.as_micros()), when, paths: Vec::new() };
    let tracer = Tracer::attach(cluster.replica(leader)?.pid()?, &out, &injection).await?;
    let fault = history.fault("an fsync that takes long", leader);
    let begun = clock::now();
    // strace writes the line when the call is over; that it has begun shows in that the next one does not come.
    load.goes_on(200).await?;
    let mut silences = Vec::new();
    while clock::since(begun) < delay + Duration::from_secs(3) {
        let before = clock::now();
        load.goes_on(50).await?;
        silences.push(clock::since(before));
    }
    let longest = silences.into_iter().max().unwrap_or_default();
    ensure!(longest < delay / 2, "nobody could write for {longest:?}, while one disk of three was stuck for {delay:?}");
    drop(tracer);
    history.healed(fault);
    ensure!(tracer::since_injected(&out)?.is_some(), "no fsync was slow");
    let led = cluster.raft_leader().await?;
    let now = cluster.replica(led)?.api.status().await?.term;
    round.what += &format!(", {leader} led in term {term}, {led} in term {now}, fifty writes never took longer than {longest:.1?}");
    round.counts.faults += 1;

    load.goes_on(50).await?;
    let ledger = load.stop().await;
    for holder in holders {
        holder.stop(Ending::Release).await?;
    }
    for api in cluster.apis() {
        history.read_all(&api, NAMESPACE).await?;
        ledger.verify_at(&api, NAMESPACE).await?;
    }
    history.witness(&cluster.api(), NAMESPACE, start).await?;
    history.replicas(&cluster.settled().await?);
    let report = history.judged()?;
    for property in ["P1", "P2", "P3", "P4", "P6.replay", "P8"] {
        ensure!(report.checked_of(property) > 1, "{property} had nothing to check: the round says nothing");
    }
    round.counts.operations += ledger.acknowledged;
    round.counts.recovered += 1;
    cluster.passed()
}
