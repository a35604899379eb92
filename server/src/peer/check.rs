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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use tenure_lease::RaftLeaderId;
    use uuid::Uuid;

    use super::*;
    use crate::{
        consensus::{Member, Node},
        disk::SystemDisk,
    };

    const OWN: Uuid = Uuid::from_u128(1);

    fn known(leading: bool, replica_of_three: &str) -> Leadership {
        let node = Node { replica_id: replica_of_three.into(), ..Node::default() };
        Leadership {
            term: 5,
            raft_leader: None,
            leading: leading.then_some(RaftLeaderId { term: 5, node: 1 }),
            nodes: Arc::new(BTreeMap::from([(3, Member { node, voter: true })])),
        }
    }

    fn call(from: &str, to: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, value) in [(CLUSTER, "cluster"), (FROM, from), (TO, to)] {
            metadata.insert(key, value.parse().expect("ASCII"));
        }
        metadata
    }

    async fn replica_one() -> (tempfile::TempDir, Identity) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity::open(SystemDisk::shared(), dir.path(), 1, OWN).expect("an empty directory");
        identity.join("cluster").await.expect("joined");
        (dir, identity)
    }

    #[tokio::test]
    async fn raft_leader_refuses_who_is_no_member_and_who_was_one() {
        let (_dir, identity) = replica_one().await;
        let me = format!("1/{OWN}");
        assert_eq!(check(&call("3/new", &me), &identity, &known(true, "new"), Asks::Else), Verdict::Serve);
        assert!(matches!(check(&call("3/old", &me), &identity, &known(true, "new"), Asks::Else), Verdict::Refuse(_)));
        assert!(matches!(check(&call("4/any", &me), &identity, &known(true, "new"), Asks::Else), Verdict::Refuse(_)));
    }

    #[tokio::test]
    async fn who_may_be_behind_listens_to_a_member_that_was_replaced_meanwhile() {
        let (_dir, identity) = replica_one().await;
        let me = format!("1/{OWN}");
        assert_eq!(check(&call("3/new", &me), &identity, &known(false, "old"), Asks::ToFollow), Verdict::Serve);
        assert!(matches!(check(&call("3/new", &me), &identity, &known(false, "old"), Asks::Else), Verdict::Refuse(_)), "but gives it no vote");
        assert_eq!(check(&call("4/any", &me), &identity, &known(false, "old"), Asks::Else), Verdict::Serve);
    }

    #[tokio::test]
    async fn call_for_another_replica_is_never_served() {
        let (_dir, identity) = replica_one().await;
        for leading in [false, true] {
            assert!(matches!(check(&call("3/new", "1/another"), &identity, &known(leading, "new"), Asks::Else), Verdict::NotThatReplica(_)));
            assert!(matches!(check(&call("3/new", &format!("2/{OWN}")), &identity, &known(leading, "new"), Asks::Else), Verdict::Refuse(_)));
        }
        let elsewhere = MetadataMap::from_headers(
            [(CLUSTER, "another"), (FROM, "3/new"), (TO, "1/x")].into_iter().map(|(k, v)| (k.parse().expect("a name"), v.parse().expect("ASCII"))).collect(),
        );
        assert!(matches!(check(&elsewhere, &identity, &known(false, "new"), Asks::ToFollow), Verdict::Refuse(_)));
    }
}
