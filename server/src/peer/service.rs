//! What other replicas may ask of this one: Raft's calls, writes to pass on, read indexes, membership.
//!
//! Every call but Hello is checked first ([`super::check`]). This server answers peers only; clients have a port of their own.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{future::BoxFuture, stream::BoxStream};
use tenure_proto::peer::v1::{
    AppendRequest, AppendResponse, ChangeMembersRequest, ChangeMembersResponse, ForwardRequest, ForwardResponse, HelloRequest, HelloResponse, ReadIndexRequest,
    ReadIndexResponse, SnapshotChunk, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    peer_service_server::{self, PeerServiceServer},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    KEEP_ALIVE, MAX_MESSAGE,
    check::{self, Asks},
};
use crate::{
    admission::{BodyRule, Budget, Busy, CallsLayer, HTTP2_PREFACE_BYTES, Port, Rules},
    config::Addresses,
    consensus::{Consensus, ProposeError},
    identity::Identity,
    members::{self, Members},
    net::Incoming,
    write::{Proposer, forward},
};

/// Calls under way on one connection. A peer needs a handful; heartbeats are calls of their own.
const MAX_STREAMS: u32 = 256;
const MAX_HEADERS: u32 = 16 << 10;
/// Heartbeats and votes are given up all the time while a peer struggles; that is no attack.
const MAX_PENDING_RESETS: usize = 4096;
const MAX_LOCAL_RESETS: usize = 1024;

/// For the first bytes of HTTP/2, which a peer sends as soon as it is connected.
const PREFACE_WITHIN: Duration = Duration::from_secs(5);
/// For a peer to take something of what is written to it. Keep-alive says so earlier, unless it cannot be written either.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// How long calls under way may take to end when the replica goes.
const GOODBYE: Duration = Duration::from_millis(100);

/// What holds for connections to the peer port. Replicas may share an address, so one source may have half of them.
pub(crate) fn rules(connections: usize) -> Rules {
    Rules {
        port: "peer",
        connections,
        per_source: connections.div_ceil(2),
        first_bytes: (HTTP2_PREFACE_BYTES, PREFACE_WITHIN),
        write_within: WRITE_WITHIN,
        // A connection for votes has no call for months; it goes only when another needs its place.
        idle: None,
        busy: Busy::WithCalls,
        unfinished: UNFINISHED,
    }
}

/// Bytes of requests of which a part has arrived: two of the largest. Raft sends a follower one large append at a time.
const UNFINISHED: Budget = Budget { connection: 128 << 20, source: 128 << 20, port: 128 << 20 };
/// For a message to arrive whole: the largest takes 18 s at 30 Mbit/s.
const REQUEST_WITHIN: Duration = Duration::from_secs(20);
/// The largest message of a call that carries neither entries nor snapshots nor commands.
const MAX_SMALL_MESSAGE: usize = 64 << 10;

fn body_rule(path: &str) -> BodyRule {
    let stream = ["Append", "InstallSnapshot", "Forward"].iter().any(|call| path.strip_prefix("/tenure.peer.v1.PeerService/") == Some(call));
    BodyRule { stream, most: if stream { MAX_MESSAGE } else { MAX_SMALL_MESSAGE }, within: REQUEST_WITHIN }
}

/// The peer port's service.
#[derive(Clone)]
pub(crate) struct PeerService {
    identity: Identity,
    consensus: Consensus,
    forward: Arc<dyn Fn(Streaming<ForwardRequest>) -> ForwardResponses + Send + Sync>,
    change_members: Arc<dyn Fn(ChangeMembersRequest) -> MembersChanged + Send + Sync>,
    advertise: Addresses,
    told: Arc<AtomicBool>,
}

type ForwardResponses = BoxStream<'static, Result<ForwardResponse, Status>>;
type MembersChanged = BoxFuture<'static, Result<ChangeMembersResponse, Status>>;

impl PeerService {
    pub(crate) fn new(identity: Identity, consensus: Consensus, proposer: Proposer, members: Members, advertise: Addresses) -> Self {
        let forward = move |requests| forward::serve(&proposer, requests);
        let change_members = move |request| -> MembersChanged {
            let members = members.clone();
            Box::pin(async move { members::serve(&members, request).await })
        };
        Self { identity, consensus, forward: Arc::new(forward), change_members: Arc::new(change_members), advertise, told: Arc::default() }
    }

    /// Raft without what is built on it.
    #[cfg(test)]
    pub(crate) fn raft_only(identity: Identity, consensus: Consensus, advertise: Addresses) -> Self {
        let forward = |_| -> ForwardResponses { Box::pin(futures::stream::empty()) };
        let change_members = |_| -> MembersChanged { Box::pin(std::future::ready(Err(Status::unimplemented("raft only")))) };
        Self { identity, consensus, forward: Arc::new(forward), change_members: Arc::new(change_members), advertise, told: Arc::default() }
    }

