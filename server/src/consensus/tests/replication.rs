//! Electing, replicating, restarting, catching up.

use std::time::Duration;

use futures::StreamExt as _;
use openraft::async_runtime::WatchReceiver as _;

use super::cluster::{Cluster, PATIENCE, Replica, Silence, seen};
use crate::consensus::ProposeError;

const NEVER: u64 = 1 << 30;

fn entries(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("entry {n}")).collect()
}

async fn write_all(cluster: &Cluster, entries: &[String]) {
    for entry in entries {
        cluster.write(entry).await;
    }
}

#[tokio::test]
async fn three_replicas_elect_and_replicate() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    write_all(&cluster, &entries(0, 50)).await;
    cluster.agree_on(&entries(0, 50)).await;
    let (id, _) = cluster.raft_leader().await;
    for replica in &cluster.replicas {
        seen(replica.run(), "everybody knows the raft leader", |known| known.raft_leader == Some(id) && known.nodes.len() == 3).await;
        assert_eq!(replica.run().identity.cluster_id().as_deref(), Some("test-cluster"));
    }
    let leader = cluster.replica(id).run().consensus.clone();
    assert!(leader.read_index().await.expect("a quorum answers") >= 51);
    cluster.stop().await;
}

#[tokio::test]
async fn one_replica_alone_is_a_cluster() {
    let mut cluster = Cluster::founded(1, NEVER).await;
    write_all(&cluster, &entries(0, 5)).await;
    cluster.replica(1).stop().await;
    cluster.replica(1).start().await;
    write_all(&cluster, &entries(5, 10)).await;
    cluster.agree_on(&entries(0, 10)).await;
    let running = cluster.replica(1).run().consensus.clone();
    assert!(running.read_index().await.expect("a quorum of one") >= 10);
    cluster.stop().await;
}

