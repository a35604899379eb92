//! Many leases acquired as fast as they are granted. In etcd, a grant and a record that goes with it.

use super::{LONG, million::request};
use crate::{
    cluster::{Cluster, Target},
    etcd,
    load::Loaded,
    report::Figure,
    tenure,
};

pub(super) async fn run(what: String, cluster: &Cluster, leases: usize) -> anyhow::Result<Figure> {
    let (endpoints, before) = (cluster.endpoints(), cluster.reading().await?);
    let (latency, time) = match cluster.target {
        Target::Tenure => {
            let storm = tenure::storm::acquire(&endpoints, leases, request).await?;
            (storm.latency, storm.time)
        }
        Target::Etcd => {
            let storm = etcd::storm::put_all(&endpoints, leases, Some(LONG), |n| format!("tenure-bench/node-{n:07}")).await?;
            (storm.latency, storm.time)
        }
    };
    let usage = match before {
        Some(before) => Some(cluster.used_since(&before).await?),
        None => None,
    };
    Ok(Figure::of_load(what, cluster.target, &Loaded { latency, time, usage }, 1))
}
