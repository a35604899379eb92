//! How openraft reaches the other replicas: append streams, votes, snapshots, hand-overs.
//!
//! Replication, heartbeats, snapshots and votes have connections of their own, so that a long one delays no other. A peer that cannot
//! be reached is `Unreachable`, which makes openraft back off, and is logged when that changes, not at each attempt.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    io::Read,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use openraft::{
    OptionalSend, RaftNetworkFactory,
    base::{BoxFuture, BoxStream},
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption},
    raft::{AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse},
};
use parking_lot::Mutex;
use tenure_proto::peer::v1 as pb;
use tokio::sync::watch;

use super::{
    Leadership, Node,
    outgoing::{self, Hurry, Owed},
    snapshot::SnapshotFile,
    types::{Snapshot, TypeConfig, Vote},
    wire,
};
use crate::{
    disk::offloaded,
    peer::{PeerClient, Peers},
};

type RpcError = RPCError<TypeConfig>;
type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>;

/// A stream with requests under way and no answer for this long has died, whatever TCP thinks.
const STALL: Duration = Duration::from_secs(3);
const SNAPSHOT_CHUNK: usize = 1 << 20;
/// Between attempts at a peer that cannot be reached; a restarted one waits at most the last of them.
const BACKOFF_MS: [u64; 4] = [20, 50, 100, 200];

/// Makes a [`Link`] per peer and purpose.
pub(crate) struct Network {
    peers: Peers,
    /// Votes and hand-overs: one connection per member, kept, because openraft makes a new client for every election.
    votes: HashMap<u64, (Node, PeerClient)>,
    /// For the members' present addresses: openraft keeps a link when only they change.
    leadership: watch::Receiver<Leadership>,
    reachable: Reachability,
    hurry: Hurry,
}

impl Network {
    pub(crate) fn new(peers: Peers, leadership: watch::Receiver<Leadership>, hurry: Hurry) -> Self {
        Self { peers, votes: HashMap::new(), leadership, reachable: Reachability::default(), hurry }
    }

    fn link(&mut self, target: u64, node: &Node, purpose: Purpose) -> Link {
        let votes = match self.votes.get(&target) {
            Some((known, client)) if known == node => client.clone(),
            _ => {
                let client = self.peers.dial(target, node);
                self.votes.insert(target, (node.clone(), client.clone()));
                client
            }
        };
        Link {
            target,
            node: node.clone(),
            peers: self.peers.clone(),
            purpose,
            own: None,
            votes,
            leadership: self.leadership.clone(),
            reachable: self.reachable.clone(),
            hurry: self.hurry.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Node) -> Link {
        self.link(target, node, Purpose::Replication)
    }
    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Link {
        self.link(target, node, Purpose::Heartbeat)
    }
    async fn new_snapshot_client(&mut self, target: u64, node: &Node) -> Link {
        self.link(target, node, Purpose::Snapshot)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Replication,
    Heartbeat,
    Snapshot,
    Vote,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replication => "replication",
            Self::Heartbeat => "heartbeats",
            Self::Snapshot => "snapshots",
            Self::Vote => "votes",
        })
    }
}

/// What is known of each peer; shared by all links.
#[derive(Clone, Default)]
struct Reachability(Arc<Mutex<LastSeen>>);

/// Why the last attempt failed; `None`: it did not.
type LastSeen = HashMap<(u64, Purpose), Option<String>>;

impl Reachability {
    fn up(&self, target: u64, purpose: Purpose) {
        let before = self.0.lock().insert((target, purpose), None);
        if let Some(Some(_)) = before {
            tracing::info!(peer = target, %purpose, "peer is back");
        }
    }

    fn down(&self, target: u64, purpose: Purpose, why: &str) {
        let before = self.0.lock().insert((target, purpose), Some(why.to_owned()));
        if before.is_none_or(|before| before.as_deref() != Some(why)) {
            tracing::warn!(peer = target, %purpose, why, "peer cannot be reached");
        }
    }
}

/// A way to one peer, for one purpose. Dials at first use.
pub(crate) struct Link {
    target: u64,
    node: Node,
    peers: Peers,
    purpose: Purpose,
    own: Option<PeerClient>,
    votes: PeerClient,
    leadership: watch::Receiver<Leadership>,
    reachable: Reachability,
    hurry: Hurry,
}

impl Link {
    fn own(&mut self) -> PeerClient {
        let moved = self.leadership.borrow().nodes.get(&self.target).filter(|member| member.node != self.node).map(|member| member.node.clone());
        if let Some(node) = moved {
            self.node = node;
            self.own = None;
        }
        self.own.get_or_insert_with(|| self.peers.dial(self.target, &self.node)).clone()
    }

    fn unreachable(&self, purpose: Purpose, why: &str) -> Unreachable<TypeConfig> {
        unreachable(&self.reachable, self.target, purpose, why)
    }