#[tokio::test]
async fn restarted_replicas_have_everything_that_was_acknowledged() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    write_all(&cluster, &entries(0, 20)).await;
    let (id, _) = cluster.raft_leader().await;
    cluster.replica(id).stop().await;
    write_all(&cluster, &entries(20, 40)).await;
    cluster.replica(id).start().await;
    cluster.agree_on(&entries(0, 40)).await;
    cluster.stop().await;
    for id in 1..=3 {
        cluster.replica(id).start().await;
    }
    write_all(&cluster, &entries(40, 45)).await;
    cluster.agree_on(&entries(0, 45)).await;
    for replica in &cluster.replicas {
        tokio::time::timeout(PATIENCE, replica.run().consensus.recovered()).await.expect("in time").expect("recovered");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn follower_behind_the_purged_log_gets_a_snapshot() {
    // An entry counts for some 200 bytes: a snapshot about every 300 entries, and a few are kept behind it.
    let mut cluster = Cluster::founded(3, 64 << 10).await;
    let (id, _) = cluster.raft_leader().await;
    let lagging = id % 3 + 1;
    cluster.replica(lagging).stop().await;
    let leader = cluster.replica(id).run().consensus.clone();
    // The log stays while an append to the lagging one is on its way, so until that has failed.
    let mut written = 0;
    let purged = || leader.inner.raft.metrics().borrow_watched().purged.map_or(0, |id| id.index());
    while purged() < 1_500 {
        assert!(written < 50_000, "the log is not purged: {:?}", leader.progress());
        write_all(&cluster, &entries(written, written + 500)).await;
        written += 500;
    }
    cluster.replica(lagging).start().await;
    cluster.agree_on(&entries(0, written)).await;
    assert!(cluster.replica(lagging).run().consensus.progress().snapshot_index > 0, "it caught up by snapshot");

    // What came by snapshot survives a restart.
    cluster.stop().await;
    for id in 1..=3 {
        cluster.replica(id).start().await;
    }
    write_all(&cluster, &entries(written, written + 10)).await;
    cluster.agree_on(&entries(0, written + 10)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn follower_that_fell_silent_is_sent_a_snapshot_and_what_follows_it() {
    let mut cluster = Cluster::founded(3, 64 << 10).await;
    let (id, _) = cluster.raft_leader().await;
    let silent = id % 3 + 1;
    write_all(&cluster, &entries(0, 20)).await;
    let addr = cluster.replica(silent).node.peer_addr.clone();
    let line = cluster.replica(id).connector.clone();
    line.silence(&addr, Silence::Both);
    // The connections stay open: the stream of before must not send, from what is left of it, what the next one is for.
    let running = cluster.replica(id).run().consensus.clone();
    let mut written = 20;
    while running.progress().snapshot_index < 600 {
        write_all(&cluster, &entries(written, written + 100)).await;
        written += 100;
    }
    // Until the raft leader has given up on that stream, and on one after it.
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cluster.write(&format!("entry {written}")).await;
        written += 1;
    }
    line.silence(&addr, None);
    write_all(&cluster, &entries(written, written + 50)).await;
    cluster.agree_on(&entries(0, written + 50)).await;
    assert!(cluster.replica(silent).run().consensus.progress().snapshot_index > 0, "it caught up by snapshot");
    cluster.stop().await;
}

#[tokio::test]
async fn replicas_take_their_snapshots_in_different_moments() {
    let mut cluster = Cluster::founded(3, 64 << 10).await;
    let (mut first, mut written) = ([0; 3], 0);
    while first.contains(&0) {
        cluster.write(&format!("entry {written}")).await;
        written += 1;
        assert!(written < 2_000, "no snapshot of some replica: {first:?}");
        for (first, replica) in first.iter_mut().zip(&cluster.replicas).filter(|(first, _)| **first == 0) {
            *first = replica.run().consensus.progress().snapshot_index;
        }
    }
    // 64 KiB are some 300 entries, and the nearest two of the three have a quarter of that between them.
    first.sort_unstable();
    assert!(first.windows(2).all(|pair| pair[1] - pair[0] > 50), "first snapshots: {first:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn dead_peer_is_not_dialed_without_end() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    write_all(&cluster, &entries(0, 5)).await;
    let (id, _) = cluster.raft_leader().await;
    cluster.replica(id % 3 + 1).vanish().await;
    cluster.write("entry 5").await;
    let before = cluster.replica(id).connector.dialed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let dialed = cluster.replica(id).connector.dialed() - before;
    // A heartbeat each 50 ms and an append each 200 ms, with as much again for slack; without back-off it is tens of thousands.
    assert!(dialed < 120, "{dialed} connections tried in 2 s");
    assert!(dialed > 0, "it is still looked for");
    cluster.stop().await;
}

#[tokio::test]
async fn leadership_is_handed_over() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    write_all(&cluster, &entries(0, 5)).await;
    cluster.agree_on(&entries(0, 5)).await;
    let (id, _) = cluster.raft_leader().await;
    let consensus = cluster.replica(id).run().consensus.clone();
    let next = consensus.transfer_leader(None, Duration::from_secs(5)).await.expect("somebody takes over");
    assert_ne!(next, id);
    write_all(&cluster, &entries(5, 10)).await;
    cluster.agree_on(&entries(0, 10)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn raft_leader_without_a_quorum_stops_leading() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    cluster.write("entry 0").await;
    let (id, leading) = cluster.raft_leader().await;
    for other in (1..=3).filter(|other| *other != id) {
        cluster.replica(other).stop().await;
    }
    let running = cluster.replica(id).run();
    seen(running, "it notices", |known| known.leading.is_none() && known.raft_leader.is_none()).await;
    let refused = running.consensus.propose(leading, "x".into()).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader)), "{refused:?}");
    let refused = running.consensus.read_index().await;
    assert!(matches!(refused, Err(ProposeError::NotLeader)), "{refused:?}");
    cluster.stop().await;
}

