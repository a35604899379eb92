//! System calls on the disk that fail once, or are the last that the process makes. After a failed fsync nobody may be told anything any more, and
//! nothing may be tried again: the kernel has forgotten what it could not write. Where ext4 can be mounted the power then fails at once, so that a
//! lie is found out.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    Cluster, History, Settings, clock,
    disk::Mount,
    replica::PATIENCE,
    storage::{
        Round,
        load::Load,
        tracer::{self, Injection, Tracer},
        verdict,
    },
};

const NAMESPACE: &str = "storage";

/// On which files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    All,
    /// Those of the log.
    Log,
    /// The directories.
    Directories,
    Snapshots,
    Identity,
    Mark,
}

/// What may come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It must end by itself, with an error.
    Stops,
    /// It is killed by it.
    Dies,
    /// It stops, or goes on without harm.
    Either,
}

/// What fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    what: &'static str,
    calls: &'static str,
    on: On,
    /// While it starts, or while it serves.
    starting: bool,
    /// At which call at most.
    within: u64,
    then: Then,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} at {} of {:?}", if self.starting { "starting" } else { "serving" }, self.what, self.calls, self.on)
    }
}

const fn serving(what: &'static str, calls: &'static str, on: On, within: u64, then: Then) -> Case {
    Case { what, calls, on, starting: false, within, then }
}

const fn starting(what: &'static str, calls: &'static str, on: On, within: u64, then: Then) -> Case {
    Case { what, calls, on, starting: true, within, then }
}

const EIO: &str = "error=EIO";
const ENOSPC: &str = "error=ENOSPC";
const KILL: &str = "signal=SIGKILL";

/// All of them.
pub const CASES: &[Case] = &[
    serving(EIO, "fdatasync", On::All, 150, Then::Stops),
    serving(EIO, "writev,write", On::Log, 3, Then::Stops),
    serving(ENOSPC, "writev,write", On::Log, 3, Then::Stops),
    serving(EIO, "fsync", On::All, 8, Then::Either),
    serving(EIO, "fsync", On::Directories, 4, Then::Either),
    serving(EIO, "pwrite64", On::Mark, 100, Then::Either),
    serving(EIO, "rename,renameat,renameat2", On::All, 2, Then::Either),
    serving(EIO, "unlink,unlinkat", On::All, 2, Then::Either),
    serving(ENOSPC, "openat", On::All, 2, Then::Either),
    serving(EIO, "fdatasync", On::All, 150, Then::Stops),
    serving(KILL, "fdatasync", On::All, 150, Then::Dies),
    serving(KILL, "writev,write", On::Log, 3, Then::Dies),
    serving(KILL, "fsync", On::All, 8, Then::Dies),
    serving(KILL, "pwrite64", On::Mark, 100, Then::Dies),
    serving(KILL, "rename,renameat,renameat2", On::All, 2, Then::Dies),
    serving(KILL, "unlink,unlinkat", On::All, 2, Then::Dies),
    serving(KILL, "openat", On::All, 2, Then::Dies),
    starting(EIO, "read,pread64", On::Log, 2, Then::Stops),
    starting(EIO, "read,pread64", On::Snapshots, 2, Then::Stops),
    starting(EIO, "read,pread64", On::Identity, 1, Then::Stops),
    starting(EIO, "read,pread64", On::Mark, 1, Then::Stops),
    starting(EIO, "openat", On::Log, 2, Then::Stops),
    starting(EIO, "fsync", On::All, 3, Then::Either),
    starting(ENOSPC, "openat", On::Mark, 2, Then::Stops),
    starting(KILL, "fsync", On::All, 3, Then::Dies),
];

/// One case, the seed says which.
pub async fn round(round: &mut Round) -> anyhow::Result<()> {
    at(round, usize::try_from(round.seed)? % CASES.len()).await
}

/// What the files are at this moment.
fn paths(on: On, data_dir: &Path) -> Vec<PathBuf> {
    let within = |dir: &str, extension: &str| {
        let mut files: Vec<PathBuf> = std::fs::read_dir(data_dir.join(dir)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|found| found == extension));
        files.sort();
        files
    };
    match on {
        On::All => Vec::new(),
        On::Log => within("raft-log", "wal"),
        // The newest is what it starts from.
        On::Snapshots => within("snapshots", "snap").pop().into_iter().collect(),
        On::Directories => vec![data_dir.to_owned(), data_dir.join("raft-log"), data_dir.join("snapshots")],
        On::Identity => vec![data_dir.join("identity.json")],
        On::Mark => vec![data_dir.join("raft-log.synced")],
    }
}

