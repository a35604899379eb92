//! What clients of etcd do instead, on the bare wire as well.

pub(crate) mod lock;
pub(crate) mod renew;
pub(crate) mod watch;

/// As much of etcd's API as is called here.
pub(crate) mod pb {
    #![allow(missing_docs, unreachable_pub, dead_code, clippy::all, reason = "generated")]
    tonic::include_proto!("etcdserverpb");
}

/// Its lock service.
mod lockpb {
    #![allow(missing_docs, unreachable_pub, dead_code, clippy::all, reason = "generated")]
    tonic::include_proto!("v3lockpb");
}

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use self::pb::{LeaseGrantRequest, PutRequest, kv_client::KvClient, lease_client::LeaseClient};
use crate::connect;

const CONNECTIONS: usize = 16;
/// Puts under way at once.
const TOGETHER: usize = 256;

/// A new lease's id. `ttl` is in whole seconds, as etcd has them.
pub(crate) async fn grant(channel: &Channel, ttl: Duration) -> anyhow::Result<i64> {
    let request = LeaseGrantRequest { ttl: ttl.as_secs().try_into()?, id: 0 };
    let granted = LeaseClient::new(channel.clone()).lease_grant(request).await?.into_inner();
    ensure!(granted.error.is_empty() && granted.id != 0, "no lease: {granted:?}");
    Ok(granted.id)
}

/// A record that goes with that lease, if it is not 0; the revision of it.
pub(crate) async fn put(channel: &Channel, key: String, lease: i64) -> anyhow::Result<u64> {
    let request = PutRequest { key: key.into(), value: crate::tenure::HOLDER.into(), lease };
    let answer = KvClient::new(channel.clone()).put(request).await?.into_inner();
    Ok(answer.header.context("a header")?.revision.try_into()?)
}

/// Puts so many records, as fast as that goes.
pub(crate) async fn fill(endpoints: &[String], count: usize, key: impl Fn(usize) -> String) -> anyhow::Result<()> {
    let (channels, mut under_way) = (connect::channels(endpoints, CONNECTIONS).await?, JoinSet::new());
    for n in 0..count {
        if under_way.len() >= TOGETHER {
            under_way.join_next().await.context("is under way")???;
        }
        let (channel, key) = (channels[n % channels.len()].clone(), key(n));
        under_way.spawn_local(async move { put(&channel, key, 0).await.map(drop) });
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}
