//! Founding a cluster, changing its members, handing over the lead.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use openraft::{
    ChangeMembers,
    errors::{ClientWriteError, RaftError},
};

use super::{Consensus, MembershipError, Node, types::TypeConfig};
use crate::failpoint;

/// A learner this many entries behind, or fewer, may vote: it will have them before the change is committed.
const CAUGHT_UP: u64 = 200;

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => MembershipError::NotLeader,
        RaftError::APIError(error) => MembershipError::Refused(error.to_string()),
        RaftError::Fatal(fatal) => MembershipError::Refused(format!("this replica's Raft has stopped: {fatal}")),
    }
}

impl Consensus {
    /// First start of a cluster; every node in it must be empty.
    pub(crate) async fn initialize(&self, members: BTreeMap<u64, Node>) -> Result<(), MembershipError> {
        self.inner.raft.initialize(members).await.map_err(|error| MembershipError::Refused(error.to_string()))
    }

    /// Returns when the membership says so, not when the learner has caught up.
    pub(crate) async fn add_learner(&self, id: u64, node: Node) -> Result<(), MembershipError> {
        match self.on_record(id) {
            None => self.inner.raft.add_learner(id, node, false).await.map(|_| ()).map_err(refused),
            Some(_) => self.update_node(id, node).await,
        }
    }

    /// Puts a member's new addresses on record.
    pub(crate) async fn update_node(&self, id: u64, node: Node) -> Result<(), MembershipError> {
        match self.on_record(id) {
            None => Err(MembershipError::Refused(format!("node {id} is not a member"))),
            Some(known) if known == node => Ok(()),
            Some(known) if known.replica_id == node.replica_id => self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)]))).await,
            Some(_) => Err(MembershipError::Refused(format!("node {id} is a member with another data directory: remove it first"))),
        }
    }

    fn on_record(&self, id: u64) -> Option<Node> {
        self.inner.leadership.borrow().nodes.get(&id).map(|member| member.node.clone())
    }

    /// Learner to voter; refused until it has caught up.
    pub(crate) async fn promote(&self, id: u64) -> Result<(), MembershipError> {
        let member = self.inner.leadership.borrow().nodes.get(&id).map(|member| member.voter);
        match member {
            None => return Err(MembershipError::Refused(format!("node {id} is not a member: add it first"))),
            Some(true) => return Ok(()),
            Some(false) => {}
        }
        let progress = self.progress();
        let matched = progress.peers.get(&id).map(|peer| peer.matched_index).ok_or(MembershipError::NotLeader)?;
        let behind = progress.last_log_index.saturating_sub(matched);
        if behind > CAUGHT_UP {
            return Err(MembershipError::Refused(format!("node {id} is {behind} entries behind")));
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await
    }

    /// Voter or learner.
    pub(crate) async fn remove(&self, id: u64) -> Result<(), MembershipError> {
        let member = self.inner.leadership.borrow().nodes.get(&id).map(|member| member.voter);
        match member {
            None => Ok(()),
            Some(true) => self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await,
            Some(false) => self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await,
        }
    }

    async fn change(&self, change: ChangeMembers<u64, Node>) -> Result<(), MembershipError> {
        failpoint::pass("change_before_propose");
        self.inner.raft.change_membership(change, false).await.map_err(refused)?;
        failpoint::pass("change_after_commit");
        Ok(())
    }

    /// Raft leader only. `None`: the best caught-up voter. Resolves when another replica leads, or after `within`.
    pub(crate) async fn transfer_leader(&self, to: Option<u64>, within: Duration) -> Result<u64, MembershipError> {
        let me = self.inner.node_id;
        let mut leadership = self.leadership();
        let (leads, voters) = {
            let known = leadership.borrow();
            let voters: Vec<u64> = known.nodes.iter().filter(|(id, member)| member.voter && **id != me).map(|(id, _)| *id).collect();
            (known.raft_leader == Some(me), voters)
        };
        if !leads {
            return Err(MembershipError::NotLeader);
        }
        let to = match to {
            Some(to) if to == me => return Ok(me),
            Some(to) if voters.contains(&to) => to,
            Some(to) => return Err(MembershipError::Refused(format!("node {to} is not a voter"))),
            None => {
                let progress = self.progress();
                let best = voters.iter().filter_map(|id| progress.peers.get(id).map(|peer| (peer, *id)));
                // Of those as far along, the one heard of last.
                let best = best.max_by_key(|(peer, _)| (peer.matched_index, std::cmp::Reverse(peer.last_contact_ms.unwrap_or(u64::MAX))));
                best.map(|(_, id)| id).ok_or_else(|| MembershipError::Refused("there is no other voter".to_owned()))?
            }
        };
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|fatal| MembershipError::Refused(fatal.to_string()))?;
        let other = leadership.wait_for(|known| known.raft_leader.is_some_and(|leader| leader != me));
        match tokio::time::timeout(within, other).await {
            Ok(Ok(known)) => Ok(known.raft_leader.unwrap_or(to)),
            Ok(Err(_)) => Err(MembershipError::Refused("this replica is stopping".to_owned())),
            Err(_) => Err(MembershipError::Refused(format!("node {to} has not taken over within {within:?}"))),
        }
    }
}
