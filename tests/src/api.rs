//! One replica as a client sees it: the generated gRPC clients with the few shapes that tests need again and again.

use std::time::Duration;

use tenure_proto::v1::{self, cluster_service_client::ClusterServiceClient, lease_service_client::LeaseServiceClient};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// Both services of one replica. Cheap to clone; connects when first used, and again when the connection breaks.
#[derive(Clone, Debug)]
pub struct Api {
    /// host:port.
    pub addr: String,
    /// `LeaseService`.
    pub lease: LeaseServiceClient<Channel>,
    /// `ClusterService`.
    pub cluster: ClusterServiceClient<Channel>,
    /// For other services on the same connection.
    pub channel: Channel,
}

/// As the wire has it.
#[must_use]
pub fn millis(ms: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(ms)).ok()
}

/// As the wire has it.
#[must_use]
pub fn seconds(s: u64) -> Option<prost_types::Duration> {
    millis(s * 1000)
}

/// From the wire; 0 when unset or negative.
#[must_use]
pub fn to_millis(duration: Option<&prost_types::Duration>) -> u64 {
    duration.and_then(|d| Duration::try_from(*d).ok()).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Whether a client may send the same request (same `request_id`) again: the connection broke, or the replica said so.
#[must_use]
pub fn may_retry(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
        // How tonic words a connection that broke under a call.
        || (matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled) && (status.message().contains("h2 protocol error") || status.message().contains("transport error")))
}

impl Api {
    /// Does not connect yet.
    #[must_use]
    pub fn new(addr: &str) -> Self {
        let channel = Endpoint::from_shared(format!("http://{addr}"))
            .expect("host:port makes a URI")
            .connect_timeout(Duration::from_millis(500))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true)
            .connect_lazy();
        Self { addr: addr.to_owned(), lease: LeaseServiceClient::new(channel.clone()), cluster: ClusterServiceClient::new(channel.clone()), channel }
    }

    /// The first answer to an Acquire; with `wait_for`, the stream is then dropped.
    pub async fn acquire(&self, request: v1::AcquireRequest) -> Result<v1::AcquireResponse, Status> {
        let mut answers = self.lease.clone().acquire(request).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::unavailable("Acquire ended without an answer"))
    }

    /// Acquires and must be granted.
    pub async fn grant(&self, request: v1::AcquireRequest) -> anyhow::Result<v1::Lease> {
        let name = request.name.clone();
        match self.acquire(request).await?.result {
            Some(v1::acquire_response::Result::Granted(v1::Granted { lease: Some(lease), .. })) => Ok(lease),
            other => anyhow::bail!("{name} was not granted: {other:?}"),
        }
    }

    /// Renews on a stream of its own.
    pub async fn renew(&self, items: Vec<v1::RenewItem>) -> Result<v1::RenewResponse, Status> {
        let requests = tokio_stream::once(v1::RenewRequest { items });
        let mut answers = self.lease.clone().renew(requests).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::unavailable("Renew ended without an answer"))
    }

    /// Releases by token.
    pub async fn release(&self, namespace: &str, name: &str, token: u64) -> Result<v1::ReleaseResponse, Status> {
        let request = v1::ReleaseRequest { namespace: namespace.into(), name: name.into(), token, ..Default::default() };
        Ok(self.lease.clone().release(request).await?.into_inner())
    }

    /// Linearizable.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<v1::Lease, Status> {
        let request = v1::GetRequest { namespace: namespace.into(), name: name.into(), ..Default::default() };
        self.lease.clone().get(request).await?.into_inner().lease.ok_or_else(|| Status::internal("Get without a lease"))
    }

    /// Every page of a namespace.
    pub async fn list(&self, namespace: &str, label_selector: &str) -> Result<Vec<v1::Lease>, Status> {
        let mut request = v1::ListRequest { namespace: namespace.into(), label_selector: label_selector.into(), ..Default::default() };
        let mut leases = Vec::new();
        loop {
            let page = self.lease.clone().list(request.clone()).await?.into_inner();
            leases.extend(page.leases);
            if page.next_page_token.is_empty() {
                return Ok(leases);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// What the replica knows of its cluster.
    pub async fn status(&self) -> Result<v1::StatusResponse, Status> {
        Ok(self.cluster.clone().status(v1::StatusRequest {}).await?.into_inner())
    }
}

/// The usual Acquire.
#[must_use]
pub fn acquire(namespace: &str, name: &str, holder: &str, duration_ms: u64) -> v1::AcquireRequest {
    v1::AcquireRequest { namespace: namespace.into(), name: name.into(), holder: holder.into(), duration: millis(duration_ms), ..Default::default() }
}

/// The usual renewal.
#[must_use]
pub fn renewal(token: u64) -> v1::RenewItem {
    v1::RenewItem { token, ..Default::default() }
}
