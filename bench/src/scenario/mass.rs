//! Many leases whose time is over in the same moment, while other holders go on renewing.
//!
//! In Tenure each lease is asked for with what is left until that moment. It counts until the news of the last end is at a watch: a little more than until it was
//! committed. No lease may end before its time, none twice, and none may be missing.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tenure_proto::v1::{AcquireRequest, event::Type};
use tokio::task::JoinHandle;

use super::LONG;
use crate::{
    clock::{self, Moment},
    cluster::{Cluster, Target},
    connect,
    etcd::{self, pb::event::EventType},
    load::Running,
    report::Figure,
    tenure::{self, renew::Renewals, watch::Watch},
};

const NAMESPACE: &str = "tenure-bench-mass";
/// In etcd, where a lease cannot end at a given moment: all are kept alive once, as fast as that goes.
const PREFIX: &str = "tenure-bench-mass/";
const TTL: Duration = Duration::from_secs(20);
const OTHERS: usize = 64;
const OTHERS_CONNECTIONS: usize = 8;
/// Renewals a second of all the others.
const OTHERS_RATE: f64 = 1_000.0;
/// How fast leases are granted is found out with the first of these.
const TRIAL: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(300);
/// Tenure counts milliseconds of its own, which begin somewhere within ours.
const ROUNDING: Duration = Duration::from_millis(2);

pub(super) async fn run(what: String, cluster: &Cluster, leases: usize) -> anyhow::Result<Figure> {
    let endpoints = cluster.endpoints();
    let channels = connect::channels(&endpoints, OTHERS_CONNECTIONS).await?;
    let watching = connect::channel(&endpoints[endpoints.len() - 1]).await?;
    match cluster.target {
        Target::Tenure => {
            let mut others = Vec::new();
            for (channel, tokens) in tenure::renew::tokens(&channels, OTHERS, 1, LONG).await? {
                others.push(Renewals::open(channel, &tokens).await?);
            }
            let trial = tenure::storm::acquire(&endpoints, TRIAL.min(leases), move |n| request(leases + n, LONG)).await?;
            let each = trial.time.div_f64(trial.tokens.len() as f64);
            let ends = tokio::task::spawn_local(ends_in_tenure(Watch::open(watching, Some(NAMESPACE)).await?, leases));
            let all = async move {
                let (begun, until) = (clock::now(), each.mul_f64(leases as f64 * 1.5) + Duration::from_secs(5));
                let storm = tenure::storm::acquire(&endpoints, leases, move |n| {
                    let left = until.checked_sub(begun.passed()).filter(|left| *left >= Duration::from_secs(1));
                    request(n, left.context("leases were granted too slowly for all of them to end in one moment")?)
                });
                let storm = storm.await?;
                let acquired_per_second = leases as f64 / storm.time.as_secs_f64();
                Ok(Due { counted: begun, at: until, within: Duration::from_nanos(storm.latency.max()), acquired_per_second })
            };
            measure(what, cluster, leases, Running::start(others, Some(OTHERS_RATE))?, all, ends).await
        }
        Target::Etcd => {
            let mut others = Vec::new();
            for n in 0..OTHERS {
                others.push(etcd::renew::Durable::new(channels[n % channels.len()].clone(), n, 1).await?);
            }
            let ends = tokio::task::spawn_local(ends_in_etcd(etcd::watch::Watch::open(watching, PREFIX).await?, leases));
            let all = async move {
                let storm = etcd::storm::put_all(&endpoints, leases, Some(TTL), |n| format!("{PREFIX}node-{n:07}")).await?;
                let acquired_per_second = leases as f64 / storm.time.as_secs_f64();
                // Each has its whole time again from here on.
                let (first, last) = etcd::storm::keep_all(&endpoints, &storm.leases).await?;
                Ok(Due { counted: first, at: TTL, within: first.until(last), acquired_per_second })
            };
            measure(what, cluster, leases, Running::start(others, Some(OTHERS_RATE))?, all, ends).await
        }
    }
}

fn request(n: usize, length: Duration) -> anyhow::Result<AcquireRequest> {
    let (namespace, name) = (NAMESPACE.to_owned(), format!("node-{n:07}"));
    Ok(AcquireRequest { namespace, holder: name.clone(), name, duration: tenure::duration(length)?, reclaim: true, ..Default::default() })
}

/// When all of them should end.
struct Due {
    counted: Moment,
    /// So long after that.
    at: Duration,
    /// Or this much later, because asking for it took that long.
    within: Duration,
    acquired_per_second: f64,
}

type Ends = JoinHandle<anyhow::Result<(Moment, Moment)>>;

async fn measure(
    what: String,
    cluster: &Cluster,
    leases: usize,
    mut others: Running,
    all: impl Future<Output = anyhow::Result<Due>>,
    ends: Ends,
) -> anyhow::Result<Figure> {
    let due = others.on_until(all).await??;
    others.on_for(due.at.saturating_sub(due.counted.passed()).saturating_sub(Duration::from_millis(100))).await?;
    let before = cluster.reading().await?;
    others.begin();
    let (first, last) = others.on_until(tokio::time::timeout(PATIENCE, ends)).await?.context("not all leases ended")???;
    let (first, last) = (due.counted.until(first), due.counted.until(last));
    let latency = others.take()?;
    let usage = match before {
        Some(before) => Some(cluster.used_since(&before).await?),
        None => None,
    };
    others.end().await?;
    ensure!(first + ROUNDING >= due.at, "a lease ended {:?} before its time", due.at.saturating_sub(first));
    let (ms, late) = (|length: Duration| length.as_secs_f64() * 1000.0, last.saturating_sub(due.at));
    // The latency is of the others: from just before the moment to the last end.
    let mut figure = Figure::of_times(what, cluster.target, latency);
    figure.values.extend([
        ("all_ended_ms", ms(late)),
        ("ended_per_second", leases as f64 / late.as_secs_f64()),
        ("deadlines_within_ms", ms(due.within)),
        ("acquired_per_second", due.acquired_per_second),
    ]);
    figure.values.extend(usage.map(|usage| ("cpu_us_per_end", usage.cpu().as_secs_f64() * 1e6 / leases as f64)));
    Ok(figure)
}

/// When the first and the last of so many came.
async fn ends_in_tenure(mut watch: Watch, leases: usize) -> anyhow::Result<(Moment, Moment)> {
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

/// Likewise.
async fn ends_in_etcd(mut watch: etcd::watch::Watch, leases: usize) -> anyhow::Result<(Moment, Moment)> {
    let (mut ended, mut first) = (HashSet::with_capacity(leases), None);
    loop {
        for event in watch.next().await? {
            if event.r#type() == EventType::Delete {
                first.get_or_insert_with(clock::now);
                ensure!(ended.insert(event.kv.context("a record")?.key), "a lease ended twice");
            }
        }
        if let Some(first) = first.filter(|_| ended.len() == leases) {
            return Ok((first, clock::now()));
        }
    }
}