    async fn check(&self, metadata: &MetadataMap, asks: Asks) -> Result<(), Status> {
        let verdict = check::check(metadata, &self.identity, &self.consensus.leadership().borrow(), asks);
        match &verdict {
            check::Verdict::Join(cluster) => {
                self.identity.join(cluster).await.map_err(|error| Status::failed_precondition(format!("{error:#}")))?;
            }
            check::Verdict::NotThatReplica(why) if !self.told.swap(true, Ordering::Relaxed) => tracing::error!(why, "not serving as this member"),
            _ => {}
        }
        verdict.into()
    }
}

/// Serves the peer port until `shutdown`: then what is under way may end within [`GOODBYE`], and every connection is cut. Append streams
/// never end by themselves, and a connection that outlived its replica would look like a live peer.
pub(crate) async fn serve(
    incoming: Incoming,
    port: Arc<Port>,
    service: PeerService,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let service = PeerServiceServer::new(service).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let leaving = CancellationToken::new();
    let cut = EndsAll(Arc::clone(&port));
    let server = tonic::transport::Server::builder()
        // tonic switches hyper's own bounds off unless they are set here.
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .layer(CallsLayer { rule: body_rule, reasoned: None })
        .add_service(service)
        .serve_with_incoming_shutdown(port.guard(incoming), leaving.clone().cancelled_owned());
    let mut server = std::pin::pin!(server);
    tokio::select! {
        served = &mut server => return served,
        () = shutdown => leaving.cancel(),
    }
    if let Ok(served) = tokio::time::timeout(GOODBYE, &mut server).await {
        return served;
    }
    drop(cut);
    server.await
}

/// Ends the connections of a port when it is dropped: the server's own tasks would keep them.
struct EndsAll(Arc<Port>);

impl Drop for EndsAll {
    fn drop(&mut self) {
        self.0.end_all();
    }
}

fn refused(error: ProposeError) -> Status {
    match error {
        ProposeError::NotLeader => Status::failed_precondition(error.to_string()),
        ProposeError::Unknown => Status::unknown(error.to_string()),
        ProposeError::Stopped(_) => Status::unavailable(error.to_string()),
    }
}

#[tonic::async_trait]
impl peer_service_server::PeerService for PeerService {
    type AppendStream = BoxStream<'static, Result<AppendResponse, Status>>;
    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        self.check(request.metadata(), Asks::ToFollow).await?;
        Ok(Response::new(self.consensus.append(request.into_inner())))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        self.check(request.metadata(), Asks::Else).await?;
        self.consensus.vote(request.into_inner()).await.map(Response::new)
    }

    async fn pre_vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        self.check(request.metadata(), Asks::Else).await?;
        self.consensus.pre_vote(request.into_inner()).await.map(Response::new)
    }

    async fn transfer_leader(&self, request: Request<TransferLeaderRequest>) -> Result<Response<TransferLeaderResponse>, Status> {
        self.check(request.metadata(), Asks::Else).await?;
        self.consensus.take_over(request.into_inner()).await.map(Response::new)
    }

    async fn install_snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotResponse>, Status> {
        self.check(request.metadata(), Asks::ToFollow).await?;
        self.consensus.install_snapshot(request.into_inner()).await.map(Response::new)
    }

    type ForwardStream = ForwardResponses;
    async fn forward(&self, request: Request<Streaming<ForwardRequest>>) -> Result<Response<Self::ForwardStream>, Status> {
        self.check(request.metadata(), Asks::Else).await?;
        Ok(Response::new((self.forward)(request.into_inner())))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexResponse>, Status> {
        self.check(request.metadata(), Asks::Else).await?;
        let read_log_id = self.consensus.read_log_id().await.map_err(refused)?;
        Ok(Response::new(ReadIndexResponse { read_log_id: Some(read_log_id) }))
    }

    async fn change_members(&self, request: Request<ChangeMembersRequest>) -> Result<Response<ChangeMembersResponse>, Status> {
        self.check(request.metadata(), Asks::Else).await?;
        (self.change_members)(request.into_inner()).await.map(Response::new)
    }

    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let Addresses { client, peer, http } = self.advertise.clone();
        Ok(Response::new(HelloResponse {
            node_id: self.identity.node_id(),
            replica_id: self.identity.replica_id().to_owned(),
            cluster_id: self.identity.cluster_id().map(|id| id.to_string()).unwrap_or_default(),
            peer_addr: peer,
            client_addr: client,
            http_addr: http,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }
}
