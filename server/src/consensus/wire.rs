//! openraft's types to and from `tenure.peer.v1`. A peer or a disk can say anything: decoding gives errors, never panics.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{
    EntryPayload,
    entry::RaftEntry as _,
    raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse},
    vote::RaftLeaderId as _,
    vote::RaftVote as _,
};
use tenure_proto::peer::v1 as pb;

use super::{
    Node,
    types::{Blob, Entry, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id},
};

/// Why a message is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum WireError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0}")]
    Wrong(&'static str),
}

/// Terms and indexes count up by one: nobody gets here, and openraft adds to them.
const FAR: u64 = 1 << 60;

pub(crate) fn log_id_to(id: &LogId) -> pb::LogId {
    let leader = id.committed_leader_id();
    pb::LogId { term: leader.term, node: leader.node_id, index: id.index() }
}

pub(crate) fn log_id_from(id: &pb::LogId) -> Result<LogId, WireError> {
    if id.term >= FAR || id.index >= FAR {
        return Err(WireError::Wrong("a log id out of range"));
    }
    Ok(log_id(id.term, id.node, id.index))
}

fn some_log_id_from(id: Option<&pb::LogId>) -> Result<Option<LogId>, WireError> {
    id.map(log_id_from).transpose()
}

pub(crate) fn vote_to(vote: &Vote) -> pb::Vote {
    let leader = vote.leader_id();
    pb::Vote { term: leader.term, node: leader.node_id, committed: vote.is_committed() }
}

pub(crate) fn vote_from(vote: Option<pb::Vote>) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError::Missing("vote"))?;
    if vote.term >= FAR {
        return Err(WireError::Wrong("a term out of range"));
    }
    Ok(Vote::from_leader_id(LeaderId::new(vote.term, vote.node), vote.committed))
}

pub(crate) fn membership_to(membership: &Membership) -> pb::Membership {
    pb::Membership {
        configs: membership.get_joint_config().iter().map(|ids| pb::NodeSet { ids: ids.iter().copied().collect() }).collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| pb::MemberNode {
                id: *id,
                peer_addr: node.peer_addr.clone(),
                client_addr: node.client_addr.clone(),
                http_addr: node.http_addr.clone(),
                replica_id: node.replica_id.clone(),
            })
            .collect(),
    }
}

pub(crate) fn membership_from(membership: pb::Membership) -> Result<Membership, WireError> {
    let configs: Vec<BTreeSet<u64>> = membership.configs.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Node> = membership
        .nodes
        .into_iter()
        .map(|n| (n.id, Node { peer_addr: n.peer_addr, client_addr: n.client_addr, http_addr: n.http_addr, replica_id: n.replica_id }))
        .collect();
    if configs.is_empty() {
        // The state before any membership; with no voter set every set of nodes would be a quorum.
        return if nodes.is_empty() { Ok(Membership::default()) } else { Err(WireError::Wrong("a membership without voters")) };
    }
    Membership::new(configs, nodes).map_err(|_| WireError::Wrong("a membership names a voter without its node, or no voter"))
}

pub(crate) fn entry_to(entry: &Entry) -> pb::LogEntry {
    let payload = match &entry.payload {
        EntryPayload::Blank => pb::log_entry::Payload::Blank(true),
        EntryPayload::Normal(blob) => pb::log_entry::Payload::Normal(blob.0.clone()),
        EntryPayload::Membership(membership) => pb::log_entry::Payload::Membership(membership_to(membership)),
    };
    pb::LogEntry { log_id: Some(log_id_to(&entry.log_id())), payload: Some(payload) }
}

pub(crate) fn entry_from(entry: pb::LogEntry) -> Result<Entry, WireError> {
    let id = entry.log_id.ok_or(WireError::Missing("an entry's log id"))?;
    let payload: Payload = match entry.payload.ok_or(WireError::Missing("an entry's payload"))? {
        pb::log_entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::log_entry::Payload::Normal(bytes) => EntryPayload::Normal(Blob(bytes)),
        pb::log_entry::Payload::Membership(membership) if membership.configs.is_empty() => return Err(WireError::Wrong("a membership without voters")),
        pb::log_entry::Payload::Membership(membership) => EntryPayload::Membership(membership_from(membership)?),
    };
    Ok(Entry::new(log_id_from(&id)?, payload))
}

