//! What was acknowledged is there after the worst that can happen to every replica at once.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use tenure_checker::{
    Report,
    history::{Call, Outcome},
};
use tenure_tests::{
    Api, Cluster, History, Settings, api,
    clock::Rng,
    disk::{Mount, skipped},
    history::{released, state},
    v1,
};
use tokio::task::JoinSet;

/// Grants, renews (each time for a millisecond longer, so that each renewal can be told from the one before) and releases one lease, until the
/// first error.
async fn churn(history: Arc<History>, replicas: Vec<Api>, name: String, mut rng: Rng) {
    let mut duration_ms = 600_000;
    let lease = format!("churn/{name}");
    for turn in 0.. {
        let replica = &replicas[usize::try_from(rng.below(replicas.len() as u64)).expect("small")];
        let holder = format!("{name}-{turn}");
        let call = Call::Acquire { lease: lease.clone(), holder: holder.clone(), request_id: String::new(), duration_ms, wait_ms: None, reclaim: false };
        let op = history.begin(&name, call);
        let Ok(granted) = replica.grant(api::acquire("churn", &name, &holder, duration_ms)).await else { return };
        history.end(op, Outcome::Granted { lease: state(&granted), must_renew: false, revision: 0 });
        for _ in 0..rng.below(6) {
            duration_ms += 1;
            let op = history.begin(&name, Call::Renew { lease: lease.clone(), token: granted.token, duration_ms: Some(duration_ms) });
            let item = v1::RenewItem { duration: api::millis(duration_ms), ..api::renewal(granted.token) };
            let Ok(answer) = replica.renew(vec![item]).await else { return };
            let Some(v1::renew_result::Result::Renewed(_)) = answer.results.first().and_then(|result| result.result.as_ref()) else {
                history.refusal(format!("{lease}: {answer:?}"));
                return;
            };
            history.end(op, Outcome::Renewed { duration_ms, revision: answer.header.map_or(0, |header| header.revision) });
        }
        if rng.below(4) == 0 {
            // Left held; the next grant needs a release all the same.
            tokio::time::sleep(Duration::from_millis(rng.below(200))).await;
        }
        let call = Call::Release { lease: lease.clone(), token: granted.token, holder: String::new(), request_id: String::new() };
        let op = history.begin(&name, call);
        let Ok(answer) = replica.release("churn", &name, granted.token).await else { return };
        if answer.outcome() != v1::release_response::Outcome::Released {
            history.refusal(format!("{lease}: {answer:?}"));
        }
        history.end(op, released(&answer));
    }
}

/// Churns until `end` is over; the history then has what was acknowledged.
async fn churn_until(
    cluster: &Cluster,
    history: &Arc<History>,
    rng: &mut Rng,
    round: usize,
    end: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut workers = JoinSet::new();
    for worker in 0..12 {
        workers.spawn(churn(Arc::clone(history), cluster.apis(), format!("lease-{round}-{worker}"), rng.fork()));
    }
    end.await?;
    // A replica that is gone ends its workers; one that only lost its disk may leave a call open.
    tokio::time::timeout(Duration::from_secs(2), async { while workers.join_next().await.is_some() {} }).await.ok();
    workers.shutdown().await;
    Ok(())
}

/// What was acknowledged is there, and was committed; and this was put to the test.
fn nothing_lost(report: &Report) -> anyhow::Result<()> {
    for property in ["P2", "P4", "P6.replay", "P6.search"] {
        ensure!(report.checked_of(property) > 10, "{property} had nothing to check: the test says nothing");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_dash_nine_of_all_three_replicas_loses_nothing() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("kill_dash_nine_of_all_three_replicas_loses_nothing");
    let mut cluster = Cluster::three("kill-all").await?;
    let history = Arc::new(History::of("kill-9-of-all-replicas"));
    let mut start = cluster.api().grant(api::acquire("churn", "first", "me", 1000)).await?.revision;
    for round in 0..3 {
        let load = Duration::from_millis(700 + rng.below(1500));
        let pids: Vec<_> = cluster.replicas.iter().map(|replica| replica.pid()).collect::<Result<_, _>>()?;
        let api = cluster.api();
        let mut clock_before = 0;
        churn_until(&cluster, &history, &mut rng, round, async {
            tokio::time::sleep(load).await;
            clock_before = api.status().await?.lease_clock_ms;
            for pid in pids {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            }
            Ok(())
        })
        .await?;
        cluster.kill_all()?;
        let fault = history.fault("kill -9 of all", 0);
        cluster.start_all().await?;
        history.healed(fault);
        for replica in cluster.apis() {
            history.read_all(&replica, "churn").await?;
            let status = replica.status().await?;
            ensure!(status.lease_clock_ms >= clock_before, "the lease clock went back from {clock_before} to {}", status.lease_clock_ms);
        }
        start = history.witness(&cluster.api(), "churn", start).await?;
        history.replicas(&cluster.settled().await?);
        nothing_lost(&history.check()?)?;
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
        let history = Arc::new(History::of("power-loss"));
        let start = cluster.api().grant(api::acquire("churn", &format!("first-{round}"), "me", 1000)).await?.revision;
        churn_until(&cluster, &history, &mut rng, round, async {
            tokio::time::sleep(load).await;
            lost = mount.power_loss()?;
            Ok(())
        })
        .await?;
        cluster.kill_all()?;
        mount.remount()?;
        cluster.start_all().await?;
        // Only what was acknowledged before the power was gone must be there.
        history.forget(lost);
        history.read_all(&cluster.api(), "churn").await?;
        history.witness(&cluster.api(), "churn", start).await?;
        nothing_lost(&history.check()?)?;
        cluster.kill_all()?;
    }
    cluster.passed()
}
