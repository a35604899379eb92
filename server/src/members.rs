//! Membership as operators see it: founding a cluster, adding, promoting, removing, replacing; from any replica.
//!
//! Founding happens once and asks first: every initial member must be reachable and empty. A replica that finds itself empty beside a cluster
//! never founds another one and never votes under its old name; it says how to replace it.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use tenure_proto::peer::v1::{ChangeMembersRequest, ChangeMembersResponse, HelloResponse, MemberNode, change_members_request::Change};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{
    config::{Addresses, Config},
    consensus::{Consensus, Leadership, Member, MembershipError, Node},
    failpoint,
    identity::Identity,
    peer::Peers,
    service::status::NEW_REPLICA_UNREACHABLE,
};

/// How long a change waits for a raft leader.
const PATIENCE: Duration = Duration::from_secs(5);
/// For an answer to hello.
const HELLO: Duration = Duration::from_secs(2);
/// Between looks at what has no event: other replicas while founding, a learner that catches up.
const LOOK: Duration = Duration::from_millis(500);
/// The first pauses, doubling up to [`LOOK`].
const FIRST_LOOKS: Duration = Duration::from_millis(20);
/// Looks between two lines in the log that say the same.
const QUIET: u32 = 10;
/// Looks before an empty replica beside a cluster says so: the cluster may just have been founded and be about to call.
const BENEFIT_OF_DOUBT: u32 = 6;
/// For a learner to catch up, which may take a whole snapshot.
const CATCH_UP: Duration = Duration::from_secs(120);
/// For a change of the membership to be committed by both the old and the new voters.
const COMMIT: Duration = Duration::from_secs(20);
/// For another replica to take over.
const TRANSFER: Duration = Duration::from_secs(3);
/// Entries that a learner may lack and still count as caught up: under load there are always some.
const LAG: u64 = 200;
/// A peer that was silent for longer does not count as there.
const SILENCE_MS: u64 = 2_000;

/// Changes who is in the cluster, from any replica; cheap to clone.
#[derive(Clone)]
pub(crate) struct Members {
    identity: Identity,
    consensus: Consensus,
    peers: Peers,
    advertise: Addresses,
}

/// The raft leader's side of `PeerService.ChangeMembers`.
pub(crate) async fn serve(members: &Members, request: ChangeMembersRequest) -> Result<ChangeMembersResponse, Status> {
    let change = request.change.ok_or_else(|| Status::invalid_argument("no change that this build knows"))?;
    members.here(change).await.map(|()| ChangeMembersResponse {})
}

impl Members {
    pub(crate) fn new(config: &Config, identity: Identity, consensus: Consensus, peers: Peers) -> Self {
        Self { identity, consensus, peers, advertise: config.advertise.clone() }
    }

    /// Says hello to the new replica (must be empty), adds it as a learner, waits until it has caught up, promotes it.
    pub(crate) async fn add(&self, node_id: u64, peer_addr: String, learner_only: bool) -> Result<(), Status> {
        if node_id == 0 {
            return Err(Status::invalid_argument("node ids start at 1"));
        }
        self.at_raft_leader(Change::Add(MemberNode { id: node_id, peer_addr, ..MemberNode::default() })).await?;
        if learner_only {
            return Ok(());
        }
        self.at_raft_leader(Change::Promote(node_id)).await
    }

    pub(crate) async fn remove(&self, node_id: u64) -> Result<(), Status> {
        self.at_raft_leader(Change::Remove(node_id)).await
    }

    /// 0: the best. Returns who leads then.
    pub(crate) async fn transfer_leader(&self, to: u64) -> Result<u64, Status> {
        let mut leadership = self.consensus.leadership();
        let before = leadership.borrow().raft_leader;
        self.at_raft_leader(Change::TransferTo(to)).await?;
        let led = |now: &Leadership| now.raft_leader.is_some_and(|id| if to == 0 { Some(id) != before } else { id == to });
        match tokio::time::timeout(TRANSFER, leadership.wait_for(led)).await {
            Ok(Ok(now)) => Ok(now.raft_leader.unwrap_or(to)),
            _ => Err(Status::deadline_exceeded("leadership was handed over, but nobody is known to lead yet: ask for the cluster's status")),
        }
    }

