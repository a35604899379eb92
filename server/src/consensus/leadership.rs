//! Derives who leads, as far as this replica can know, from openraft's metrics, the applied log and who was heard of last.
//!
//! Decides nothing that safety rests on: an entry counts only under the leader id that it carries.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::{ServerState, alias::InstantOf, async_runtime::Instant as _, async_runtime::WatchReceiver as _, type_config::TypeConfigExt as _};
use parking_lot::Mutex;
use tenure_lease::RaftLeaderId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Leadership, Member,
    types::{Raft, StoredMembership, TypeConfig},
};

/// When the raft leader was last heard of.
#[derive(Default)]
pub(super) struct Contact(Mutex<Option<InstantOf<TypeConfig>>>);

impl Contact {
    pub(super) fn note(&self) {
        *self.0.lock() = Some(TypeConfig::now());
    }

    fn within(&self, age: Duration) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() <= age)
    }
}

/// Everything that [`Leadership`] depends on.
pub(super) struct Observer {
    pub(super) raft: Raft,
    pub(super) node_id: u64,
    pub(super) applied_leader: watch::Receiver<RaftLeaderId>,
    pub(super) contact: Arc<Contact>,
    /// A raft leader not acknowledged for this long has lost its quorum.
    pub(super) patience: Duration,
    pub(super) told: watch::Sender<Leadership>,
}

impl Observer {
    /// Until `stopping`, or until Raft stops by itself.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let mut server = self.raft.server_metrics();
        let mut applied_leader = self.applied_leader.clone();
        loop {
            self.tell();
            // Silence is not an event, hence the timer.
            let alive = tokio::select! {
                biased;
                () = stopping.cancelled() => false,
                changed = server.changed() => changed.is_ok(),
                changed = applied_leader.changed() => changed.is_ok(),
                () = tokio::time::sleep(self.patience / 2) => true,
            };
            if !alive {
                self.told.send_modify(|known| {
                    known.raft_leader = None;
                    known.leading = None;
                });
                return;
            }
        }
    }

    fn tell(&mut self) {
        let new = self.observe();
        self.told.send_if_modified(|known| {
            let changed = *known != new;
            if known.raft_leader != new.raft_leader {
                tracing::info!(term = new.term, raft_leader = new.raft_leader, "raft leader changed");
            }
            if changed {
                *known = new;
            }
            changed
        });
    }

    fn observe(&self) -> Leadership {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let leader_id = *server.vote.leader_id();
        let nodes = {
            let known = self.told.borrow();
            let now = nodes(&server.membership_config);
            if *known.nodes == now { Arc::clone(&known.nodes) } else { Arc::new(now) }
        };
        let mut leadership = Leadership { term: leader_id.term, raft_leader: None, leading: None, nodes };
        if server.state != ServerState::Leader {
            leadership.raft_leader = server.current_leader.filter(|id| *id != self.node_id && self.contact.within(self.patience * 2));
            return leadership;
        }
        let alone = server.membership_config.voter_ids().all(|id| id == self.node_id);
        let acked = self.raft.data_metrics().borrow_watched().last_quorum_acked;
        if !alone && acked.is_some_and(|at| at.elapsed() > self.patience) {
            return leadership;
        }
        leadership.raft_leader = Some(self.node_id);
        let me = RaftLeaderId { term: leader_id.term, node: leader_id.node_id };
        if *self.applied_leader.borrow() == me {
            leadership.leading = Some(me);
        }
        leadership
    }
}

fn nodes(membership: &StoredMembership) -> BTreeMap<u64, Member> {
    let voters: Vec<u64> = membership.voter_ids().collect();
    membership.nodes().map(|(id, node)| (*id, Member { node: node.clone(), voter: voters.contains(id) })).collect()
}