/// openraft takes an answer for one to every append up to that log id, also to a notice of a commit that was made after the answer was given: so a raft
/// leader that heard nothing for a while would take its followers' old answers for new ones.
#[tokio::test]
async fn read_is_not_confirmed_by_answers_from_before_it_was_asked() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    cluster.write("entry 0").await;
    cluster.agree_on(&entries(0, 1)).await;
    let (old, leading) = cluster.raft_leader().await;
    let others = [old % 3 + 1, (old + 1) % 3 + 1];
    let addr = |cluster: &mut Cluster, id: u64| cluster.replica(id).node.peer_addr.clone();
    let (old_addr, addrs) = (addr(&mut cluster, old), others.map(|id| addr(&mut cluster, id)));
    let line = cluster.replica(old).connector.clone();
    let (consensus, tape) = (cluster.replica(old).run().consensus.clone(), cluster.replica(old).run().tape.clone());

    // Both followers append an entry, and the raft leader does not hear of it.
    for addr in &addrs {
        line.silence(addr, Silence::Its);
    }
    let index = consensus.progress().last_log_index + 1;
    let entry = tokio::spawn({
        let consensus = consensus.clone();
        async move { consensus.propose(leading, "entry 1".into()).await }
    });
    let appended = async {
        while others.iter().any(|id| cluster.replica(*id).run().consensus.progress().last_log_index < index) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, appended).await.expect("both have it");

    // They elect another and go on.
    for addr in &addrs {
        line.silence(addr, Silence::Both);
    }
    for id in others {
        cluster.replica(id).connector.silence(&old_addr, Silence::Both);
    }
    let next = others.map(|id| cluster.replica(id).run().consensus.clone());
    let elected = next.each_ref().map(|consensus| {
        let mut leadership = consensus.leadership();
        Box::pin(async move { leadership.wait_for(|known| known.leading.is_some()).await.map(|known| known.leading) })
    });
    let (elected, new, _) = tokio::time::timeout(PATIENCE, futures::future::select_all(elected)).await.expect("somebody is elected");
    let written = next[new].propose(elected.ok().flatten().expect("it leads"), "entry 2".into()).await;
    assert!(written.is_ok(), "{written:?}");

    // Now somebody reads at the old one, which then hears one answer, commits, and hears the other.
    let read = tokio::spawn({
        let consensus = consensus.clone();
        async move { consensus.read_index().await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    line.silence(&addrs[1 - new], Silence::Ours);
    let committed = async {
        while tape.entries().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, committed).await.expect("the entry is committed");
    line.silence(&addrs[new], Silence::Ours);
    let read = tokio::time::timeout(PATIENCE, read).await.expect("in time").expect("no panic");
    assert!(matches!(read, Err(ProposeError::NotLeader)), "read up to {read:?}, and \"entry 2\" is not there");
    assert_eq!(tape.entries().len(), 2);
    assert!(entry.await.expect("no panic").is_ok());

    for addr in &addrs {
        line.silence(addr, None);
    }
    for id in others {
        cluster.replica(id).connector.silence(&old_addr, None);
    }
    cluster.agree_on(&entries(0, 3)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn entry_of_another_leader_id_is_refused() {
    let mut cluster = Cluster::founded(1, NEVER).await;
    cluster.write("entry 0").await;
    let (_, mut leading) = cluster.raft_leader().await;
    leading.term += 1;
    let refused = cluster.replica(1).run().consensus.propose(leading, "x".into()).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader)), "{refused:?}");
    cluster.agree_on(&entries(0, 1)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn undecodable_entry_stops_the_replica() {
    let cluster = Cluster::founded(1, NEVER).await;
    let (_, leading) = cluster.raft_leader().await;
    let consensus = cluster.replicas[0].run().consensus.clone();
    let unknown = consensus.propose(leading, "undecodable".into()).await;
    assert!(unknown.is_err(), "{unknown:?}");
    let why = tokio::time::timeout(PATIENCE, consensus.failed()).await.expect("it stops");
    assert!(why.contains("cannot be decoded"), "{why}");
}

#[tokio::test]
async fn member_is_added_promoted_and_removed() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    write_all(&cluster, &entries(0, 20)).await;
    let mut fourth = Replica::new(4, NEVER);
    fourth.start().await;
    fourth.node.replica_id = fourth.run().identity.replica_id().to_owned();
    let (id, _) = cluster.raft_leader().await;
    let consensus = cluster.replica(id).run().consensus.clone();
    consensus.add_learner(4, fourth.node.clone()).await.expect("added");
    let promoted = async {
        while consensus.promote(4).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, promoted).await.expect("it catches up");
    cluster.replicas.push(fourth);
    cluster.agree_on(&entries(0, 20)).await;
    assert!(consensus.leadership().borrow().nodes[&4].voter);
    consensus.remove(4).await.expect("removed");
    assert_eq!(consensus.leadership().borrow().nodes.len(), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn member_is_found_at_its_new_address() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    write_all(&cluster, &entries(0, 5)).await;
    let (id, _) = cluster.raft_leader().await;
    let moved = id % 3 + 1;
    cluster.replica(moved).move_away().await;
    cluster.replica(moved).start().await;
    let node = cluster.replica(moved).node.clone();
    cluster.replica(id).run().consensus.add_learner(moved, node.clone()).await.expect("on record");
    write_all(&cluster, &entries(5, 10)).await;
    cluster.agree_on(&entries(0, 10)).await;
    seen(cluster.replica(id).run(), "still a voter", |known| known.nodes[&moved].voter && known.nodes[&moved].node == node).await;
    cluster.stop().await;
}

#[tokio::test]
async fn forged_messages_are_refused_and_harm_nothing() {
    use tenure_proto::peer::v1::{AppendRequest, LogEntry, LogId, SnapshotChunk, SnapshotHead, SnapshotMeta, Vote, VoteRequest, log_entry};

    let mut cluster = Cluster::founded(3, NEVER).await;
    write_all(&cluster, &entries(0, 5)).await;
    let (id, _) = cluster.raft_leader().await;
    let target = id % 3 + 1;
    let node = cluster.replica(target).node.clone();
    let mut client = cluster.replica(id).run().peers.dial(target, &node);

    let far = Vote { term: u64::MAX, node: 9, committed: false };
    for vote in [None, Some(far)] {
        let refused = client.vote(VoteRequest { vote, ..VoteRequest::default() }).await.expect_err("no vote");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
    let vote = Some(Vote { term: 1, node: id, committed: true });
    let entry = |term, index| LogEntry { log_id: Some(LogId { term, node: id, index }), payload: Some(log_entry::Payload::Blank(true)) };
    let no_voters = Some(log_entry::Payload::Membership(tenure_proto::peer::v1::Membership::default()));
    let forged = [
        AppendRequest::default(),
        AppendRequest { vote, entries: vec![entry(1, 7), entry(1, 9)], ..AppendRequest::default() },
        AppendRequest { vote, prev: Some(LogId { term: 1, node: id, index: 6 }), entries: vec![entry(5, 7)], ..AppendRequest::default() },
        AppendRequest { vote, prev: Some(LogId { term: 1, node: id, index: u64::MAX }), ..AppendRequest::default() },
        AppendRequest { vote, entries: vec![LogEntry { payload: no_voters, ..entry(1, 0) }], ..AppendRequest::default() },
        AppendRequest { vote, entries: vec![LogEntry::default()], ..AppendRequest::default() },
    ];
    for request in forged {
        let mut answers = client.append(futures::stream::iter([request.clone()])).await.expect("a stream").into_inner();
        let refused = answers.message().await.expect_err("refused");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{request:?}");
    }
    let head = |term, index| SnapshotHead {
        vote,
        meta: Some(SnapshotMeta { last_log_id: Some(LogId { term, node: id, index }), ..SnapshotMeta::default() }),
        size: 3,
    };
    for head in [None, Some(SnapshotHead::default()), Some(head(7, 100)), Some(head(1, 100))] {
        let chunk = SnapshotChunk { head, data: "abc".into() };
        client.install_snapshot(futures::stream::iter([chunk])).await.expect_err("no snapshot");
    }
    let endless = SnapshotChunk { head: Some(SnapshotHead { size: 1 << 63, ..head(1, 1_000_000) }), data: "abc".into() };
    let refused = client.install_snapshot(futures::stream::iter([endless]).chain(futures::stream::pending())).await.expect_err("too large for any disk");
    assert!(refused.message().contains(&(1_u64 << 63).to_string()), "{refused}");
    write_all(&cluster, &entries(5, 10)).await;
    cluster.agree_on(&entries(0, 10)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn wiped_member_is_refused_until_it_is_added_anew() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    write_all(&cluster, &entries(0, 10)).await;
    let (id, _) = cluster.raft_leader().await;
    let wiped = id % 3 + 1;
    cluster.replica(wiped).stop().await;
    cluster.replica(wiped).wipe();
    cluster.replica(wiped).start().await;
    write_all(&cluster, &entries(10, 20)).await;
    // It was dialed all the while, and took nothing.
    let stranger = cluster.replica(wiped).run();
    assert_eq!(stranger.identity.cluster_id(), None);
    assert!(stranger.tape.entries().is_empty());
    let node = crate::consensus::Node { replica_id: stranger.identity.replica_id().to_owned(), ..cluster.replica(wiped).node.clone() };
    let consensus = cluster.replica(id).run().consensus.clone();
    assert!(consensus.add_learner(wiped, node.clone()).await.is_err(), "it must be removed first");
    consensus.remove(wiped).await.expect("removed");
    consensus.add_learner(wiped, node).await.expect("added");
    cluster.agree_on(&entries(0, 20)).await;
    cluster.stop().await;
}

/// A replica that was away while a member was replaced knows that member's node id with the old directory.
#[tokio::test]
async fn replica_that_missed_the_replacement_of_a_member_follows_it() {
    let mut cluster = Cluster::founded(5, NEVER).await;
    write_all(&cluster, &entries(0, 10)).await;
    let (id, _) = cluster.raft_leader().await;
    let (replaced, away) = (id % 5 + 1, (id + 1) % 5 + 1);
    cluster.agree_on(&entries(0, 10)).await;
    cluster.replica(away).stop().await;

    cluster.replica(replaced).stop().await;
    cluster.replica(replaced).wipe();
    cluster.replica(replaced).start().await;
    let anew = cluster.replica(replaced).run().identity.replica_id().to_owned();
    let node = crate::consensus::Node { replica_id: anew, ..cluster.replica(replaced).node.clone() };
    let consensus = cluster.replica(id).run().consensus.clone();
    consensus.remove(replaced).await.expect("removed");
    consensus.add_learner(replaced, node).await.expect("added");
    consensus.promote(replaced).await.expect("promoted");
    cluster.agree_on(&entries(0, 10)).await;
    consensus.transfer_leader(Some(replaced), PATIENCE).await.expect("told to lead");
    seen(cluster.replica(replaced).run(), "the replaced member leads", |known| known.leading.is_some()).await;

    cluster.replica(away).start().await;
    write_all(&cluster, &entries(10, 20)).await;
    cluster.agree_on(&entries(0, 20)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn call_for_another_cluster_or_replica_is_refused() {
    let mut cluster = Cluster::founded(3, NEVER).await;
    cluster.write("entry 0").await;
    cluster.agree_on(&entries(0, 1)).await;
    let request = tenure_proto::peer::v1::ReadIndexRequest {};

    let mut other = Replica::new(9, NEVER);
    other.start().await;
    other.run().identity.join("another-cluster").await.expect("joined");
    let node = cluster.replica(1).node.clone();
    let refused = other.run().peers.dial(1, &node).read_index(request).await.expect_err("another cluster");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("belongs to cluster test-cluster, not to another-cluster"), "{}", refused.message());

    let peers = cluster.replica(2).run().peers.clone();
    let refused = peers.dial(3, &node).read_index(request).await.expect_err("another node");
    assert!(refused.message().contains("this is node 1, not node 3"), "{}", refused.message());
    let wrong = crate::consensus::Node { replica_id: "elsewhere".into(), ..node };
    let refused = peers.dial(1, &wrong).read_index(request).await.expect_err("another directory");
    assert!(refused.message().contains("remove member 1 and add it anew"), "{}", refused.message());
    other.stop().await;
    cluster.stop().await;
}
