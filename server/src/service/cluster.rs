//! `ClusterService`: what operators see and change.

use std::{collections::BTreeMap, sync::Arc};

use tenure_proto::v1::{self, cluster_service_server::ClusterService};
use tonic::{Request, Response, Status};

use super::{Service, status, validate};
use crate::{
    consensus::{Leadership, RaftProgress},
    disk::offloaded,
};

/// Heard from within this time counts as reachable.
const REACHABLE_MS: u64 = 1_000;

pub(super) struct Cluster(pub(super) Arc<Service>);

impl Cluster {
    fn members(&self) -> (Leadership, RaftProgress, Vec<v1::Member>) {
        let known = self.0.headers.leadership.borrow().clone();
        let progress = self.0.parts.consensus.progress();
        let here = self.0.parts.consensus.node_id();
        let leads = known.raft_leader == Some(here);
        let members = known.nodes.iter().map(|(id, member)| {
            let peer = progress.peers.get(id).copied().unwrap_or_default();
            v1::Member {
                node_id: *id,
                role: if member.voter { v1::member::Role::Voter } else { v1::member::Role::Learner }.into(),
                client_addr: member.node.client_addr.clone(),
                peer_addr: member.node.peer_addr.clone(),
                http_addr: member.node.http_addr.clone(),
                replica_id: member.node.replica_id.clone(),
                is_raft_leader: known.raft_leader == Some(*id),
                matched_index: match (leads, *id == here) {
                    (false, _) => 0,
                    (true, true) => progress.last_log_index,
                    (true, false) => peer.matched_index,
                },
                reachable: *id == here || (leads && peer.last_contact_ms.is_some_and(|ms| ms <= REACHABLE_MS)),
            }
        });
        let members: BTreeMap<u64, v1::Member> = members.map(|member| (member.node_id, member)).collect();
        (known, progress, members.into_values().collect())
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn status(&self, _request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let (known, raft, members) = self.members();
        let applications = self.0.parts.applications.clone();
        // Frozen under one lock, so that the hash is of this applied index; hashed without it, as that looks at every lease.
        let (progress, totals, frozen) = {
            let table = applications.table.read();
            (applications.progress(), table.totals(), table.freeze())
        };
        let state_hash = offloaded(&*self.0.parts.disk, move || frozen.state_hash()).await.map_err(|_| status::shutting_down())?;
        Ok(Response::new(v1::StatusResponse {
            header: self.0.headers.at(progress.revision),
            members,
            term: known.term,
            last_log_index: raft.last_log_index,
            applied_index: progress.index,
            snapshot_index: raft.snapshot_index,
            lease_clock_ms: progress.clock.0,
            leases: totals.leases,
            held: totals.held,
            waiters: totals.waiters,
            watches: self.0.parts.watches.open_watches() as u64,
            state_hash,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn add_member(&self, request: Request<v1::AddMemberRequest>) -> Result<Response<v1::AddMemberResponse>, Status> {
        let request = validate::add_member(request.into_inner())?;
        self.0.parts.members.add(request.node_id, request.peer_addr, request.learner_only).await.map_err(status::membership)?;
        Ok(Response::new(v1::AddMemberResponse { header: self.0.header(), members: self.members().2 }))
    }

    async fn remove_member(&self, request: Request<v1::RemoveMemberRequest>) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let node_id = validate::remove_member(request.get_ref())?;
        self.0.parts.members.remove(node_id).await.map_err(status::membership)?;
        Ok(Response::new(v1::RemoveMemberResponse { header: self.0.header(), members: self.members().2 }))
    }

    async fn transfer_leader(&self, request: Request<v1::TransferLeaderRequest>) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let raft_leader_id = self.0.parts.members.transfer_leader(request.get_ref().node_id).await.map_err(status::membership)?;
        Ok(Response::new(v1::TransferLeaderResponse { header: self.0.header(), raft_leader_id }))
    }
}