    /// Brings a change to the raft leader.
    async fn at_raft_leader(&self, change: Change) -> Result<(), Status> {
        let mut leadership = self.consensus.leadership();
        let (mut pause, mut paused) = (FIRST_LOOKS, Duration::ZERO);
        loop {
            let at = {
                let known = tokio::time::timeout(PATIENCE, leadership.wait_for(|now| now.raft_leader.is_some())).await;
                let Ok(Ok(now)) = known else { return Err(no_raft_leader(&format!("no raft leader within {PATIENCE:?}"))) };
                now.clone()
            };
            let result = match at.raft_leader.and_then(|id| Some((id, at.nodes.get(&id)?))) {
                Some((id, member)) if id != self.consensus.node_id() => {
                    let request = ChangeMembersRequest { change: Some(change.clone()) };
                    self.peers.dial(id, &member.node).change_members(request).await.map(|_| ())
                }
                _ => self.here(change.clone()).await,
            };
            match result {
                // Not the raft leader: not any more, or not quite yet, since it is known here before it has applied its first entry, and then
                // nothing changes here when it has. Nothing was done.
                Err(status) if status.code() == Code::Aborted => {
                    if paused >= PATIENCE {
                        return Err(no_raft_leader(status.message()));
                    }
                    let _ = tokio::time::timeout(pause, leadership.wait_for(|now| *now != at)).await;
                    paused += pause;
                    pause = LOOK.min(pause * 2);
                }
                result => return result,
            }
        }
    }

    /// Makes a change; only the raft leader can. ABORTED: it is not, and nothing was done.
    async fn here(&self, change: Change) -> Result<(), Status> {
        match change {
            Change::Add(node) => self.add_here(node.id, &node.peer_addr).await,
            Change::Promote(id) => self.promote_here(id).await,
            Change::Remove(id) => self.remove_here(id).await,
            Change::TransferTo(to) => self.transfer_here(to).await,
        }
    }

    /// The members, as the raft leader knows them.
    fn members(&self) -> Result<BTreeMap<u64, Member>, Status> {
        let leadership = self.consensus.leadership();
        let now = leadership.borrow();
        match now.leading {
            Some(_) => Ok(BTreeMap::clone(&now.nodes)),
            None => Err(Status::aborted("this replica is not the raft leader")),
        }
    }

    async fn add_here(&self, id: u64, addr: &str) -> Result<(), Status> {
        let members = self.members()?;
        let hello = hello(&self.peers, addr).await.map_err(|error| {
            let error = error.message();
            NEW_REPLICA_UNREACHABLE
                .status(format!("cannot reach a replica at {addr} ({error}): start tenured there, with node_id = {id} and an empty data directory"))
        })?;
        if hello.node_id != id {
            return Err(Status::failed_precondition(format!("the replica at {addr} is configured as node {}, not {id}", hello.node_id)));
        }
        let node = node_of(&hello, addr);
        match members.get(&id) {
            Some(member) if member.node == node => return self.catch_up(id).await,
            // It was restarted with other addresses.
            Some(member) if member.node.replica_id == node.replica_id => {
                tracing::info!(node = id, addr, "a member has other addresses than before");
                // Links to it look the address up (consensus/network.rs): nothing else is to be done.
                return self.committed(self.consensus.update_node(id, node)).await;
            }
            Some(_) => {
                return Err(Status::failed_precondition(format!(
                    "node {id} is a member with another data directory than the one at {addr}: remove the member first, then add it anew"
                )));
            }
            None if hello.cluster_id.is_empty() => {}
            None => {
                let whose = if self.identity.cluster_id().as_deref() == Some(hello.cluster_id.as_str()) { "a removed member" } else { "another cluster" };
                return Err(Status::failed_precondition(format!(
                    "the data directory of the replica at {addr} is that of {whose}: stop it, move the directory away, start it empty, and try again"
                )));
            }
        }
        tracing::info!(node = id, addr, replica = node.replica_id, "adding a member");
        self.committed(self.consensus.add_learner(id, node)).await?;
        self.catch_up(id).await
    }

