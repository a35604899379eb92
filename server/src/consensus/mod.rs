//! The only module that knows openraft: log, votes, replication, snapshots, membership. Everything else sees this facade.
//!
//! At start: [`recover`] (newest snapshot, verified), [`open_log`] (every record checked), [`Consensus::start`]. Nothing here knows what
//! an entry means; `state_machine` hands it to the applied state.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod leadership;
pub(crate) mod log_check;
mod log_mark;
mod log_store;
mod log_walk;
mod marked;
mod membership;
mod network;
mod outgoing;
mod receive;
mod record;
mod snapshot;
mod start;
mod state_machine;
mod system_log;
#[cfg(test)]
mod tests;
pub(crate) mod types;
mod wire;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use openraft::{
    ReadPolicy,
    async_runtime::{Instant as _, WatchReceiver as _},
    errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError},
    impls::ProgressResponder,
};
use parking_lot::Mutex;
use tenure_lease::{Outcome, RaftLeaderId};
use tenure_proto::peer::v1 as pb;
use tokio::sync::{oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use log_store::{LogControl, LogStore as DiskLog};
pub use marked::{Journal, Mark, MarkedLog, Marks};
pub use record::{LogPosition, Record};
pub(crate) use start::{Recovered, inspect_log, inspect_snapshots, open_log, recover};
pub(crate) use state_machine::{Effects, Replicated};
pub(crate) use system_log::open as open_system_log;
pub(crate) use types::TypeConfig;

use self::{
    leadership::Contact,
    outgoing::Hurry,
    snapshot::Snapshots,
    types::{Blob, LeaderId, LogId, Raft},
};
use crate::{failpoint, identity::Identity};

/// A member as the cluster's membership records it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// host:port.
    pub peer_addr: String,
    /// host:port.
    pub client_addr: String,
    /// host:port.
    pub http_addr: String,
    /// Of its data directory; a UUID. A replica with another one is not this member, whatever its node id says.
    pub replica_id: String,
}

/// Who leads, as this replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    /// Node id of the raft leader; `None` while there is none (or it has lost its quorum).
    pub(crate) raft_leader: Option<u64>,
    /// `Some` while this replica is raft leader AND has applied the blank entry of its term: it may stamp and propose under this id.
    pub(crate) leading: Option<RaftLeaderId>,
    /// Voters and learners.
    pub(crate) nodes: Arc<BTreeMap<u64, Member>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) voter: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// Not proposed, or proposed and surely not committed: safe to send again to whoever leads.
    #[error("this replica is not the raft leader")]
    NotLeader,
    /// May or may not be committed.
    #[error("it is not known whether the entry was committed")]
    Unknown,
    /// The replica is going down, or its storage has failed.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MembershipError {
    #[error("this replica is not the raft leader")]
    NotLeader,
    #[error("{0}")]
    Refused(String),
}

/// Handle on this replica's Raft; cheap to clone.
#[derive(Clone)]
pub(crate) struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    node_id: u64,
    raft: Raft,
    leadership: watch::Receiver<Leadership>,
    contact: Arc<Contact>,
    snapshots: Snapshots,
    /// Held while a snapshot comes in.
    receiving: tokio::sync::Mutex<()>,
    reads: Mutex<Reads>,
    log: Arc<dyn LogControl>,
    hurry: Hurry,
    identity: Identity,
    stopping: CancellationToken,
    tasks: TaskTracker,
    /// Where consensus runs. Callers may be elsewhere, and what they share with each other must not depend on their thread.
    runtime: tokio::runtime::Handle,
}

/// Reads that wait for the next round of asking a quorum.
#[derive(Default)]
struct Reads {
    under_way: bool,
    waiting: Vec<oneshot::Sender<Result<pb::LogId, ReadRefused>>>,
}

#[derive(Clone, Debug)]
enum ReadRefused {
    NotLeader,
    Stopped(String),
}

impl Inner {
    fn committed_here(&self) -> Option<LogId> {
        self.raft.data_metrics().borrow_watched().local_committed
    }
}

fn stopped(fatal: &Fatal<TypeConfig>) -> ProposeError {
    ProposeError::Stopped(fatal.to_string())
}