/// The round of a case.
pub async fn at(round: &mut Round, case: usize) -> anyhow::Result<()> {
    let case = CASES[case];
    let when = 1 + round.rng.below(case.within);
    round.what = format!("{case}, call {when}");
    tracer::possible()?;
    let dir = tempfile::tempdir()?;
    let mut mount = Mount::ext4(dir.path(), "disk", 192).ok();
    round.what += if mount.is_some() { ", then the power" } else { "" };
    let data_dirs = vec![mount.as_ref().map_or(dir.path(), |mount| &mount.path).join("data")];
    // Log files that come and go, unless a file must stay for the call to be on it.
    let snapshot_log_bytes = if case.on == On::Log && !case.starting { "64MiB" } else { "64KiB" };
    let mut cluster = Cluster::start("storage-syscalls", Settings { replicas: 1, snapshot_log_bytes, data_dirs, ..Settings::default() }).await?;
    let out = cluster.dir().join("trace");
    let history = Arc::new(History::of("storage-syscalls"));
    let load = Load::spawn(&history, &cluster.apis(), NAMESPACE, "before", 6, &mut round.rng);
    load.goes_on(400).await?;
    let data_dir = cluster.replica(1)?.data_dir.clone();

    let injected = |paths| Injection { calls: case.calls, what: case.what.to_owned(), when, paths };
    let (mut ledger, status) = if case.starting {
        cluster.kill_all()?;
        let ledger = load.stop().await;
        let replica = cluster.replica(1)?;
        replica.wrapper = injected(paths(case.on, &data_dir)).wrapper(&out);
        std::fs::write(&replica.log, "")?;
        replica.spawn()?;
        (ledger, replica.ready_or_ended().await?)
    } else {
        let tracer = Tracer::attach(cluster.replica(1)?.pid()?, &out, &injected(paths(case.on, &data_dir))).await?;
        std::fs::write(&cluster.replica(1)?.log, "")?;
        let begun = clock::now();
        let mut acknowledged = None;
        let status = loop {
            if let Some(status) = cluster.replica(1)?.ended()? {
                break Some(status);
            }
            if case.then == Then::Either && tracer::since_injected(&out)?.is_some() {
                // What goes on must do so for a while.
                let from = *acknowledged.get_or_insert(load.acknowledged());
                if load.acknowledged() > from + 300 {
                    break None;
                }
            }
            ensure!(clock::since(begun) < PATIENCE, "neither does it end nor does anything else happen\n{}", cluster.replica(1)?.log_tail(20));
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        drop(tracer);
        (load.stop().await, status)
    };
    round.counts.faults += 1;
    let since = tracer::since_injected(&out)?.with_context(|| format!("the call was not made: {}", std::fs::read_to_string(&out).unwrap_or_default()))?;
    let said = cluster.replica(1)?.log_text()?;
    verdict::no_panic(&said)?;
    match (case.then, status) {
        (Then::Stops, None) => anyhow::bail!("it goes on after {}\n{said}", since[0]),
        (Then::Dies, status) => ensure!(status.is_some_and(|status| status.code().is_none()), "{status:?} after {}", since[0]),
        (_, Some(status)) => {
            ensure!(status.code().is_some_and(|code| code != 0), "{status} after {}\n{said}", since[0]);
            let why = ["Input/output error", "No space left", "os error"];
            ensure!(why.iter().any(|why| said.contains(why)), "it ended without saying why: {said}");
            round.counts.refused += 1;
        }
        (Then::Either, None) => {}
    }
    if case.calls == "fdatasync" && case.what == EIO {
        let again = since[1..].iter().find(|line| line.contains("fdatasync(") && line.contains(") = 0"));
        ensure!(again.is_none(), "after {} it tried again: {}", since[0], again.map_or("", |line| line));
    }

    // What was not synced is gone, where that can be had.
    let lost = mount.as_ref().map(Mount::power_loss).transpose()?;
    cluster.replicas.iter_mut().filter(|replica| replica.running()).try_for_each(crate::replica::Replica::kill)?;
    if let Some(mount) = mount.as_mut() {
        mount.remount()?;
    }
    if lost.is_some() && status.is_none() && !case.starting {
        // It went on until the power was gone. Its load was stopped before that, so everything that it acknowledged is in the ledger.
        round.what += ", going on until then";
    }
    let replica = cluster.replica(1)?;
    replica.wrapper.clear();
    replica.spawn()?;
    replica.ready().await?;
    ledger.verify_at(&replica.api, NAMESPACE).await?;
    let load = Load::spawn(&history, &cluster.apis(), NAMESPACE, "after", 4, &mut round.rng);
    load.goes_on(50).await?;
    ledger.merge(load.stop().await);
    ledger.verify_at(&cluster.api(), NAMESPACE).await?;
    history.no_refusals()?;
    round.counts.operations += ledger.acknowledged;
    round.counts.recovered += 1;
    // Before the mount goes.
    cluster.kill_all()?;
    cluster.passed()
}