    /// Waits until a member lacks little of the log.
    async fn catch_up(&self, id: u64) -> Result<(), Status> {
        if id == self.consensus.node_id() {
            return Ok(());
        }
        let mut look = 0;
        let caught_up = async {
            loop {
                self.members()?;
                let progress = self.consensus.progress();
                let matched = progress.peers.get(&id).map_or(0, |peer| peer.matched_index);
                if matched > 0 && matched + LAG >= progress.last_log_index {
                    return Ok(());
                }
                if look % QUIET == QUIET - 1 {
                    tracing::info!(node = id, matched, of = progress.last_log_index, "a learner is catching up");
                }
                look += 1;
                tokio::time::sleep(LOOK / 10).await;
            }
        };
        let late = || Status::deadline_exceeded(format!("node {id} is a learner and still catching up after {CATCH_UP:?}: repeat the call to go on"));
        tokio::time::timeout(CATCH_UP, caught_up).await.unwrap_or_else(|_| Err(late()))
    }

    async fn promote_here(&self, id: u64) -> Result<(), Status> {
        match self.members()?.get(&id) {
            None => return Err(not_a_member(id)),
            Some(member) if member.voter => return Ok(()),
            Some(_) => {}
        }
        self.catch_up(id).await?;
        self.committed(self.consensus.promote(id)).await
    }

    async fn remove_here(&self, id: u64) -> Result<(), Status> {
        let members = self.members()?;
        let member = members.get(&id).ok_or_else(|| not_a_member(id))?;
        if member.voter {
            let voters: Vec<_> = members.iter().filter(|(other, member)| **other != id && member.voter).map(|(other, _)| *other).collect();
            if voters.is_empty() {
                return Err(Status::failed_precondition(format!("node {id} is the only voter: add another member first")));
            }
            let me = self.consensus.node_id();
            let (there, missing) = self.who_is_there(&voters).await;
            if there.len() * 2 <= voters.len() {
                return Err(Status::failed_precondition(format!(
                    "without node {id} the voters would be {voters:?}, and {missing:?} do not answer: the cluster would stop. Start them, or remove them first"
                )));
            }
            if id == me {
                // Whoever leads then removes this one.
                tracing::info!(node = id, "handing over leadership before being removed");
                self.committed(async { self.consensus.transfer_leader(None, TRANSFER).await.map(|_| ()) }).await?;
                return Err(Status::aborted("this replica is not the raft leader any more"));
            }
        }
        tracing::info!(node = id, "removing a member");
        self.committed(self.consensus.remove(id)).await
    }

    /// Who of them is there, and who is not. A raft leader that is new has not heard of anybody yet: it listens before it misses a majority.
    async fn who_is_there(&self, voters: &[u64]) -> (Vec<u64>, Vec<u64>) {
        let me = self.consensus.node_id();
        let mut looks = Duration::from_millis(SILENCE_MS).as_millis() / (LOOK / 10).as_millis();
        loop {
            let progress = self.consensus.progress();
            let is_there = |other: &u64| {
                let contact = progress.peers.get(other).and_then(|peer| peer.last_contact_ms);
                *other == me || contact.is_some_and(|ms| ms <= SILENCE_MS)
            };
            let (there, missing): (Vec<u64>, Vec<u64>) = voters.iter().copied().partition(is_there);
            if there.len() * 2 > voters.len() || looks == 0 {
                return (there, missing);
            }
            looks -= 1;
            tokio::time::sleep(LOOK / 10).await;
        }
    }

    async fn transfer_here(&self, to: u64) -> Result<(), Status> {
        let members = self.members()?;
        let to = (to != 0).then_some(to);
        if let Some(id) = to {
            let member = members.get(&id).ok_or_else(|| not_a_member(id))?;
            if id == self.consensus.node_id() {
                return Ok(());
            }
            if !member.voter {
                return Err(Status::failed_precondition(format!("node {id} is a learner: only a voter can lead")));
            }
        } else if members.values().filter(|member| member.voter).count() < 2 {
            return Err(Status::failed_precondition("there is no other voter to lead: add a member first"));
        }
        self.committed(async { self.consensus.transfer_leader(to, TRANSFER).await.map(|_| ()) }).await
    }

