//! What somebody sends who has reached the peer port and says that it is a replica: well-formed messages that no replica would send.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tenure_proto::peer::v1 as peer;
use tokio::task::JoinSet;

use super::{
    Orders, Told,
    line::{Line, framed, send_all},
};
use crate::{clock::Rng, v1};

const HELLO: &str = "/tenure.peer.v1.PeerService/Hello";
const INSTALL: &str = "/tenure.peer.v1.PeerService/InstallSnapshot";
const STATUS: &str = "/tenure.v1.ClusterService/Status";
/// From here on a term is out of range.
const FAR: u64 = 1 << 60;

/// What anybody is told who asks.
struct Known {
    hellos: Vec<peer::HelloResponse>,
    status: v1::StatusResponse,
}

impl Known {
    async fn of(orders: &Orders) -> anyhow::Result<Self> {
        let mut hellos = Vec::new();
        for addr in &orders.peer {
            hellos.push(Line::open(addr).await?.ask(HELLO, &peer::HelloRequest {}).await?);
        }
        let status = Line::open(orders.leader_client()).await?.ask(STATUS, &v1::StatusRequest {}).await?;
        Ok(Self { hellos, status })
    }

    /// As a replica would stamp a call to another.
    fn metadata(&self, from: usize, to: usize) -> Vec<(&'static str, String)> {
        let name = |at: usize| format!("{}/{}", self.hellos[at].node_id, self.hellos[at].replica_id);
        vec![("tenure-cluster", self.hellos[to].cluster_id.clone()), ("tenure-from", name(from)), ("tenure-to", name(to))]
    }
}

/// A snapshot of 2^63 bytes, as if from the raft leader to a follower; a GiB of it is sent.
pub(crate) async fn endless_snapshot(orders: Orders) -> anyhow::Result<Told> {
    const MOST: usize = 1 << 30;
    let known = Known::of(&orders).await.context("asks who is there")?;
    let follower = (orders.leader + 1) % orders.peer.len();
    let node = known.hellos[orders.leader].node_id;
    let last = peer::LogId { term: known.status.term, node, index: known.status.applied_index + 1_000_000 };
    let head = peer::SnapshotHead {
        vote: Some(peer::Vote { term: known.status.term, node, committed: true }),
        meta: Some(peer::SnapshotMeta { last_log_id: Some(last), ..Default::default() }),
        size: 1 << 63,
    };
    let line = Line::open(&orders.peer[follower]).await?;
    let (response, mut body) = line.begin(INSTALL, &known.metadata(orders.leader, follower), false).await?;
    let mut sent = 0;
    let sending = async {
        send_all(&mut body, framed(&peer::SnapshotChunk { head: Some(head), data: Bytes::new() }), false).await?;
        let chunk = framed(&peer::SnapshotChunk { head: None, data: vec![7; 1 << 20].into() });
        while sent < MOST {
            send_all(&mut body, chunk.clone(), false).await?;
            sent += 1 << 20;
        }
        std::future::pending::<anyhow::Result<()>>().await
    };
    let ended = tokio::select! {
        _ = sending => true,
        _ = response => true,
        () = orders.end() => false,
    };
    orders.end().await;
    Ok(Told::of(format!("{} MiB sent, {}", sent >> 20, if ended { "then the replica refused it" } else { "never refused" })))
}

/// Fifteen hundred messages and more, each with something in it that is wrong: votes of terms that are over or out of range, logs that do not fit,
/// commands without their parts, members that are none. The names of members and cluster are right in most.
pub(crate) async fn wrong_sense(orders: Orders) -> anyhow::Result<Told> {
    let known = Known::of(&orders).await.context("asks who is there")?;
    let (mut sent, mut answered) = (0_u64, 0_u64);
    let mut rng = Rng::of(12);
    while !orders.is_over() && sent < 20_000 {
        let mut calls = JoinSet::new();
        for _ in 0..16 {
            let (from, to) = (index(&mut rng, 3), index(&mut rng, 3));
            let mut metadata = known.metadata(from, to);
            if rng.below(8) == 0 {
                metadata[index(&mut rng, 3)].1 = "1/nobody".into();
            }
            let (path, message) = message(&mut rng, &known);
            let addr = orders.peer[to].clone();
            sent += 1;
            calls.spawn(async move { anyhow::Ok(Line::open(&addr).await?.call(&path, &metadata, message).await?.code().await?) });
        }
        let all = async {
            while let Some(ended) = calls.join_next().await {
                answered += u64::from(matches!(ended, Ok(Ok(_))))
            }
        };
        tokio::time::timeout(Duration::from_secs(2), all).await.ok();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Told::of(format!("{sent} messages, {answered} answered")))
}

