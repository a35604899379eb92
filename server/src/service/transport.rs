//! The client port: which services are on it, and every limit of its connections.
//!
//! tonic hands hyper `None` for guards that hyper has defaults for, so each is set here. Nothing that one connection sends may disturb another.

use std::{future::Future, sync::Arc, time::Duration};

use futures::future;
use tenure_proto::v1::{self, cluster_service_server::ClusterServiceServer, lease_service_server::LeaseServiceServer};
use tonic::{service::Routes, transport::Server};

use super::{Parts, Service, cluster::Cluster, health, lease::Leases};
use crate::{
    admission::{BodyRule, Budget, Busy, CallsLayer, HTTP2_PREFACE_BYTES, Port, Rules},
    net::Incoming,
};

/// Of a request; longer ones are refused with `INVALID_REQUEST`, and the connection lives on.
const REQUEST_BYTES: usize = 1 << 20;
/// Of an answer; pages and batches end well before.
const ANSWER_BYTES: usize = 8 << 20;
/// Calls at a time on one connection. A client with more opens another connection (or waits: it is HTTP/2's own limit).
const STREAMS: u32 = 1_024;
/// Calls that a client cancelled before they were looked at. hyper's 20 would end the connection of a client that gives up on all its calls at once.
const CANCELLED_STREAMS: usize = 1_024;
/// Calls that were reset because the client broke the protocol in them.
const BROKEN_STREAMS: usize = 1_024;
const HEADER_BYTES: u32 = 16 << 10;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(5);
/// For the first bytes of HTTP/2: who connects and says nothing costs a descriptor only so long.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);
/// For a client to take something of what is written to it. Keep-alive says so earlier, unless it cannot be written either.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// Without a call, keep-alives aside. A client that comes back connects again, which costs a round trip.
const IDLE: Duration = Duration::from_secs(300);
/// After the shutdown, for calls that are being answered.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// What holds for connections to the client port.
pub(crate) fn rules(connections: usize, per_source: Option<usize>) -> Rules {
    Rules {
        port: "client",
        connections,
        // Many clients share an address (a container host, a NAT); one address has no right to all of the port.
        per_source: per_source.unwrap_or(connections / 4).clamp(1, connections),
        first_bytes: (HTTP2_PREFACE_BYTES, PREFACE_WITHIN),
        write_within: WRITE_WITHIN,
        idle: Some(IDLE),
        busy: Busy::WithCalls,
        unfinished: UNFINISHED,
    }
}

/// Bytes of requests of which a part has arrived: 32 of the largest on one connection, twice that from one address, and a source alone cannot fill
/// the port. Small requests come whole, and are not counted.
const UNFINISHED: Budget = Budget { connection: 32 << 20, source: 64 << 20, port: 128 << 20 };
/// For a request to arrive whole; in a stream, for each of its messages.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Calls whose requests are streams.
const STREAMED: [&str; 3] = [
    "/tenure.v1.LeaseService/Renew",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

fn body_rule(path: &str) -> BodyRule {
    BodyRule { stream: STREAMED.contains(&path), most: REQUEST_BYTES, within: REQUEST_WITHIN }
}

/// The services of the client port, and the work that goes with them for as long as they are served.
async fn client_router(parts: Arc<Parts>) -> (Routes, impl Future<Output = ()> + Send + 'static) {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    health::begin(&reporter, &parts.readiness).await;
    let service = Service::new(parts.clone());
    let leases = LeaseServiceServer::new(Leases(service.clone())).max_decoding_message_size(REQUEST_BYTES).max_encoding_message_size(ANSWER_BYTES);
    let cluster = ClusterServiceServer::new(Cluster(service.clone())).max_decoding_message_size(REQUEST_BYTES).max_encoding_message_size(ANSWER_BYTES);
    let reflected = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(leases)
        .add_service(cluster)
        .add_service(health_service)
        .add_service(reflected().build_v1().expect("the build has checked our own descriptors"))
        .add_service(reflected().build_v1alpha().expect("the build has checked our own descriptors"));
    let work = async move {
        let forgetting = service.pages.forget_idle();
        let health = health::follow(reporter, parts.readiness.clone(), parts.stopping.clone());
        let _ = future::join(forgetting, health).await;
    };
    (routes, work)
}

/// Serves clients until `shutdown`, and then until what is being answered is, or a few seconds have passed. Cancel [`Parts::stopping`] first: streams
/// do not end by themselves.
pub(crate) async fn serve_clients(incoming: Incoming, port: Arc<Port>, parts: Arc<Parts>, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
    let (routes, work) = client_router(parts).await;
    let going_down = tokio_util::sync::CancellationToken::new();
    let served = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_pending_accept_reset_streams(Some(CANCELLED_STREAMS))
        .http2_max_local_error_reset_streams(Some(BROKEN_STREAMS))
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(CallsLayer { rule: body_rule, reasoned: Some(super::status::reasoned) })
        .add_routes(routes)
        .serve_with_incoming_shutdown(port.guard(incoming), going_down.clone().cancelled_owned());
    let deadline = async {
        shutdown.await;
        going_down.cancel();
        tokio::time::sleep(DRAIN_WITHIN).await;
        tracing::warn!("some calls were still being answered when the time for that was over");
    };
    tokio::select! {
        served = served => served?,
        () = deadline => {}
        () = work => unreachable!("forgets for ever"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn calls_whose_requests_are_streams_are_those_of_the_descriptors() {
        for set in [
            v1::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for file in prost_types::FileDescriptorSet::decode(set).expect("ours").file {
                for (service, method) in file.service.iter().flat_map(|service| service.method.iter().map(move |method| (service, method))) {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert_eq!(body_rule(&path).stream, method.client_streaming(), "{path}");
                }
            }
        }
    }
}