impl Consensus {
    /// This replica's node id.
    pub(crate) fn node_id(&self) -> u64 {
        self.inner.node_id
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Proposes an encoded `tenure.peer.v1.Entry` as the given leader; resolves when this replica has applied it.
    /// Dropping the future does not take the entry back.
    pub(crate) async fn propose(&self, as_leader: RaftLeaderId, entry: Bytes) -> Result<Vec<Outcome>, ProposeError> {
        let (responder, applied) = ProgressResponder::complete_only();
        let leader = openraft::vote::RaftLeaderId::new(as_leader.term, as_leader.node);
        let leader: LeaderId = leader;
        self.inner.raft.write(Blob(entry)).with_leader(leader).responder(responder).await.map_err(|fatal| stopped(&fatal))?;
        match applied.await {
            Ok(Ok(response)) => Ok(response.data.0),
            // Refused before it was appended: under another leader id, or without a quorum.
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(ProposeError::NotLeader),
            // Appended here and overwritten by another raft leader's log; a third one may still have it.
            Ok(Err(_)) => Err(ProposeError::Unknown),
            // Raft stopped with the entry in hand.
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Raft leader only: the index that a linearizable read must have applied; confirms leadership with a quorum.
    pub(crate) async fn read_index(&self) -> Result<u64, ProposeError> {
        self.read_log_id().await.map(|id| id.index)
    }

    /// As [`Self::read_index`]. A read waits for a round of asking the quorum that begins after it came; such rounds are shared.
    pub(crate) async fn read_log_id(&self) -> Result<pb::LogId, ProposeError> {
        let (tell, told) = oneshot::channel();
        let begin = {
            let mut reads = self.inner.reads.lock();
            reads.waiting.push(tell);
            !std::mem::replace(&mut reads.under_way, true)
        };
        if begin {
            self.inner.tasks.spawn_on(Self::read_rounds(Arc::clone(&self.inner)), &self.inner.runtime);
        }
        match told.await {
            Ok(Ok(id)) => Ok(id),
            Ok(Err(ReadRefused::NotLeader)) => Err(ProposeError::NotLeader),
            Ok(Err(ReadRefused::Stopped(why))) => Err(ProposeError::Stopped(why)),
            Err(_) => Err(ProposeError::Stopped("it is shutting down".into())),
        }
    }

    async fn read_rounds(inner: Arc<Inner>) {
        loop {
            let waiting = {
                let mut reads = inner.reads.lock();
                reads.under_way = !reads.waiting.is_empty();
                if !reads.under_way {
                    return;
                }
                std::mem::take(&mut reads.waiting)
            };
            let answer = Self::read_round(&inner).await;
            for read in waiting {
                // Whoever gave up waiting needs no answer.
                let _gone = read.send(answer.clone());
            }
        }
    }

    async fn read_round(inner: &Inner) -> Result<pb::LogId, ReadRefused> {
        if tenure_lease::bug!("bug_read_deposed")
            && let Some(id) = inner.committed_here()
        {
            // Who takes itself for the raft leader answers without asking anybody (etcd#20418, Jepsen's Redis-Raft).
            return Ok(wire::log_id_to(&id));
        }
        // Never by lease: a suspended raft leader's clock would vouch for a quorum that has moved on.
        match inner.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => {
                // Who reads at another replica waits until that has applied it.
                inner.hurry.now();
                Ok(wire::log_id_to(linearizer.read_log_id().log_id()))
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_))) => Err(ReadRefused::NotLeader),
            Err(RaftError::Fatal(fatal)) => Err(ReadRefused::Stopped(fatal.to_string())),
        }
    }

    pub(crate) fn progress(&self) -> RaftProgress {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let matched = metrics.replication.unwrap_or_default();
        let contact = metrics.heartbeat.unwrap_or_default();
        let peers = matched.into_iter().filter(|(id, _)| *id != self.inner.node_id).map(|(id, matched)| {
            let contact = contact.get(&id).copied().flatten();
            let last_contact_ms = contact.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX));
            (id, PeerProgress { matched_index: matched.map_or(0, |id| id.index()), last_contact_ms })
        });
        RaftProgress {
            last_log_index: metrics.last_log_index.unwrap_or(0),
            log_syncs: self.inner.log.syncs(),
            snapshot_index: metrics.snapshot.map_or(0, |id| id.index()),
            peers: peers.collect(),
        }
    }

    /// Whether this replica's log or vote says that it has been part of a cluster; unlike [`Self::leadership`], right from the start.
    pub(crate) async fn is_initialized(&self) -> Result<bool, ProposeError> {
        self.inner.raft.is_initialized().await.map_err(|fatal| stopped(&fatal))
    }

    /// Resolves when everything that this replica may have applied before it was restarted is applied again. Needs a raft leader.
    pub(crate) async fn recovered(&self) -> Result<(), ProposeError> {
        self.inner.raft.wait_for_recovery(None).await.map(|_| ()).map_err(|error| ProposeError::Stopped(error.to_string()))
    }

    /// Stops Raft and closes the log, everything acknowledged fsynced.
    pub(crate) async fn shutdown(&self) {
        self.inner.stopping.cancel();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "Raft did not stop cleanly");
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        failpoint::pass("close_before_log");
        self.inner.log.close().await;
        failpoint::pass("close_after_log");
        self.inner.identity.unlock();
    }

    /// Resolves with a reason when Raft has stopped by itself (storage failure): the process must exit.
    pub(crate) async fn failed(&self) -> String {
        let mut server = self.inner.raft.server_metrics();
        while server.changed().await.is_ok() {}
        if self.inner.stopping.is_cancelled() {
            // Asked for, so not a failure.
            return std::future::pending().await;
        }
        let state = self.inner.raft.metrics().borrow_watched().running_state.clone();
        state.err().map_or_else(|| "Raft has stopped".to_owned(), |fatal| fatal.to_string())
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RaftProgress {
    pub(crate) last_log_index: u64,
    /// Since the start.
    pub(crate) log_syncs: u64,
    pub(crate) snapshot_index: u64,
    pub(crate) peers: BTreeMap<u64, PeerProgress>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerProgress {
    pub(crate) matched_index: u64,
    /// `None`: never.
    pub(crate) last_contact_ms: Option<u64>,
}