fn index(rng: &mut Rng, below: u64) -> usize {
    usize::try_from(rng.below(below)).unwrap_or(0)
}

/// A term that is over, or one that cannot be.
fn term(rng: &mut Rng, known: &Known) -> u64 {
    match rng.below(4) {
        0 => 0,
        1 => known.status.term.saturating_sub(1),
        2 => FAR + rng.below(1 << 40),
        _ => u64::MAX,
    }
}

fn log_id(rng: &mut Rng, known: &Known) -> Option<peer::LogId> {
    let index = match rng.below(4) {
        0 => 0,
        1 => known.status.applied_index + rng.below(1 << 20),
        2 => u64::MAX,
        _ => rng.below(known.status.applied_index + 1),
    };
    (rng.below(5) > 0).then(|| peer::LogId { term: term(rng, known), node: rng.below(5), index })
}

fn vote(rng: &mut Rng, known: &Known) -> Option<peer::Vote> {
    (rng.below(8) > 0).then(|| peer::Vote { term: term(rng, known), node: rng.below(5), committed: rng.below(2) == 0 })
}

fn entry(rng: &mut Rng, known: &Known) -> peer::LogEntry {
    let payload = match rng.below(4) {
        0 => None,
        1 => Some(peer::log_entry::Payload::Blank(false)),
        2 => Some(peer::log_entry::Payload::Normal(vec![0xff; 32].into())),
        _ => Some(peer::log_entry::Payload::Membership(peer::Membership::default())),
    };
    peer::LogEntry { log_id: log_id(rng, known), payload }
}

fn command(rng: &mut Rng) -> Option<peer::Command> {
    use peer::command::Kind;
    let key = || Some(peer::Key { namespace: "No Such".into(), name: "../..".into() });
    let kind = match rng.below(6) {
        0 => Kind::Acquire(peer::Acquire { key: None, ..Default::default() }),
        1 => Kind::Acquire(peer::Acquire { key: key(), holder: "h".repeat(10_000), duration_ms: u32::MAX, ..Default::default() }),
        2 => Kind::Renew(peer::Renew { tokens: vec![1; 3], durations_ms: vec![1], keys: Vec::new() }),
        3 => Kind::Put(peer::Put { key: key(), ..Default::default() }),
        4 => Kind::Detach(peer::Detach { key: None, session: 7, waiter: u64::MAX }),
        _ => return None,
    };
    Some(peer::Command { kind: Some(kind) })
}

/// Which call, and what it says.
fn message(rng: &mut Rng, known: &Known) -> (String, Bytes) {
    let (name, message) = match rng.below(7) {
        0 => {
            let entries = (0..rng.below(4)).map(|_| entry(rng, known)).collect();
            let append = peer::AppendRequest { vote: vote(rng, known), prev: log_id(rng, known), leader_commit: log_id(rng, known), entries };
            ("Append", framed(&append))
        }
        1 => ("Vote", asked(rng, known)),
        2 => ("PreVote", asked(rng, known)),
        3 => ("TransferLeader", framed(&peer::TransferLeaderRequest { from: vote(rng, known), to: rng.below(9), last_log_id: log_id(rng, known) })),
        4 => {
            let head = peer::SnapshotHead {
                vote: vote(rng, known),
                meta: Some(peer::SnapshotMeta { last_log_id: log_id(rng, known), ..Default::default() }),
                size: 3,
            };
            ("InstallSnapshot", framed(&peer::SnapshotChunk { head: (rng.below(4) > 0).then_some(head), data: vec![1, 2, 3].into() }))
        }
        5 => ("Forward", framed(&peer::ForwardRequest { jobs: (0..3).map(|id| peer::Job { id, command: command(rng) }).collect() })),
        _ => {
            use peer::change_members_request::Change;
            let change = match rng.below(4) {
                0 => None,
                1 => Some(Change::Promote(99)),
                2 => Some(Change::Remove(99)),
                _ => Some(Change::TransferTo(99)),
            };
            ("ChangeMembers", framed(&peer::ChangeMembersRequest { change }))
        }
    };
    (format!("/tenure.peer.v1.PeerService/{name}"), message)
}

fn asked(rng: &mut Rng, known: &Known) -> Bytes {
    framed(&peer::VoteRequest { vote: vote(rng, known), last_log_id: log_id(rng, known), leadership_transfer: rng.below(2) == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_of_wrong_sense_is_a_vote_that_a_cluster_has_to_believe() {
        let known = Known { hellos: Vec::new(), status: v1::StatusResponse { term: 7, applied_index: 100, ..Default::default() } };
        let mut rng = Rng::of(1);
        for _ in 0..1_000 {
            let Some(vote) = vote(&mut rng, &known) else { continue };
            assert!(vote.term < 7 || vote.term >= FAR, "{}", vote.term);
        }
    }
}
