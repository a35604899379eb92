//! What clients of Tenure do, on the bare wire: no SDK between the load and the replicas.

pub(crate) mod agent;
pub(crate) mod contend;
pub(crate) mod pair;
pub(crate) mod renew;
pub(crate) mod storm;
pub(crate) mod watch;
mod wire;

use std::time::Duration;

use anyhow::{Context as _, bail};
use tenure_proto::v1::{self, AcquireRequest, acquire_response::Result as Answer, lease_service_client::LeaseServiceClient};
use tonic::transport::Channel;

pub(crate) type Client = LeaseServiceClient<Channel>;

/// Of every lease that this program acquires, unless it must be in another.
pub(crate) const NAMESPACE: &str = "tenure-bench";
pub(crate) const HOLDER: &str = "tenure-bench";

pub(crate) fn duration(length: Duration) -> anyhow::Result<Option<prost_types::Duration>> {
    Ok(Some(length.try_into()?))
}

/// Its token. What an earlier run left held is this one's.
pub(crate) async fn acquire(client: &mut Client, name: &str, lease: Duration) -> anyhow::Result<u64> {
    let request = AcquireRequest {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        holder: HOLDER.to_owned(),
        duration: duration(lease)?,
        reclaim: true,
        ..Default::default()
    };
    granted(client, request).await
}

/// The token of the grant that is the one answer to this.
pub(crate) async fn granted(client: &mut Client, request: AcquireRequest) -> anyhow::Result<u64> {
    let mut answers = client.acquire(request).await?.into_inner();
    let answer = answers.message().await?.context("acquire had no answer")?;
    // To the end, so that the stream is not reset.
    while answers.message().await?.is_some() {}
    match answer.result {
        Some(Answer::Granted(v1::Granted { lease: Some(lease), .. })) => Ok(lease.token),
        other => bail!("not granted: {other:?}"),
    }
}
