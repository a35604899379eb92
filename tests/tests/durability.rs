//! What was acknowledged is there after the worst that can happen to every replica at once.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use tenure_tests::{
    Api, Cluster, History, Settings, api,
    clock::{self, Rng},
    disk::{Mount, skipped},
    history::{Op, What},
    v1,
};
use tokio::task::JoinSet;

/// Grants, renews (each time for a millisecond longer, so that each renewal can be told from the one before) and releases one lease, until the
/// first error.
async fn churn(history: Arc<History>, replicas: Vec<Api>, lease: String, mut rng: Rng) {
    let mut duration_ms = 600_000;
    loop {
        let replica = &replicas[usize::try_from(rng.below(replicas.len() as u64)).expect("small")];
        let op = |token, sent, what| Op { lease: lease.clone(), holder: lease.clone(), token, sent, answered: clock::now(), what };
        let sent = clock::now();
        history.begin(&lease, What::Granted);
        let Ok(granted) = replica.grant(api::acquire("churn", &lease, &lease, duration_ms)).await else { return };
        history.op(op(granted.token, sent, What::Granted));
        for _ in 0..rng.below(6) {
            duration_ms += 1;
            let sent = clock::now();
            history.begin(&lease, What::Renewed(duration_ms));
            let item = v1::RenewItem { duration: api::millis(duration_ms), ..api::renewal(granted.token) };
            let Ok(answer) = replica.renew(vec![item]).await else { return };
            let Some(v1::renew_result::Result::Renewed(_)) = answer.results.first().and_then(|result| result.result.as_ref()) else {
                history.refusal(format!("{lease}: {answer:?}"));
                return;
            };
            history.op(op(granted.token, sent, What::Renewed(duration_ms)));
        }
        if rng.below(4) == 0 {
            // Left held; the next grant needs a release all the same.
            tokio::time::sleep(Duration::from_millis(rng.below(200))).await;
        }
        let sent = clock::now();
        history.begin(&lease, What::Released);
        let Ok(answer) = replica.release("churn", &lease, granted.token).await else { return };
        if answer.outcome() != v1::release_response::Outcome::Released {
            history.refusal(format!("{lease}: {answer:?}"));
        }
        history.op(op(granted.token, sent, What::Released));
    }
}

/// Churns until `end` is over; the history then has what was acknowledged.
async fn churn_until(cluster: &Cluster, rng: &mut Rng, round: usize, end: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Arc<History>> {
    let history = Arc::new(History::default());
    let mut workers = JoinSet::new();
    for worker in 0..12 {
        workers.spawn(churn(Arc::clone(&history), cluster.apis(), format!("lease-{round}-{worker}"), rng.fork()));
    }
    end.await?;
    // A replica that is gone ends its workers; one that only lost its disk may leave a call open.
    tokio::time::timeout(Duration::from_secs(2), async { while workers.join_next().await.is_some() {} }).await.ok();
    workers.shutdown().await;
    Ok(history)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_dash_nine_of_all_three_replicas_loses_nothing() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("kill_dash_nine_of_all_three_replicas_loses_nothing");
    let mut cluster = Cluster::three("kill-all").await?;
    for round in 0..3 {
        let load = Duration::from_millis(700 + rng.below(1500));
        let pids: Vec<_> = cluster.replicas.iter().map(|replica| replica.pid()).collect::<Result<_, _>>()?;
        let api = cluster.api();
        let mut clock_before = 0;
        let history = churn_until(&cluster, &mut rng, round, async {
            tokio::time::sleep(load).await;
            clock_before = api.status().await?.lease_clock_ms;
            for pid in pids {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            }
            Ok(())
        })
        .await?;
        cluster.kill_all()?;
        history.no_refusals()?;
        cluster.start_all().await?;

        let ops = history.ops();
        println!("round {round}: {} acknowledged in {load:?}", ops.len());
        for replica in cluster.apis() {
            history.nothing_lost(&replica.list("churn", "").await?, u64::MAX)?;
            let status = replica.status().await?;
            ensure!(status.lease_clock_ms >= clock_before, "the lease clock went back from {clock_before} to {}", status.lease_clock_ms);
        }
        let largest = ops.iter().map(|op| op.token).max().unwrap_or(0);
        let token = cluster.api().grant(api::acquire("default", &format!("after-{round}"), "me", 5000)).await?.token;
        ensure!(token > largest, "token {token} after {largest}");
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_takes_no_acknowledged_write() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("power_loss_takes_no_acknowledged_write");
    let dir = tempfile::tempdir()?;
    let mut mount = match Mount::ext4(dir.path(), "disk", 192) {
        Ok(mount) => mount,
        Err(error) => {
            skipped("power_loss_takes_no_acknowledged_write", &error);
            return Ok(());
        }
    };
    let settings = Settings { replicas: 1, data_dirs: vec![mount.path.join("data")], snapshot_log_bytes: "256KiB", ..Settings::default() };
    let mut cluster = Cluster::prepare("power-loss", settings)?;
    for round in 0..4 {
        cluster.start_all().await?;
        // The first time just after the cluster was founded; later with snapshots and purges behind it.
        let load = Duration::from_millis(50 + rng.below(if round == 0 { 100 } else { 2500 }));
        let mut lost = 0;
        let history = churn_until(&cluster, &mut rng, round, async {
            tokio::time::sleep(load).await;
            lost = mount.power_loss()?;
            Ok(())
        })
        .await?;
        cluster.kill_all()?;
        mount.remount()?;
        cluster.start_all().await?;
        println!("round {round}: {} acknowledged in {load:?}", history.ops().len());
        history.no_refusals()?;
        history.nothing_lost(&cluster.api().list("churn", "").await?, lost)?;
        cluster.kill_all()?;
    }
    cluster.passed()
}
