//! Disks that are full, of one replica, of two, or of all, to the last byte or nearly: what was acknowledged is there, whoever still has space goes
//! on, and with space again all do.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    Cluster, History, Settings, api,
    disk::Mount,
    storage::{Round, Skipped, load::Load, verdict},
};

const NAMESPACE: &str = "storage";
const MIB: u64 = 64;

/// Fills a file system but for so many bytes.
fn fill(dir: &Path, left: u64) -> anyhow::Result<PathBuf> {
    let ballast = dir.join("ballast");
    let mut file = std::fs::File::create(&ballast)?;
    for size in [1 << 20, 4096, 1] {
        let block = vec![7_u8; size];
        while file.write_all(&block).is_ok() {}
    }
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(left))?;
    Ok(ballast)
}

/// One replica's disk, two's or three's, while they run or before one starts.
pub async fn round(round: &mut Round) -> anyhow::Result<()> {
    let full = 1 + round.rng.below(3);
    let first = round.rng.below(3);
    let victims: Vec<u64> = (0..full).map(|step| 1 + (first + step) % 3).collect();
    // A page or none.
    let left = if round.rng.below(2) == 0 { 0 } else { 4096 * round.rng.below(24) };
    let starting = round.rng.below(3) == 0;
    round.what = format!("disks of {victims:?} full but for {left} bytes{}", if starting { ", when they start" } else { "" });
    let dir = tempfile::tempdir()?;
    let mounts: anyhow::Result<Vec<Mount>> = (1..=3).map(|id| Mount::tmpfs(dir.path(), &format!("disk-{id}"), MIB)).collect();
    let mounts = mounts.map_err(|error| Skipped(format!("{error:#}")))?;
    let data_dirs: Vec<PathBuf> = mounts.iter().map(|mount| mount.path.join("data")).collect();
    let snapshot_log_bytes = if round.rng.below(2) == 0 { "64KiB" } else { "1MiB" };
    let mut cluster = Cluster::start("storage-enospc", Settings { data_dirs, snapshot_log_bytes, ..Settings::default() }).await?;
    let history = Arc::new(History::of("storage-enospc"));
    let start = cluster.api().grant(api::acquire(NAMESPACE, "first", "me", 1000)).await?.revision;
    let load = Load::spawn(&history, &cluster.apis(), NAMESPACE, "load", 6, &mut round.rng);
    load.goes_on(200).await?;

    if starting {
        for id in &victims {
            cluster.replica(*id)?.kill()?;
        }
    }
    let mut ballast = Vec::new();
    for id in &victims {
        ballast.push(fill(&mounts[usize::try_from(id - 1)?].path, left)?);
        round.counts.faults += 1;
    }
    if starting {
        for id in &victims {
            cluster.replica(*id)?.spawn()?;
        }
    }
    if victims.len() == 1 {
        load.goes_on(200).await.context("with one disk full")?;
    } else {
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    for file in ballast {
        std::fs::remove_file(file)?;
    }
    // A replica that met the full disk ends, which may take until after there is space again.
    let mut may_end = victims.len();
    let started = loop {
        for id in &victims {
            let replica = cluster.replica(*id)?;
            let said = replica.log_text()?;
            if replica.running()
                && let Some(status) = replica.ended()?
            {
                ensure!(status.code().is_some_and(|code| code != 0), "replica {id}: {status}\n{said}");
                ensure!(said.to_lowercase().contains("no space"), "replica {id} does not say that its disk is full: {said}");
                round.counts.refused += 1;
            }
            verdict::no_panic(&said)?;
        }
        let started = cluster.start_all().await;
        let mut met_it_late = false;
        for id in &victims {
            let replica = cluster.replica(*id)?;
            met_it_late |= !replica.running() && replica.log_text()?.to_lowercase().contains("no space");
        }
        if started.is_ok() || !met_it_late || may_end == 0 {
            break started;
        }
        may_end -= 1;
    };
    started.context("with space again")?;
    load.goes_on(100).await.context("with space again")?;
    let ledger = load.stop().await;
    for api in cluster.apis() {
        history.read_all(&api, NAMESPACE).await?;
        ledger.verify_at(&api, NAMESPACE).await?;
    }
    history.witness(&cluster.api(), NAMESPACE, start).await?;
    history.replicas(&cluster.settled().await?);
    history.judged()?;
    round.counts.operations += ledger.acknowledged;
    round.counts.recovered += victims.len() as u64;
    // Before the mounts go.
    cluster.kill_all()?;
    cluster.passed()
}
