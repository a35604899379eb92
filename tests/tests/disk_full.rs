//! Full disks: a replica that cannot write stops or refuses, says why, and nothing that was acknowledged is lost.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tenure_tests::{
    Api, Cluster, Settings,
    clock::{self, Rng},
    disk::{Mount, fill, skipped},
    replica::PATIENCE,
    v1,
};
use tokio::task::JoinSet;

const MIB: u64 = 96;

/// Puts labels of rising numbers, one lease a worker; the last acknowledged number of each.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<(String, u64)>,
}

impl Writers {
    fn spawn(replicas: &[Api], rng: &mut Rng) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for at in 0..8_usize {
            let (stop, replicas, name, mut rng) = (Arc::clone(&stop), replicas.to_vec(), format!("lease-{at}"), rng.fork());
            tasks.spawn(async move {
                let mut acknowledged = 0;
                for number in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let replica = &replicas[usize::try_from(rng.below(replicas.len() as u64)).expect("small")];
                    let put = v1::PutRequest {
                        namespace: "full".into(),
                        name: name.clone(),
                        labels: [("number".to_owned(), number.to_string())].into(),
                        annotations: [("weight".to_owned(), "w".repeat(8000))].into(),
                        ..Default::default()
                    };
                    match tokio::time::timeout(Duration::from_secs(1), replica.lease.clone().put(put)).await {
                        Ok(Ok(_)) => acknowledged = number,
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
                (name, acknowledged)
            });
        }
        Self { stop, tasks }
    }

    async fn finish(self) -> Vec<(String, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await
    }
}

async fn nothing_lost(api: &Api, acknowledged: &[(String, u64)]) -> anyhow::Result<()> {
    for (name, number) in acknowledged {
        ensure!(*number > 0, "nothing was acknowledged for {name}");
        let lease = api.get("full", name).await?;
        let there: u64 = lease.labels.get("number").context("a number")?.parse()?;
        // Later ones may have been applied without being acknowledged.
        ensure!(there >= *number, "{name} is at {there}, and {number} was acknowledged");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_stops_its_replica_and_loses_nothing() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("full_disk_stops_its_replica_and_loses_nothing");
    let dir = tempfile::tempdir()?;
    let mounts = match (1..=3).map(|id| Mount::tmpfs(dir.path(), &format!("disk-{id}"), MIB)).collect::<anyhow::Result<Vec<_>>>() {
        Ok(mounts) => mounts,
        Err(error) => {
            skipped("full_disk_stops_its_replica_and_loses_nothing", &error);
            return Ok(());
        }
    };
    let data_dirs: Vec<PathBuf> = mounts.iter().map(|mount| mount.path.join("data")).collect();
    let settings = Settings { data_dirs, snapshot_log_bytes: "4MiB", ..Settings::default() };
    let mut cluster = Cluster::start("full-disk", settings).await?;

    // One full disk, the raft leader's: the others go on.
    let full = cluster.raft_leader().await?;
    let at = usize::try_from(full - 1)?;
    let others: Vec<Api> = cluster.replicas.iter().filter(|replica| replica.id != full).map(|replica| replica.api.clone()).collect();
    let writers = Writers::spawn(&others, &mut rng);
    let ballast = fill(&mounts[at].path)?;
    let begun = clock::now();
    while !cluster.replicas[at].log_text()?.to_lowercase().contains("no space") {
        ensure!(clock::since(begun) < PATIENCE, "replica {full} does not say that its disk is full");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut again = 0;
    while again < 20 {
        let put = v1::PutRequest { namespace: "full".into(), name: "others".into(), ..Default::default() };
        match tokio::time::timeout(Duration::from_secs(1), others[again % 2].lease.clone().put(put)).await {
            Ok(Ok(_)) => again += 1,
            other => {
                ensure!(clock::since(begun) < PATIENCE, "the others do not go on: {other:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    println!("the others went on {:?} after the disk was full", clock::since(begun));
    let acknowledged = writers.finish().await;
    nothing_lost(&others[0], &acknowledged).await?;
    std::fs::remove_file(ballast)?;
    if cluster.replicas[at].still_alive().is_ok() {
        cluster.replicas[at].kill()?;
    }
    cluster.start_all().await?;
    nothing_lost(&cluster.replicas[at].api, &acknowledged).await?;
    let statuses = cluster.settled().await?;
    ensure!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "replicas differ: {statuses:?}");

    // All full at once: what is acknowledged until then is there when they have space again.
    let writers = Writers::spawn(&cluster.apis(), &mut rng);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ballast = mounts.iter().map(|mount| fill(&mount.path)).collect::<anyhow::Result<Vec<_>>>()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let acknowledged = writers.finish().await;
    for ballast in ballast {
        std::fs::remove_file(ballast)?;
    }
    for replica in &mut cluster.replicas {
        if replica.still_alive().is_ok() {
            replica.kill()?;
        }
    }
    cluster.start_all().await?;
    for replica in cluster.apis() {
        nothing_lost(&replica, &acknowledged).await?;
    }
    // Before the mounts go.
    cluster.kill_all()?;
    cluster.passed()
}
