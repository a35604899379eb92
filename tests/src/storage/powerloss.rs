//! The power of one replica, of two or of all is gone under load, and with it whatever no fsync had made durable: also right after a restart, when
//! what a killed process had left to the kernel counts as the replica's own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};

use crate::{
    Cluster, History, Settings, api,
    disk::Mount,
    storage::{Round, Skipped, load::Load, verdict},
};

const NAMESPACE: &str = "storage";

/// One loss.
pub async fn round(round: &mut Round) -> anyhow::Result<()> {
    let count = 1 + round.rng.below(3);
    let first = round.rng.below(3);
    let victims: Vec<u64> = (0..count).map(|step| 1 + (first + step) % 3).collect();
    let restarted = round.rng.below(2) == 0;
    round.what = format!("power of {victims:?} lost{}", if restarted { ", right after a kill -9 of all and a restart" } else { "" });
    let dir = tempfile::tempdir()?;
    let mounts: anyhow::Result<Vec<Mount>> = (1..=3).map(|id| Mount::ext4(dir.path(), &format!("disk-{id}"), 128)).collect();
    let mut mounts = mounts.map_err(|error| Skipped(format!("{error:#}")))?;
    let data_dirs: Vec<PathBuf> = mounts.iter().map(|mount| mount.path.join("data")).collect();
    let snapshot_log_bytes = if round.rng.below(2) == 0 { "64KiB" } else { "64MiB" };
    let mut cluster = Cluster::start("storage-powerloss", Settings { data_dirs, snapshot_log_bytes, ..Settings::default() }).await?;
    let history = Arc::new(History::of("storage-powerloss"));
    let start = cluster.api().grant(api::acquire(NAMESPACE, "first", "me", 1000)).await?.revision;
    let load = Load::spawn(&history, &cluster.apis(), NAMESPACE, "load", 8, &mut round.rng);
    load.goes_on(50).await?;
    tokio::time::sleep(Duration::from_millis(round.rng.below(2000))).await;
    if restarted {
        cluster.kill_all()?;
        cluster.start_all().await?;
    }
    let mut lost = u64::MAX;
    for id in &victims {
        lost = lost.min(mounts[usize::try_from(id - 1)?].power_loss()?);
        round.counts.faults += 1;
    }
    if victims.len() == 1 {
        load.goes_on(50).await.context("with the power of one lost")?;
    }
    for id in &victims {
        let replica = cluster.replica(*id)?;
        if replica.ended()?.is_none() {
            replica.kill()?;
        }
        mounts[usize::try_from(id - 1)?].remount()?;
    }
    if victims.len() > 1 {
        // An fsync that was under way may have lied to a majority.
        history.forget(lost);
    }
    cluster.start_all().await?;
    load.goes_on(50).await.context("with power again")?;
    let ledger = load.stop().await;
    for api in cluster.apis() {
        history.read_all(&api, NAMESPACE).await?;
        if victims.len() == 1 {
            ledger.verify_at(&api, NAMESPACE).await?;
        }
    }
    history.witness(&cluster.api(), NAMESPACE, start).await?;
    history.replicas(&cluster.settled().await?);
    let report = history.judged()?;
    for property in ["P2", "P4", "P6.replay", "P8"] {
        ensure!(report.checked_of(property) > 1, "{property} had nothing to check: the round says nothing");
    }
    for replica in &cluster.replicas {
        verdict::no_panic(&replica.log_text()?)?;
    }
    round.counts.operations += ledger.acknowledged;
    round.counts.recovered += victims.len() as u64;
    // Before the mounts go.
    cluster.kill_all()?;
    cluster.passed()
}
