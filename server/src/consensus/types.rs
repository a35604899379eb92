//! What openraft is told about our types. The runtime, and with it timers and randomness, is named in one place: [`Runtime`].

use std::fmt;

use bytes::Bytes;
use openraft::{
    RaftTypeConfig, alias,
    impls::{TokioRuntime, leader_id_adv},
    vote::RaftLeaderId as _,
};
use tenure_lease::Outcome;

use super::state_machine::StateMachine;

/// Where openraft gets tasks, timers and random election timeouts from. A simulator swaps this one line.
pub(crate) type Runtime = TokioRuntime;

/// An encoded `tenure.peer.v1.Entry`; consensus never looks inside.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Bytes);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What apply said of an entry's commands, in order.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(pub(crate) Vec<Outcome>);

openraft::declare_raft_types!(
    /// Our types, for openraft.
    pub(crate) TypeConfig:
        D = Blob,
        R = Outcomes,
        NodeId = u64,
        Node = super::Node,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type Payload = <TypeConfig as RaftTypeConfig>::Payload;
pub(crate) type Membership = openraft::Membership<u64, super::Node>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = alias::SnapshotOf<TypeConfig, super::snapshot::SnapshotFile>;

/// A log id from its parts.
pub(crate) fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, node), index)
}

/// The leader id of a log id, as the lease table knows it.
pub(crate) fn core_leader(id: &LogId) -> tenure_lease::RaftLeaderId {
    let leader = id.committed_leader_id();
    tenure_lease::RaftLeaderId { term: leader.term, node: leader.node_id }
}
