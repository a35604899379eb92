//! Linearizable reads on every replica: ask the raft leader for a read index, wait until it is applied here.
//!
//! Concurrent reads share one question, but a question that was started before a read began never answers it: what was acknowledged in
//! between could be missing from the answer.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt as _,
    future::{self, BoxFuture},
};
use parking_lot::Mutex;
use tenure_proto::peer::v1::ReadIndexRequest;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    consensus::{Consensus, Leadership, Node},
    peer::{PeerClient, Peers},
    replica::{Applications, Progress},
};

/// For one question; a raft leader that takes longer has lost its quorum, or is gone.
const QUESTION: Duration = Duration::from_millis(500);

/// After a question without an answer, unless leadership changes before.
const PAUSE: Duration = Duration::from_millis(20);

/// Cheap to clone. Concurrent reads share one question.
#[derive(Clone)]
pub(crate) struct Reads(Arc<Shared>);

struct Shared {
    consensus: Consensus,
    applications: Arc<Applications>,
    peers: Peers,
    /// Reads that began after the present question did.
    waiting: Mutex<Vec<oneshot::Sender<CaughtUp>>>,
    came: Notify,
}

/// Resolves when this replica has applied what a question was answered with. The reads of one question wait as one: apply, which runs on another thread,
/// wakes one of them, and that one the others.
type CaughtUp = future::Shared<BoxFuture<'static, ()>>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no raft leader within {0:?}")]
    NoLeader(Duration),
    #[error("this replica has not caught up within {0:?}")]
    Behind(Duration),
}

impl Reads {
    pub(crate) fn new(consensus: Consensus, applications: Arc<Applications>, peers: Peers) -> Self {
        Self(Arc::new(Shared { consensus, applications, peers, waiting: Mutex::default(), came: Notify::new() }))
    }

    /// Asks the questions that barriers share, until `stopping`; spawn it once.
    pub(crate) async fn run(&self, stopping: CancellationToken) {
        tokio::select! {
            () = self.0.ask_for_all() => {}
            () = stopping.cancelled() => {}
        }
    }

    /// When this returns, the table shows at least everything that was acknowledged before the call.
    pub(crate) async fn barrier(&self, patience: Duration) -> Result<(), ReadError> {
        if tenure_lease::bug!("bug_read_local") {
            // A replica answers from what it has (etcd 0.4.1 and Consul by default, as Jepsen found).
            return Ok(());
        }
        let mut confirmed = false;
        let caught_up = async {
            let (sender, receiver) = oneshot::channel();
            self.0.waiting.lock().push(sender);
            self.0.came.notify_one();
            // Dropped without an answer: this replica is going down.
            let Ok(caught_up) = receiver.await else { return std::future::pending().await };
            confirmed = true;
            caught_up.await;
        };
        match tokio::time::timeout(patience, caught_up).await {
            Ok(()) => Ok(()),
            Err(_) if confirmed => Err(ReadError::Behind(patience)),
            Err(_) => Err(ReadError::NoLeader(patience)),
        }
    }

    /// Waits until this replica has applied a revision (`min_revision`).
    pub(crate) async fn revision(&self, revision: u64, patience: Duration) -> Result<(), ReadError> {
        let caught_up = applied(&self.0.applications, |progress| progress.revision >= revision);
        tokio::time::timeout(patience, caught_up).await.map_err(|_| ReadError::Behind(patience))
    }
}

async fn applied(applications: &Applications, enough: impl Fn(&Progress) -> bool) {
    let applied = applications.watch_progress().wait_for(|progress| enough(progress)).await.is_ok();
    debug_assert!(applied, "the sender lives in `applications`");
}

impl Shared {
    async fn ask_for_all(&self) {
        let mut leadership = self.consensus.leadership();
        let mut connection = None;
        loop {
            let mut readers = std::mem::take(&mut *self.waiting.lock());
            readers.retain(|reader| !reader.is_closed());
            if readers.is_empty() {
                self.came.notified().await;
                continue;
            }
            let now = leadership.borrow_and_update().clone();
            let answer = match self.question(&now, &mut connection) {
                Some(question) => tokio::select! {
                    answer = tokio::time::timeout(QUESTION, question) => answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))),
                    () = another(&mut leadership, now.raft_leader) => Err(Status::aborted("another raft leader")),
                },
                None => Err(Status::unavailable("no raft leader")),
            };
            match answer {
                Ok(index) => {
                    let applications = Arc::clone(&self.applications);
                    let caught_up = async move { applied(&applications, |progress| progress.index >= index).await }.boxed().shared();
                    for reader in readers {
                        // Who asked may have given up.
                        let _ = reader.send(caught_up.clone());
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %error.message(), "no read index");
                    // They may be answered by any later question.
                    self.waiting.lock().append(&mut readers);
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        changed = leadership.changed() => if changed.is_err() { return },
                    }
                }
            }
        }
    }

    /// `None`: there is nobody to ask.
    fn question(&self, leadership: &Leadership, connection: &mut Option<(u64, Node, PeerClient)>) -> Option<BoxFuture<'static, Result<u64, Status>>> {
        let id = leadership.raft_leader?;
        if id == self.consensus.node_id() {
            let consensus = self.consensus.clone();
            return Some(Box::pin(async move { consensus.read_index().await.map_err(|error| Status::unavailable(error.to_string())) }));
        }
        let node = &leadership.nodes.get(&id)?.node;
        let mut client = match connection {
            Some((cached, at, client)) if *cached == id && at == node => client.clone(),
            _ => {
                let client = self.peers.dial(id, node);
                *connection = Some((id, node.clone(), client.clone()));
                client
            }
        };
        Some(Box::pin(async move {
            let answer = client.read_index(ReadIndexRequest {}).await?.into_inner();
            answer.read_log_id.map(|id| id.index).ok_or_else(|| Status::internal("an answer without an index"))
        }))
    }
}

/// Resolves when that replica does not lead any more.
async fn another(leadership: &mut watch::Receiver<Leadership>, raft_leader: Option<u64>) {
    if leadership.wait_for(|now| now.raft_leader != raft_leader).await.is_err() {
        std::future::pending::<()>().await;
    }
}
