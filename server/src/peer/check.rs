//! Is this call meant for this replica, and does it come from a member? Says what is wrong in words that an operator can act on.
//!
//! It never lets a replica act under an identity that is not its own: a wiped data directory comes back with a new replica id, calls for
//! the old one are refused, and so it can neither vote nor acknowledge as the member that it was.

use tonic::{Status, metadata::MetadataMap};

use super::{CLUSTER, FROM, TO};
use crate::{consensus::Leadership, identity::Identity};

/// What to do with a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Serve it.
    Serve,
    /// This replica belongs to no cluster, and the caller's knows it as a member: join that first.
    Join(String),
    /// The cluster knows this node id under another replica id: this directory is not that member's.
    NotThatReplica(String),
    /// Refuse it.
    Refuse(String),
}

/// What a call asks of this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// To follow: entries or a snapshot. Who sends them was elected by a quorum, which looked at who it is. This replica may have missed the
    /// change of members that brought it, and would never hear of that from anybody else.
    ToFollow,
    /// A vote, or anything else that rests on who calls.
    Else,
}

/// Looks at a call's metadata.
pub(super) fn check(metadata: &MetadataMap, identity: &Identity, known: &Leadership, asks: Asks) -> Verdict {
    let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
    let (Some(cluster), Some(from), Some(to)) = (text(CLUSTER), text(FROM).and_then(parse), text(TO).and_then(parse)) else {
        return Verdict::Refuse(format!("this is a peer port: calls to it must carry {CLUSTER}, {FROM} and {TO}"));
    };
    let (id, replica) = (identity.node_id(), identity.replica_id());
    if let Some(mine) = identity.cluster_id()
        && *mine != *cluster
    {
        return Verdict::Refuse(format!("this replica belongs to cluster {mine}, not to {cluster}"));
    }
    if to.0 != id {
        return Verdict::Refuse(format!("this is node {id}, not node {}: the address on record is wrong", to.0));
    }
    if to.1 != replica {
        return Verdict::NotThatReplica(format!(
            "this is node {id} with the data directory {replica}; the cluster knows node {id} with {}. This one does not have what that one voted \
             and acknowledged: remove member {id} and add it anew (it comes back as a learner)",
            to.1
        ));
    }
    match known.nodes.get(&from.0) {
        _ if asks == Asks::ToFollow => {}
        Some(member) if member.node.replica_id != from.1 => {
            return Verdict::Refuse(format!(
                "the cluster knows node {} with the data directory {}, not {}: remove the member and add it anew",
                from.0, member.node.replica_id, from.1
            ));
        }
        // A raft leader knows its members; anybody else may be behind.
        None if known.leading.is_some() => return Verdict::Refuse(format!("node {} is not a member of this cluster (any more)", from.0)),
        _ => {}
    }
    if identity.cluster_id().is_none() { Verdict::Join(cluster.to_owned()) } else { Verdict::Serve }
}

fn parse(value: &str) -> Option<(u64, &str)> {
    let (id, replica) = value.split_once('/')?;
    Some((id.parse().ok()?, replica))
}

impl From<Verdict> for Result<(), Status> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Serve | Verdict::Join(_) => Ok(()),
            Verdict::NotThatReplica(why) | Verdict::Refuse(why) => Err(Status::failed_precondition(why)),
        }
    }
}
