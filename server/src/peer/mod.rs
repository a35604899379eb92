//! Between replicas: connections out ([`Peers`]), calls in (`service`), and the check that both are who they say (`check`).

mod check;
mod service;

use std::{str::FromStr as _, time::Duration};

use hyper_util::rt::TokioIo;
use tenure_proto::peer::v1::{HelloRequest, HelloResponse, peer_service_client::PeerServiceClient};
use tonic::{
    Status,
    metadata::{MetadataMap, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

pub(crate) use service::{PeerService, rules, serve};

use crate::{consensus::Node, identity::Identity, net::SharedConnector};

/// The cluster that the caller belongs to; absent only on Hello.
pub(crate) const CLUSTER: &str = "tenure-cluster";
/// Who calls: `<node id>/<replica id>`.
pub(crate) const FROM: &str = "tenure-from";
/// Who is meant: `<node id>/<replica id>`.
pub(crate) const TO: &str = "tenure-to";

/// The largest message between replicas.
const MAX_MESSAGE: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// A client on a connection of its own, whose every call carries [`CLUSTER`], [`FROM`] and [`TO`].
pub(crate) type PeerClient = PeerServiceClient<InterceptedService<Channel, Stamp>>;

/// Dials other replicas.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    connector: SharedConnector,
    identity: Identity,
}

/// Writes who calls whom into the metadata.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    identity: Identity,
    /// The cluster may be joined after dialing, so that is added call by call.
    metadata: Result<MetadataMap, String>,
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        let metadata = self.metadata.as_ref().map_err(|why| Status::invalid_argument(why.clone()))?;
        for pair in metadata.iter() {
            if let tonic::metadata::KeyAndValueRef::Ascii(key, value) = pair {
                request.metadata_mut().insert(key.clone(), value.clone());
            }
        }
        if let Some(cluster) = self.identity.cluster_id() {
            let value = MetadataValue::from_str(&cluster).map_err(|_| Status::internal("the cluster id is not ASCII"))?;
            request.metadata_mut().insert(CLUSTER, value);
        }
        Ok(request)
    }
}

impl Peers {
    pub(crate) fn new(connector: SharedConnector, identity: Identity) -> Self {
        Self { connector, identity }
    }

    /// Connects lazily; a connection of its own, with connect timeout, keep-alive, no Nagle, limits set.
    pub(crate) fn dial(&self, id: u64, node: &Node) -> PeerClient {
        let from = format!("{}/{}", self.identity.node_id(), self.identity.replica_id());
        let stamp = Stamp { identity: self.identity.clone(), metadata: stamp(&from, &format!("{id}/{}", node.replica_id)) };
        PeerServiceClient::with_interceptor(self.channel(&node.peer_addr), stamp).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    /// Asks an address who is there.
    pub(crate) async fn hello(&self, addr: &str) -> Result<HelloResponse, Status> {
        let mut client = PeerServiceClient::new(self.channel(addr)).max_decoding_message_size(64 << 10);
        let answer = tokio::time::timeout(HELLO_TIMEOUT, client.hello(HelloRequest {})).await;
        Ok(answer.map_err(|_| Status::deadline_exceeded(format!("{addr} did not answer within {HELLO_TIMEOUT:?}")))??.into_inner())
    }

    fn channel(&self, addr: &str) -> Channel {
        let (connector, addr) = (self.connector.clone(), addr.to_owned());
        // The URI is only a name: the connector is told the address as it is configured.
        Endpoint::from_static("http://peer")
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
                let connecting = connector.connect(addr.clone());
                async move { connecting.await.map(TokioIo::new) }
            }))
    }
}

fn stamp(from: &str, to: &str) -> Result<MetadataMap, String> {
    let mut metadata = MetadataMap::new();
    for (key, value) in [(FROM, from), (TO, to)] {
        let value = MetadataValue::from_str(value).map_err(|_| format!("{value:?} cannot be sent as {key}"))?;
        metadata.insert(key, value);
    }
    Ok(metadata)
}
