//! One replica with known content, its directory damaged in many ways, each on a copy: it starts with everything that was acknowledged, or refuses
//! and says why; and `tenured check` knows which.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::{
    Cluster, History, Settings,
    clock::{self, Rng},
    storage::{
        Layer, Round,
        damage::{self, Part},
        load::{Ledger, Load},
        verdict,
    },
    v1,
};

const NAMESPACE: &str = "storage";

/// A directory to damage copies of.
struct Template {
    cluster: Cluster,
    dir: PathBuf,
    /// As it was a while before.
    older: PathBuf,
    ledger: Ledger,
    /// (file, length) at which a record ended.
    boundaries: Vec<(String, u64)>,
}

/// The newest file of the log, and its length: a write under way is whole or not there.
fn newest(log: &Path) -> Option<(String, u64)> {
    let files = std::fs::read_dir(log).ok()?.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "wal"));
    let last = files.max_by_key(std::fs::DirEntry::file_name)?;
    Some((last.file_name().to_string_lossy().into_owned(), last.metadata().ok()?.len()))
}

impl Template {
    async fn build(round: &mut Round) -> anyhow::Result<Self> {
        let rng = &mut round.rng;
        // A small log is snapshot and purged all the time; a large one never.
        let small = rng.below(4) > 0;
        let snapshot_log_bytes = if small { "64KiB" } else { "64MiB" };
        let mut cluster = Cluster::start("storage-offline", Settings { replicas: 1, snapshot_log_bytes, ..Settings::default() }).await?;
        let (dir, api) = (cluster.replica(1)?.data_dir.clone(), cluster.api());
        let older = cluster.dir().join("older");
        if rng.below(2) == 0 {
            // Snapshots of several blocks.
            for number in 0..24 {
                let annotations = [("weight".to_owned(), "w".repeat(15_000))].into();
                let put = v1::PutRequest { namespace: "weight".into(), name: format!("w-{number}"), annotations, ..Default::default() };
                api.lease.clone().put(put).await?;
            }
        }
        let history = Arc::new(History::of("storage-offline"));
        let load = Load::spawn(&history, &[api], NAMESPACE, "lease", 6, rng);
        let (begun, length) = (clock::now(), Duration::from_millis(600 + rng.below(2500)));
        let mut boundaries = Vec::new();
        let mut copied = false;
        while clock::since(begun) < length || load.acknowledged() < 200 {
            boundaries.extend(newest(&dir.join("raft-log")));
            if !copied && clock::since(begun) > length / 2 {
                // Files go while they are copied: what is there is good enough.
                copied = damage::copy(&dir, &older).is_ok();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // As a crash leaves it, or as an orderly stop does.
        let orderly = rng.below(3) == 0;
        let ledger = if orderly {
            let ledger = load.stop().await;
            cluster.replica(1)?.terminate().await?;
            ledger
        } else {
            cluster.replica(1)?.signal(Signal::KILL)?;
            cluster.replica(1)?.exited().await?;
            load.stop().await
        };
        boundaries.sort();
        boundaries.dedup();
        round.counts.operations += ledger.acknowledged;
        round.what = format!("log of {snapshot_log_bytes}, {}", if orderly { "stopped" } else { "killed" });
        Ok(Self { cluster, dir, older, ledger, boundaries })
    }
}

/// Builds a directory and damages so many copies of it.
pub async fn round(round: &mut Round, layer: Layer, cases: u64) -> anyhow::Result<()> {
    let mut template = Template::build(round).await?;
    let sound = verdict::check(&template.dir).await?;
    ensure!(sound.starts && !sound.said.contains("DAMAGED"), "what nobody damaged: {}", sound.said);
    let case_dir = template.cluster.dir().join("case");
    let mut done = 0;
    while done < cases {
        let mut rng = round.rng.fork();
        if case_dir.exists() {
            std::fs::remove_dir_all(&case_dir)?;
        }
        damage::copy(&template.dir, &case_dir)?;
        if case(round, layer, &mut template, &case_dir, &mut rng).await? {
            done += 1;
        }
    }
    // And without any.
    ensure!(verdict::start(&mut template.cluster, &template.dir, &template.ledger, NAMESPACE, None).await?, "what nobody damaged does not start");
    template.cluster.passed()
}

/// `false`: there was nothing to damage in the way that was chosen.
async fn case(round: &mut Round, layer: Layer, template: &mut Template, dir: &Path, rng: &mut Rng) -> anyhow::Result<bool> {
    let Some(damage) = damage::apply(layer, dir, &template.older, &template.boundaries, rng)? else { return Ok(false) };
    round.counts.faults += 1;
    let told = || format!("{} (the damaged directory is kept in {})", damage.text, dir.display());
    let checked = verdict::check(dir).await.with_context(told)?;
    ensure!(checked.starts || !damage.must_start, "{}: a power loss leaves this behind, and it is refused: {}", told(), checked.said);
    if !checked.starts {
        verdict::helpful(&checked.said, &damage).with_context(told)?;
    }
    // Whoever would start must show that nothing is lost. What is not needed for that, or is refused, is tried now and then.
    let spare_snapshot = |line: &str| line.contains("DAMAGED") && line.contains("not the newest");
    let spare = matches!(damage.part, Part::History | Part::Mark) || checked.said.lines().any(spare_snapshot);
    if rng.below(if checked.starts && !spare { 1 } else { 5 }) == 0 {
        let started = verdict::start(&mut template.cluster, dir, &template.ledger, NAMESPACE, Some(&damage)).await.with_context(told)?;
        ensure!(started == checked.starts, "{}: started {started}, but check says: {}", told(), checked.said);
    }
    if checked.starts {
        round.counts.recovered += 1
    } else {
        round.counts.refused += 1
    }
    Ok(true)
}