    /// One question, one answer, within `ttl`.
    async fn ask<T>(&self, ttl: Duration, call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, RpcError> {
        let why = match tokio::time::timeout(ttl, call).await {
            Ok(Ok(response)) => {
                self.reachable.up(self.target, Purpose::Vote);
                return Ok(response.into_inner());
            }
            Ok(Err(status)) => describe(&status),
            Err(_) => "no answer in time".to_owned(),
        };
        Err(self.unreachable(Purpose::Vote, &why).into())
    }

    fn misread(&self, error: &wire::WireError) -> RpcError {
        self.unreachable(Purpose::Vote, &error.to_string()).into()
    }
}

fn unreachable(reachable: &Reachability, target: u64, purpose: Purpose, why: &str) -> Unreachable<TypeConfig> {
    reachable.down(target, purpose, why);
    Unreachable::from_string(why)
}

fn describe(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

impl NetStreamAppend<TypeConfig> for Link {
    fn stream_append<'s, S>(&'s mut self, mut input: S, _option: RPCOption) -> BoxFuture<'s, Result<AppendResults<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // openraft waits out its back-off only when this stream is polled. Dialing first would fail at once, again and again, and
            // keep a core busy for as long as the peer is dead.
            let Some(first) = input.next().await else {
                let nothing: AppendResults<'s> = Box::pin(futures::stream::empty());
                return Ok(nothing);
            };
            let (target, purpose, reachable) = (self.target, self.purpose, self.reachable.clone());
            let owed = Arc::new(Owed::default());
            let requests = outgoing::appends(first, input, &self.hurry, Arc::clone(&owed)).map(wire::append_to);
            let fail = move |why: &str| RpcError::from(unreachable(&reachable, target, purpose, why));
            let (requests, session) = session(requests);
            let answers = match self.own().append(requests).await {
                Ok(response) => response.into_inner(),
                Err(status) => return Err(fail(&describe(&status))),
            };
            let reachable = self.reachable.clone();
            let state = Answers { answers, _session: session, owed, any: false, fail: Box::new(fail), reachable, target, purpose, done: false };
            let results: AppendResults<'s> = Box::pin(futures::stream::unfold(state, Answers::next));
            Ok(results)
        })
    }
}

