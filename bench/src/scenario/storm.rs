//! Many leases acquired as fast as they are granted.

use super::million::request;
use crate::{cluster::Cluster, load::Loaded, report::Figure, tenure::storm};

pub(super) async fn run(what: String, cluster: &Cluster, leases: usize) -> anyhow::Result<Figure> {
    let before = cluster.reading().await?;
    let storm = storm::acquire(&cluster.endpoints(), leases, request).await?;
    let usage = match before {
        Some(before) => Some(cluster.used_since(&before).await?),
        None => None,
    };
    let loaded = Loaded { latency: storm.latency, time: storm.time, usage };
    Ok(Figure::of_load(what, cluster.target, &loaded, 1))
}