    async fn committed(&self, change: impl Future<Output = Result<(), MembershipError>>) -> Result<(), Status> {
        match tokio::time::timeout(COMMIT, change).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(MembershipError::NotLeader)) => Err(Status::aborted("this replica is not the raft leader any more")),
            Ok(Err(MembershipError::Refused(why))) => Err(Status::failed_precondition(why)),
            Err(_) => Err(Status::deadline_exceeded(format!("not committed within {COMMIT:?}; it may still be: ask for the cluster's status"))),
        }
    }

    /// Tells the cluster this replica's addresses when they are not the ones on record (it was restarted with others). Until done, or `stopping`;
    /// spawn it once.
    pub(crate) async fn keep_addresses_current(&self, stopping: CancellationToken) {
        tokio::select! {
            () = self.tell_addresses() => {}
            () = stopping.cancelled() => {}
        }
    }

    async fn tell_addresses(&self) {
        let me = self.consensus.node_id();
        let mut leadership = self.consensus.leadership();
        for look in 0_u32.. {
            let Ok(now) = leadership.wait_for(|now| now.nodes.contains_key(&me)).await.map(|now| now.clone()) else { return };
            if now.nodes.get(&me).is_none_or(|member| self.is_current(&member.node)) {
                return;
            }
            if look % QUIET == 0 {
                tracing::info!(node = me, advertise = ?self.advertise, "the cluster knows this replica by other addresses: telling it");
            }
            let change = Change::Add(MemberNode { id: me, peer_addr: self.advertise.peer.clone(), ..MemberNode::default() });
            if now.leading.is_some() {
                if let Err(error) = self.here(change).await {
                    tracing::debug!(error = %error.message(), "the addresses were not taken");
                }
            } else {
                // The raft leader cannot reach this replica, so this replica cannot know who that is: ask everybody.
                let request = ChangeMembersRequest { change: Some(change) };
                for (id, member) in now.nodes.iter().filter(|(id, _)| **id != me) {
                    let told = tokio::time::timeout(PATIENCE, self.peers.dial(*id, &member.node).change_members(request.clone())).await;
                    if matches!(told, Ok(Ok(_))) {
                        break;
                    }
                }
            }
            let news = leadership.wait_for(|now| now.nodes.get(&me).is_none_or(|member| self.is_current(&member.node)));
            if tokio::time::timeout(LOOK, news).await.is_ok() {
                return;
            }
        }
    }

    fn is_current(&self, node: &Node) -> bool {
        node.peer_addr == self.advertise.peer && node.client_addr == self.advertise.client && node.http_addr == self.advertise.http
    }
}

/// Nothing was changed. Its own code, which no broken connection to the raft leader has: there the outcome is not known.
fn no_raft_leader(why: &str) -> Status {
    Status::aborted(format!("{why}: try again"))
}

fn not_a_member(id: u64) -> Status {
    Status::not_found(format!("node {id} is not a member"))
}

async fn hello(peers: &Peers, addr: &str) -> Result<HelloResponse, Status> {
    tokio::time::timeout(HELLO, peers.hello(addr)).await.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {HELLO:?}"))))
}

/// `addr`: where it was found, in case it does not say.
fn node_of(hello: &HelloResponse, addr: &str) -> Node {
    let peer_addr = if hello.peer_addr.is_empty() { addr.to_owned() } else { hello.peer_addr.clone() };
    Node { peer_addr, client_addr: hello.client_addr.clone(), http_addr: hello.http_addr.clone(), replica_id: hello.replica_id.clone() }
}

/// First start: with `bootstrap`, founds the cluster once every initial member is reachable and empty (the one with the lowest node id does), or
/// waits to be contacted. Returns at once if this replica is a member already, else when it has become one, or at `stopping`.
pub(crate) async fn found_or_join(
    config: &Config,
    identity: &Identity,
    consensus: &Consensus,
    peers: &Peers,
    fresh_cluster_id: uuid::Uuid,
    stopping: &CancellationToken,
) -> anyhow::Result<()> {
    // Asked of the log itself: what is known of the membership comes a moment after the start, and by then a lone member would have founded anew.
    if consensus.is_initialized().await? {
        return Ok(());
    }
    let mut membership = consensus.leadership();
    let found = async {
        if config.bootstrap {
            Founder { config, identity, consensus, peers }.run(fresh_cluster_id).await
        } else {
            tracing::info!(node = config.node_id, "empty and not to found a cluster: waiting to be added as a member");
            std::future::pending().await
        }
    };
    tokio::select! {
        result = found => result,
        _ = membership.wait_for(|now| !now.nodes.is_empty()) => {
            tracing::info!(node = config.node_id, "a member of cluster {}", identity.cluster_id().as_deref().unwrap_or("(unknown)"));
            Ok(())
        }
        () = stopping.cancelled() => Ok(()),
    }
}

