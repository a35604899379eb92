//! A damaged replica that counts: of three, one is down and one has missed the end, so whatever the damaged one has lost silently is lost to the
//! cluster, and linearizable reads show it.

use std::sync::Arc;

use anyhow::{Context as _, ensure};

use crate::{
    Cluster, History, Settings,
    storage::{
        Layer, Round,
        damage::{self, Part},
        load::Load,
        verdict,
    },
};

const NAMESPACE: &str = "storage";

/// Builds such a cluster and goes through so many cases of damage.
pub async fn round(round: &mut Round, layer: Layer, cases: u64) -> anyhow::Result<()> {
    let snapshot_log_bytes = if round.rng.below(3) > 0 { "64KiB" } else { "64MiB" };
    let mut cluster = Cluster::start("storage-quorum", Settings { snapshot_log_bytes, ..Settings::default() }).await?;
    let history = Arc::new(History::of("storage-quorum"));
    // Who will be damaged, who misses the end, who will be down.
    let first = round.rng.below(3);
    let [damaged, late, down] = [0, 1, 2].map(|step| 1 + (first + step) % 3);
    let load = Load::spawn(&history, &cluster.apis(), NAMESPACE, "all", 6, &mut round.rng);
    load.goes_on(300).await?;
    let mut ledger = load.stop().await;
    let older = cluster.dir().join("older");
    // Files go while they are copied: what is there is good enough.
    damage::copy(&cluster.replica(damaged)?.data_dir, &older).ok();
    cluster.replica(late)?.kill()?;
    let two: Vec<_> = [damaged, down].into_iter().map(|id| Ok(cluster.replica(id)?.api.clone())).collect::<anyhow::Result<_>>()?;
    let load = Load::spawn(&history, &two, NAMESPACE, "two", 6, &mut round.rng);
    load.goes_on(200 + round.rng.below(400)).await?;
    // Under load: the last acknowledgement is of this very moment.
    cluster.kill_all()?;
    ledger.merge(load.stop().await);
    round.counts.operations += ledger.acknowledged;

    let template = |id: u64| format!("template-{id}");
    for id in [damaged, late] {
        let kept = cluster.dir().join(template(id));
        std::fs::rename(&cluster.replica(id)?.data_dir, kept)?;
    }
    let mut done = 0;
    while done < cases {
        let mut rng = round.rng.fork();
        for id in [damaged, late] {
            let (from, to) = (cluster.dir().join(template(id)), cluster.replica(id)?.data_dir.clone());
            std::fs::remove_dir_all(&to).ok();
            damage::copy(&from, &to)?;
        }
        let dir = cluster.replica(damaged)?.data_dir.clone();
        let Some(damage) = damage::apply(layer, &dir, &older, &[], &mut rng)?.filter(|damage| damage.part != Part::History) else { continue };
        let told = || format!("replica {damaged} of the quorum {damaged}, {late}: {}", damage.text);
        let checked = verdict::check(&dir).await.with_context(told)?;
        for id in [damaged, late] {
            let replica = cluster.replica(id)?;
            std::fs::write(&replica.log, "")?;
            replica.spawn()?;
        }
        let ended = cluster.replica(damaged)?.ready_or_ended().await.with_context(told)?;
        ensure!(ended.is_none() == checked.starts, "{}: {ended:?}, but check says: {}", told(), checked.said);
        if let Some(status) = ended {
            let said = cluster.replica(damaged)?.log_text()?;
            ensure!(!status.success() && status.code().is_some(), "{}: {status}: {said}", told());
            verdict::helpful(&said, &damage).with_context(told)?;
            ensure!(!damage.must_start, "{}: a power loss leaves this behind, and it is refused: {said}", told());
            round.counts.refused += 1;
        } else {
            cluster.replica(late)?.ready().await.with_context(told)?;
            for id in [damaged, late] {
                ledger.verify_at(&cluster.replica(id)?.api, NAMESPACE).await.with_context(told)?;
            }
            round.counts.recovered += 1;
        }
        cluster.kill_all()?;
        for id in [damaged, late] {
            verdict::no_panic(&cluster.replica(id)?.log_text()?).with_context(told)?;
        }
        round.counts.faults += 1;
        done += 1;
    }

    // The others were never touched: whatever became of the damaged one, they have everything.
    std::fs::remove_dir_all(&cluster.replica(damaged)?.data_dir)?;
    let late_dir = cluster.replica(late)?.data_dir.clone();
    std::fs::remove_dir_all(&late_dir)?;
    damage::copy(&cluster.dir().join(template(late)), &late_dir)?;
    for id in [late, down] {
        cluster.replica(id)?.spawn()?;
    }
    for id in [late, down] {
        cluster.replica(id)?.ready().await?;
        ledger.verify_at(&cluster.replica(id)?.api, NAMESPACE).await?;
    }
    cluster.kill_all()?;
    cluster.passed()
}
