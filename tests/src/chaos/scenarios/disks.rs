//! Disks that are full, fail, lie about nothing but lose power, or give back other bytes than they were given.

use std::{
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tenure_checker::history::What;

use super::{
    super::{Disks, Need, Scenario, Stage, hurt::Traced},
    operations::replace,
};
use crate::{clock, disk::fill, replica::PATIENCE};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "power-loss",
        what: "one replica or all lose power: what was not fsynced is gone",
        must: "nothing acknowledged is lost, no vote is forgotten",
        needs: &[Need::Mounts],
        floor: 1,
        keeps: false,
        prepare: |setup| setup.disks = Disks::Own(64),
        act: |stage| Box::pin(power_loss(stage)),
    },
    Scenario {
        name: "disk-full",
        what: "the raft leader's disk is full, then all disks are",
        must: "a replica that cannot write stops and says so; with space again nothing is missing",
        needs: &[Need::Mounts],
        floor: 1,
        keeps: false,
        prepare: |setup| setup.disks = Disks::Small(64),
        act: |stage| Box::pin(disk_full(stage)),
    },
    Scenario {
        name: "eio",
        what: "fsync fails, at the raft leader and at a follower",
        must: "that replica stops at once and acknowledges nothing more; the others go on",
        needs: &[Need::Strace],
        floor: 1,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(eio(stage)),
    },
    Scenario {
        name: "bit-flip",
        what: "a bit in the log of a replica that is down is another one than was written",
        must: "it refuses to start rather than serve less than it acknowledged, and is replaced; the others go on",
        needs: &[],
        floor: 3,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(bit_flip(stage)),
    },
];

async fn power_loss(stage: &mut Stage) -> anyhow::Result<()> {
    for turn in 0.. {
        if !stage.goes_on() {
            break;
        }
        let leader = stage.raft_leader().await?;
        let struck = if turn % 2 == 0 { stage.ids() } else { vec![leader] };
        let fault = stage.history.fault_on("power loss", &struck.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut gone = u64::MAX;
        for id in &struck {
            gone = gone.min(stage.mounts[usize::try_from(id - 1)?].power_loss()?);
        }
        for id in &struck {
            if stage.cluster.replica(*id)?.still_alive().is_ok() {
                stage.cluster.replica(*id)?.kill()?;
            }
        }
        // An fsync of that very moment may have said yes to nobody's profit. One replica's word alone acknowledges nothing.
        if struck.len() > 1 {
            stage.history.forget(gone);
        }
        stage.pass_some(50, 800).await?;
        for id in &struck {
            stage.mounts[usize::try_from(id - 1)?].remount()?;
        }
        stage.cluster.start_all().await?;
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
        stage.pass_some(500, 2_000).await?;
    }
    Ok(())
}

async fn disk_full(stage: &mut Stage) -> anyhow::Result<()> {
    for turn in 0.. {
        if !stage.goes_on() {
            break;
        }
        let leader = stage.raft_leader().await?;
        let struck = if turn % 2 == 0 { vec![leader] } else { stage.ids() };
        let fault = stage.history.fault_on("disk full", &struck.iter().map(ToString::to_string).collect::<Vec<_>>());
        let before = stage.cluster.replica(leader)?.log_text()?.to_lowercase().matches("no space").count();
        let mut ballast = Vec::new();
        for id in &struck {
            ballast.push(fill(&stage.mounts[usize::try_from(id - 1)?].path)?);
        }
        let begun = clock::now();
        while stage.cluster.replica(leader)?.log_text()?.to_lowercase().matches("no space").count() == before {
            ensure!(clock::since(begun) < PATIENCE, "replica {leader} does not say that its disk is full");
            stage.pass(Duration::from_millis(50)).await?;
        }
        if struck.len() == 1 {
            stage.served_after(clock::now()).await?;
        }
        stage.pass_some(300, 1_500).await?;
        ballast.into_iter().try_for_each(fs::remove_file)?;
        for id in &struck {
            // Some have ended by themselves.
            if stage.cluster.replica(*id)?.still_alive().is_ok() {
                stage.cluster.replica(*id)?.kill()?;
            }
        }
        stage.cluster.start_all().await?;
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
        stage.pass_some(500, 1_500).await?;
    }
    Ok(())
}

async fn eio(stage: &mut Stage) -> anyhow::Result<()> {
    for turn in 0.. {
        if !stage.goes_on() {
            break;
        }
        let leader = stage.raft_leader().await?;
        let struck = if turn % 2 == 0 { leader } else { stage.other_than(leader) };
        let fault = stage.history.fault("EIO", struck);
        let traced = Traced::start(stage.cluster.replica(struck)?.pid()?, "fsync,fdatasync", "error=EIO").await?;
        let status = stage.cluster.replica(struck)?.exited().await.context("after fsync failed")?;
        drop(traced);
        ensure!(!status.success(), "replica {struck} ended with {status} though its disk had failed");
        stage.served_after(clock::now()).await?;
        stage.pass_some(200, 1_000).await?;
        stage.start(struck, fault).await?;
        stage.pass_some(300, 1_000).await?;
    }
    Ok(())
}

async fn bit_flip(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let struck = stage.other_than(leader);
        let fault = stage.kill(struck)?;
        let text = flip(stage, struck)?;
        stage.history.record(What::Note { node: struck.to_string(), text });
        stage.cluster.replica(struck)?.spawn()?;
        // It serves all that it had, or nothing.
        let served = stage.cluster.replica(struck)?.ready().await;
        if let Err(error) = served {
            let said = format!("{error:#}");
            ensure!(said.contains("ended by itself"), "replica {struck} neither serves nor refuses: {said}");
            replace(stage, struck).await?;
        }
        stage.history.healed(fault);
        stage.pass_some(300, 1_000).await?;
    }
    Ok(())
}

/// One bit somewhere in the log; says where.
fn flip(stage: &mut Stage, id: u64) -> anyhow::Result<String> {
    let folder = stage.cluster.replica(id)?.data_dir.join("raft-log");
    let mut files: Vec<(PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        files.push((entry.path(), entry.metadata()?.len()));
    }
    files.retain(|(_, length)| *length > 0);
    files.sort();
    let (path, length) = files.get(usize::try_from(stage.rng.below(files.len() as u64))?).context("a log has a file")?;
    let at = stage.rng.below(*length);
    let mut byte = fs::read(path)?.get(usize::try_from(at)?).copied().context("within the file")?;
    byte ^= 1 << stage.rng.below(8);
    let mut file = File::options().write(true).open(path)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte])?;
    Ok(format!("a bit of byte {at} of {length} in {}", path.display()))
}