pub(crate) fn append_to(request: AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_to(&request.vote)),
        prev: request.prev_log_id.as_ref().map(log_id_to),
        leader_commit: request.leader_commit.as_ref().map(log_id_to),
        entries: request.entries.iter().map(entry_to).collect(),
    }
}

/// Also refuses what no raft leader sends and openraft would stumble over: gaps, and entries from after the sender's own term.
pub(crate) fn append_from(request: pb::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let vote = vote_from(request.vote)?;
    if !vote.is_committed() {
        return Err(WireError::Wrong("an append under a vote that no quorum granted"));
    }
    let prev_log_id = some_log_id_from(request.prev.as_ref())?;
    let entries = request.entries.into_iter().map(entry_from).collect::<Result<Vec<_>, _>>()?;
    let mut before = prev_log_id;
    for entry in &entries {
        let id = entry.log_id();
        let follows = before.is_none_or(|b| b.index().checked_add(1) == Some(id.index()) && b.committed_leader_id() <= id.committed_leader_id());
        if !follows || (before.is_none() && id.index() != 0) {
            return Err(WireError::Wrong("entries do not follow one another"));
        }
        if id.committed_leader_id() > vote.leader_id() {
            return Err(WireError::Wrong("an entry is newer than the raft leader that sends it"));
        }
        before = Some(id);
    }
    if prev_log_id.is_some_and(|p| p.committed_leader_id() > vote.leader_id()) {
        return Err(WireError::Wrong("the previous entry is newer than the raft leader that sends it"));
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: some_log_id_from(request.leader_commit.as_ref())? })
}

pub(crate) fn appended_to(result: &StreamAppendResult<TypeConfig>) -> pb::AppendResponse {
    use pb::append_response::Result as R;
    let result = match result {
        Ok(last) => R::Appended(pb::Appended { last: last.as_ref().map(log_id_to) }),
        Err(StreamAppendError::Conflict(at)) => R::Conflict(log_id_to(at)),
        Err(StreamAppendError::HigherVote(vote)) => R::HigherVote(vote_to(vote)),
    };
    pb::AppendResponse { result: Some(result) }
}

pub(crate) fn appended_from(response: pb::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use pb::append_response::Result as R;
    Ok(match response.result.ok_or(WireError::Missing("the result of an append"))? {
        R::Appended(appended) => Ok(some_log_id_from(appended.last.as_ref())?),
        R::Conflict(at) => Err(StreamAppendError::Conflict(log_id_from(&at)?)),
        R::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from(Some(vote))?)),
    })
}

pub(crate) fn vote_request_to(request: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from(request: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut decoded = VoteRequest::new(vote_from(request.vote)?, some_log_id_from(request.last_log_id.as_ref())?);
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

pub(crate) fn vote_response_to(response: &VoteResponse<TypeConfig>) -> pb::VoteResponse {
    pb::VoteResponse { vote: Some(vote_to(&response.vote)), last_log_id: response.last_log_id.as_ref().map(log_id_to), granted: response.vote_granted }
}

pub(crate) fn vote_response_from(response: pb::VoteResponse) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse::new(vote_from(response.vote)?, some_log_id_from(response.last_log_id.as_ref())?, response.granted))
}

pub(crate) fn transfer_to(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest { from: Some(vote_to(request.from_leader())), to: *request.to_node_id(), last_log_id: request.last_log_id().map(log_id_to) }
}

pub(crate) fn transfer_from(request: pb::TransferLeaderRequest) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    Ok(TransferLeaderRequest::new(vote_from(request.from)?, request.to, some_log_id_from(request.last_log_id.as_ref())?))
}

pub(crate) fn snapshot_meta_to(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to),
        membership_log_id: meta.last_membership.log_id().as_ref().map(log_id_to),
        membership: Some(membership_to(meta.last_membership.membership())),
    }
}

pub(crate) fn snapshot_meta_from(meta: pb::SnapshotMeta) -> Result<SnapshotMeta, WireError> {
    let membership = membership_from(meta.membership.unwrap_or_default())?;
    Ok(SnapshotMeta {
        last_log_id: some_log_id_from(meta.last_log_id.as_ref())?,
        last_membership: StoredMembership::new(some_log_id_from(meta.membership_log_id.as_ref())?, membership),
    })
}