/// What openraft wants to send, for as long as somebody wants the answers.
///
/// The streams of one link share what is to be sent. On a connection that stands still HTTP/2 keeps the requests of a call that was given up, and
/// goes on asking them for more: they would take what the next stream is for, and openraft, finding nothing to send, would begin again
/// with what it sent long ago and has purged since.
struct Requests<T>(Arc<Mutex<Option<BoxStream<'static, T>>>>);

/// Ends its [`Requests`] when dropped.
struct Session<T>(Arc<Mutex<Option<BoxStream<'static, T>>>>);

fn session<T>(requests: impl Stream<Item = T> + Send + 'static) -> (Requests<T>, Session<T>) {
    let requests: BoxStream<'static, T> = Box::pin(requests);
    let requests = Arc::new(Mutex::new(Some(requests)));
    (Requests(Arc::clone(&requests)), Session(requests))
}

impl<T> Stream for Requests<T> {
    type Item = T;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self.0.lock().as_mut() {
            Some(requests) => requests.as_mut().poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

impl<T> Drop for Session<T> {
    fn drop(&mut self) {
        // Dropped after the lock is released.
        let requests = self.0.lock().take();
        drop(requests);
    }
}

struct Answers {
    answers: tonic::Streaming<pb::AppendResponse>,
    _session: Session<pb::AppendRequest>,
    owed: Arc<Owed>,
    /// Whether one has come.
    any: bool,
    fail: Box<dyn Fn(&str) -> RpcError + Send + Sync>,
    reachable: Reachability,
    target: u64,
    purpose: Purpose,
    done: bool,
}

impl Answers {
    async fn next(mut self) -> Option<(Result<StreamAppendResult<TypeConfig>, RpcError>, Self)> {
        if self.done {
            return None;
        }
        let error = loop {
            match tokio::time::timeout(STALL, self.answers.next()).await {
                Err(_) if self.owed.any() => break "requests are not answered".to_owned(),
                // Nothing asked, nothing owed.
                Err(_) => {}
                // Also how a peer whose Raft has stopped ends it: without an error there would be no back-off. One that has answered nothing at all has
                // failed, whatever was sent: openraft takes an end without an error for a job that is half done.
                Ok(None) if !self.any || self.owed.any() => break "the peer ended the stream".to_owned(),
                Ok(None) => return None,
                Ok(Some(Err(status))) => break describe(&status),
                Ok(Some(Ok(answer))) => match wire::appended_from(answer) {
                    Err(error) => break error.to_string(),
                    Ok(result) => {
                        if !std::mem::replace(&mut self.any, true) {
                            self.reachable.up(self.target, self.purpose);
                        }
                        // A refusal is always news.
                        if self.owed.answered() || result.is_err() {
                            return Some((Ok(result), self));
                        }
                    }
                },
            }
        };
        self.done = true;
        Some((Err((self.fail)(&error)), self))
    }
}

impl NetVote<TypeConfig> for Link {
    async fn vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.votes.clone();
        let response = self.ask(option.hard_ttl(), client.vote(wire::vote_request_to(&request))).await?;
        wire::vote_response_from(response).map_err(|error| self.misread(&error))
    }

    async fn pre_vote(&mut self, request: VoteRequest<TypeConfig>, option: RPCOption) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let mut client = self.votes.clone();
        let response = self.ask(option.hard_ttl(), client.pre_vote(wire::vote_request_to(&request))).await?;
        wire::vote_response_from(response).map_err(|error| self.misread(&error))
    }
}

impl NetTransferLeader<TypeConfig> for Link {
    async fn transfer_leader(&mut self, request: TransferLeaderRequest<TypeConfig>, option: RPCOption) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let mut client = self.votes.clone();
        self.ask(option.hard_ttl(), client.transfer_leader(wire::transfer_to(&request))).await?;
        Ok(Ok(()))
    }
}

impl NetBackoff<TypeConfig> for Link {
    fn backoff(&self) -> Option<Backoff> {
        let longest = BACKOFF_MS[BACKOFF_MS.len() - 1];
        Some(Backoff::new(BACKOFF_MS.into_iter().chain(std::iter::repeat(longest)).map(Duration::from_millis)))
    }
}

impl NetSnapshot<TypeConfig> for Link {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let file = snapshot.snapshot;
        tracing::info!(peer = self.target, path = %file.path.display(), bytes = file.size, "sending a snapshot");
        let head = pb::SnapshotHead { vote: Some(wire::vote_to(&vote)), meta: Some(wire::snapshot_meta_to(&snapshot.meta)), size: file.size };
        let failed: Arc<Mutex<Option<std::io::Error>>> = Arc::default();
        let chunks = chunks(head, file, Arc::clone(&failed));
        let mut client = self.own();
        let call = tokio::time::timeout(option.hard_ttl(), client.install_snapshot(chunks)).fuse();
        let (call, cancel) = (std::pin::pin!(call), std::pin::pin!(cancel));
        let answer = match futures::future::select(call, cancel).await {
            futures::future::Either::Right((closed, _)) => return Err(closed.into()),
            futures::future::Either::Left((answer, _)) => answer,
        };
        if let Some(error) = failed.lock().take() {
            tracing::error!(%error, "cannot read the snapshot to send");
        }
        let response = match answer {
            Err(_) => return Err(self.unreachable(Purpose::Snapshot, "the snapshot did not arrive in time").into()),
            Ok(Err(status)) => return Err(self.unreachable(Purpose::Snapshot, &describe(&status)).into()),
            Ok(Ok(response)) => response.into_inner(),
        };
        let vote = wire::vote_from(response.vote).map_err(|error| self.unreachable(Purpose::Snapshot, &error.to_string()))?;
        self.reachable.up(self.target, Purpose::Snapshot);
        Ok(SnapshotResponse::new(vote))
    }
}

/// The head, then the file. A read error cuts it short, which the receiver finds out by the size.
fn chunks(head: pb::SnapshotHead, file: SnapshotFile, failed: Arc<Mutex<Option<std::io::Error>>>) -> impl Stream<Item = pb::SnapshotChunk> + Send + 'static {
    let first = pb::SnapshotChunk { head: Some(head), data: Bytes::new() };
    let rest = futures::stream::unfold(None, move |open: Option<Box<dyn Read + Send>>| {
        let (file, failed) = (file.clone(), Arc::clone(&failed));
        async move {
            let disk = Arc::clone(file.disk());
            let read = offloaded(&*disk, move || {
                let open = open.map_or_else(|| file.bytes(), Ok)?;
                let mut chunk = open.take(SNAPSHOT_CHUNK as u64);
                let mut data = Vec::with_capacity(SNAPSHOT_CHUNK);
                chunk.read_to_end(&mut data)?;
                Ok::<_, std::io::Error>((Bytes::from(data), chunk.into_inner()))
            });
            match read.await.map_err(std::io::Error::from).flatten() {
                Ok((data, _)) if data.is_empty() => None,
                Ok((data, open)) => Some((pb::SnapshotChunk { head: None, data }, Some(open))),
                Err(error) => {
                    *failed.lock() = Some(error);
                    None
                }
            }
        }
    });
    futures::stream::iter([first]).chain(rest)
}
