//! What it costs one process to keep many leases on its one stream.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tenure_client::{Client, Lease, Step};
use tokio::task::JoinSet;

use crate::{clock, cluster::Target, report::Figure, usage::cpu};

/// Acquires on their way at once.
const TOGETHER: usize = 256;
const SETTLE: Duration = Duration::from_secs(5);

/// Keeps `leases` for `time`, and measures this process and those of `replicas`.
pub(crate) async fn keep(endpoints: &[String], leases: usize, duration: Duration, time: Duration, replicas: &[u32]) -> anyhow::Result<Figure> {
    let client = Client::builder().endpoints(endpoints).build()?;
    let (mut asked, mut held): (JoinSet<anyhow::Result<Lease>>, Vec<Lease>) = (JoinSet::new(), Vec::new());
    for at in 0..leases {
        let mut asking = client.lease(format!("kept-{at}")).namespace("tenure-bench").duration(duration).ask()?;
        asked.spawn(async move {
            match asking.next().await? {
                Step::Held(lease) => Ok(lease),
                other => bail!("not granted: {other:?}"),
            }
        });
        if asked.len() >= TOGETHER {
            held.push(asked.join_next().await.context("is under way")???);
        }
    }
    while let Some(lease) = asked.join_next().await {
        held.push(lease??);
    }
    eprintln!("holding {leases} leases");
    tokio::time::sleep(SETTLE).await;
    let used = || replicas.iter().map(|pid| cpu(*pid)).collect::<anyhow::Result<Vec<_>>>();
    let (mine, theirs, begun) = (cpu(std::process::id())?, used()?, clock::now());
    tokio::time::sleep(time).await;
    let passed = begun.passed();
    let share = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / passed.as_secs_f64() * 100.0;
    let client = share(cpu(std::process::id())?, mine);
    let replicas: Vec<f64> = used()?.into_iter().zip(theirs).map(|(now, before)| share(now, before)).collect();
    let lost = held.iter().filter(|lease| !lease.is_held()).count();
    ensure!(lost == 0, "{lost} of {leases} leases were lost");
    let mut figure = Figure::new(format!("keeping {leases} leases of {duration:?} on one stream, in per cent of a core"), Target::Tenure);
    figure.values.push(("client_cpu_percent", client));
    if !replicas.is_empty() {
        figure.values.push(("together_cpu_percent", client + replicas.iter().sum::<f64>()));
    }
    figure.values.push(("seconds", passed.as_secs_f64()));
    figure.lists.push(("replica_cpu_percent", replicas));
    Ok(figure)
}
