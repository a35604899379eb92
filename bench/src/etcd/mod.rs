//! What clients of etcd do instead, on the bare wire as well.

pub(crate) mod lock;
pub(crate) mod renew;
pub(crate) mod storm;
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
use tonic::transport::Channel;

use self::pb::{LeaseGrantRequest, PutRequest, kv_client::KvClient, lease_client::LeaseClient};

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
