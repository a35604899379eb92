//! Many leases whose time is over in the same moment, while other holders go on renewing.
//!
//! Each lease is asked for with what is left until that moment. It counts until the news of the last end is at a watch: a little more than until it was
//! committed. No lease may end before its time, none twice, and none may be missing.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tenure_proto::v1::{AcquireRequest, event::Type};

use super::LONG;
use crate::{
    clock,
    cluster::Cluster,
    connect,
    load::Running,
    report::Figure,
    tenure::{self, renew::Renewals, storm, watch::Watch},
};

const NAMESPACE: &str = "tenure-bench-mass";
const OTHERS: usize = 64;
const OTHERS_CONNECTIONS: usize = 8;
/// Renewals a second of all the others.
const OTHERS_RATE: f64 = 1_000.0;
/// How fast leases are granted is found out with the first of these.
const TRIAL: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// Tenure counts milliseconds of its own, which begin somewhere within ours.
const ROUNDING: Duration = Duration::from_millis(2);

pub(super) async fn run(what: String, cluster: &Cluster, leases: usize) -> anyhow::Result<Figure> {
    let endpoints = cluster.endpoints();
    let request = |n: usize, length: Duration| {
        anyhow::Ok(AcquireRequest {
            namespace: NAMESPACE.to_owned(),
            name: format!("node-{n:07}"),
            holder: format!("node-{n:07}"),
            duration: tenure::duration(length)?,
            ..Default::default()
        })
    };
    let trial = storm::acquire(&endpoints, TRIAL.min(leases), move |n| request(leases + n, LONG)).await?;
    let each = trial.time.div_f64(trial.tokens.len() as f64);
    let until = each.mul_f64(leases as f64 * 1.5) + Duration::from_secs(4);
    let watch = Watch::open(connect::channel(&endpoints[endpoints.len() - 1]).await?, Some(NAMESPACE)).await?;
    let channels = connect::channels(&endpoints, OTHERS_CONNECTIONS).await?;
    let mut others = Vec::new();
    for (channel, tokens) in tenure::renew::tokens(&channels, OTHERS, 1, LONG).await? {
        others.push(Renewals::open(channel, &tokens).await?);
    }

    let begun = clock::now();
    let ends = tokio::task::spawn_local(watch_ends(watch, leases));
    let storm = storm::acquire(&endpoints, leases, move |n| {
        let left = until.checked_sub(begun.passed()).filter(|left| *left >= Duration::from_secs(1));
        request(n, left.context("leases were granted too slowly for all of them to end in one moment")?)
    });
    let mut others = Running::start(others, Some(OTHERS_RATE))?;
    let storm = others.on_until(storm).await??;
    others.on_for((until.saturating_sub(begun.passed())).saturating_sub(Duration::from_millis(100))).await?;
    let before = cluster.reading().await?;
    others.begin();
    let (first, last) = others.on_until(tokio::time::timeout(PATIENCE, ends)).await?.context("not all leases ended")???;
    let (first, last) = (begun.until(first), begun.until(last));
    let latency = others.take()?;
    let usage = match before {
        Some(before) => Some(cluster.used_since(&before).await?),
        None => None,
    };
    others.end().await?;
    ensure!(first + ROUNDING >= until, "a lease ended {:?} before its time", until.saturating_sub(first));
    let ms = |length: Duration| length.as_secs_f64() * 1000.0;
    // `latency` is of the others: from just before the moment to the last end.
    let mut figure = Figure::of_times(what, cluster.target, latency);
    figure.values.push(("all_ended_ms", ms(last.saturating_sub(until))));
    // Deadlines lie between the moment and this much later.
    figure.values.push(("deadlines_within_ms", storm.latency.max() as f64 / 1e6));
    figure.values.push(("acquired_per_second", leases as f64 / storm.time.as_secs_f64()));
    figure.values.extend(usage.map(|usage| ("cpu_us_per_end", usage.cpu().as_secs_f64() * 1e6 / leases as f64)));
    Ok(figure)
}

/// When the first and the last of so many came.
async fn watch_ends(mut watch: Watch, leases: usize) -> anyhow::Result<(clock::Moment, clock::Moment)> {
    let (mut ended, mut first) = (HashSet::with_capacity(leases), None);
    loop {
        for event in watch.next().await? {
            match event.r#type() {
                Type::Created | Type::Acquired => {}
                Type::Expired => {
                    first.get_or_insert_with(clock::now);
                    let name = event.lease.context("a lease")?.name;
                    ensure!(ended.insert(name), "a lease ended twice");
                }
                other => bail!("nobody asked for this: {other:?}"),
            }
        }
        if let Some(first) = first.filter(|_| ended.len() == leases) {
            return Ok((first, clock::now()));
        }
    }
}
