//! Honest writes, which make the log grow into its next files while something is short: what they are told is remembered.

use std::{collections::BTreeMap, time::Duration};

use tokio::task::JoinSet;

use super::{
    Orders, Told,
    line::framed,
    storm::{Counts, Kept},
};
use crate::v1;

const PUT: &str = "/tenure.v1.LeaseService/Put";
const WRITERS: usize = 8;
/// Of annotations, with each write.
const BYTES: usize = 15 << 10;
const WITHIN: Duration = Duration::from_secs(2);
/// Of each writer: some 25 MB in ten seconds, more than a file of the log as it is shipped.
pub(super) const FAST: Duration = Duration::from_millis(25);
/// Little disks take that for a minute: log, two snapshots, and one that is being written.
const SLOW: Duration = Duration::from_millis(100);

/// Writes until the attack is over.
pub(crate) async fn slowly(orders: Orders) -> anyhow::Result<Told> {
    let acknowledged = write(&orders, SLOW).await;
    Ok(Told { counts: counted(&acknowledged), acknowledged, ..Told::default() })
}

/// For people.
pub(super) fn counted(acknowledged: &BTreeMap<String, u64>) -> String {
    format!("{} writes of {} KiB acknowledged", acknowledged.values().sum::<u64>(), BYTES >> 10)
}

/// The last number that was acknowledged, by lease.
pub(super) async fn write(orders: &Orders, pause: Duration) -> BTreeMap<String, u64> {
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let orders = orders.clone();
        tasks.spawn(async move {
            let kept: Vec<Kept> = orders.client.iter().map(|addr| Kept::new(addr)).collect();
            let (name, counts) = (format!("writer-{writer}"), Counts::default());
            let (mut acknowledged, mut at) = (0, writer);
            for number in 1.. {
                if orders.is_over() {
                    break;
                }
                let put = v1::PutRequest {
                    namespace: Told::NAMESPACE.into(),
                    name: name.clone(),
                    labels: [(Told::NUMBER.to_owned(), number.to_string())].into(),
                    annotations: [("weight".to_owned(), "w".repeat(BYTES))].into(),
                    ..Default::default()
                };
                let writing = async { kept[at % kept.len()].line(&counts).await?.call(PUT, &[], framed(&put)).await?.code().await };
                match tokio::time::timeout(WITHIN, writing).await {
                    Ok(Ok(0)) => acknowledged = number,
                    // Another replica may take the next one.
                    _ => at += 1,
                }
                tokio::time::sleep(pause).await;
            }
            (name, acknowledged)
        });
    }
    tasks.join_all().await.into_iter().collect()
}