/// An initial member that is in no cluster yet.
struct Founder<'a> {
    config: &'a Config,
    identity: &'a Identity,
    consensus: &'a Consensus,
    peers: &'a Peers,
}

/// What the other initial members say of themselves.
#[derive(Debug, Default)]
struct Roll {
    empty: BTreeMap<u64, Node>,
    /// With why.
    missing: Vec<String>,
    /// Node ids of those that belong to a cluster.
    members: Vec<u64>,
}

impl Founder<'_> {
    /// Returns when it has founded the cluster; if that is not for this replica to do, never.
    async fn run(&self, fresh_cluster_id: uuid::Uuid) -> anyhow::Result<()> {
        let me = self.config.node_id;
        let ids = self.config.initial_members.iter().map(|(id, _)| *id);
        anyhow::ensure!(ids.clone().any(|id| id == me), "bootstrap is on, but this replica (node {me}) is not among the initial members");
        let founds = ids.min() == Some(me);
        for look in 0_u32.. {
            let roll = self.call_roll().await;
            if !roll.members.is_empty() {
                // The others are told of a new cluster within moments of its founding; one that is not is no part of it.
                if look % QUIET == BENEFIT_OF_DOUBT {
                    tracing::error!(
                        node = me,
                        members = ?roll.members,
                        "this data directory is empty, but the other initial members belong to a cluster already: not voting, not serving. \
                         To replace this replica: `tenure cluster remove-member {me}`, then `tenure cluster add-member {me} {}`",
                        self.config.advertise.peer
                    );
                }
            } else if !roll.missing.is_empty() {
                if look % QUIET == 0 {
                    tracing::info!(node = me, missing = roll.missing.join("; "), "waiting for every initial member before the cluster is founded");
                }
            } else if founds {
                return self.found(roll.empty, fresh_cluster_id).await;
            } else if look % QUIET == QUIET - 1 {
                tracing::info!(node = me, "every initial member is there: waiting for the one with the lowest node id to found the cluster");
            }
            // Members that are started together find each other at once; one that is late is not asked all the time.
            tokio::time::sleep(LOOK.min(FIRST_LOOKS * 2_u32.pow(look.min(8)))).await;
        }
        Ok(())
    }

    async fn call_roll(&self) -> Roll {
        let others = self.config.initial_members.iter().filter(|(id, _)| *id != self.config.node_id);
        let answers = join_all(others.map(|(id, addr)| async move { (*id, addr, hello(self.peers, addr).await) })).await;
        let mut roll = Roll::default();
        for (id, addr, answer) in answers {
            match answer {
                Err(error) => roll.missing.push(format!("node {id} at {addr} ({})", error.message())),
                Ok(hello) if hello.node_id != id => roll.missing.push(format!("node {id} at {addr} (node {} answers there)", hello.node_id)),
                Ok(hello) if hello.cluster_id.is_empty() => drop(roll.empty.insert(id, node_of(&hello, addr))),
                Ok(_) => roll.members.push(id),
            }
        }
        roll
    }

    async fn found(&self, mut nodes: BTreeMap<u64, Node>, fresh_cluster_id: uuid::Uuid) -> anyhow::Result<()> {
        let Addresses { client, peer, http } = self.config.advertise.clone();
        let replica_id = self.identity.replica_id().to_owned();
        nodes.insert(self.config.node_id, Node { peer_addr: peer, client_addr: client, http_addr: http, replica_id });
        failpoint::pass("found_before_join");
        // Interrupted between joining and initializing: the id that nobody else has heard of yet is still good.
        if self.identity.cluster_id().is_none() {
            self.identity.join(&fresh_cluster_id.to_string()).await?;
        }
        tracing::info!(node = self.config.node_id, members = ?nodes.keys(), cluster = self.identity.cluster_id().as_deref(), "founding the cluster");
        failpoint::pass("found_before_initialize");
        self.consensus.initialize(nodes).await?;
        failpoint::pass("found_after_initialize");
        Ok(())
    }
}
