//! Claims about writing, reading and membership, on replicas in one process that found their cluster themselves.

mod cluster;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all};
use tenure_lease::{LeaseState, RaftLeaderId};
use tenure_proto::{
    peer::v1::{self as peer, Delete, Key, command::Kind, outcome},
    v1::release_response,
};
use tonic::Code;

use self::cluster::{Cluster, PATIENCE, Replica, acquire_command};
use super::{
    SubmitError, forward,
    lanes::{Answer, Undone},
};
use crate::{
    clock::{Clock, SystemClock},
    read::ReadError,
};

fn ms_since(earlier: crate::clock::Readings) -> u64 {
    SystemClock.readings().surely_since(earlier) / 1_000_000
}

#[tokio::test]
async fn every_replica_takes_writes_and_shows_them_to_readers() {
    let mut cluster = Cluster::founded(3).await;
    for id in 1..=3 {
        let name = format!("lease-{id}");
        let token = cluster.of(id).acquire(&name, "holder", 60_000).await;
        assert!(token > SystemClock.wall_unix_ms() << 9, "the counter starts at the wall clock");
        for reader in 1..=3 {
            let lease = cluster.of(reader).read(&name).await.expect("a read after the answer shows the write");
            assert_eq!((lease.token, lease.state), (token, LeaseState::Held));
        }
        assert_eq!(cluster.of(id % 3 + 1).renew(vec![token, token + 1_000]).await, [true, false]);
        let outcome = cluster.of(id).release(&name, token).await;
        let outcome::Kind::Released(released) = outcome else { panic!("{outcome:?}") };
        assert_eq!(released.outcome(), release_response::Outcome::Released);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn one_replica_alone_founds_and_serves() {
    let mut cluster = Cluster::founded(1).await;
    let token = cluster.of(1).acquire("db", "a", 60_000).await;
    cluster.replica(1).stop().await;
    cluster.replica(1).start().await;
    assert_eq!(cluster.of(1).read("db").await.expect("it was acknowledged").token, token);
    cluster.stop().await;
}

#[tokio::test]
async fn commands_that_come_together_share_entries_and_all_are_answered() {
    let mut cluster = Cluster::founded(3).await;
    let follower = cluster.follower().await;
    for id in [follower, cluster.raft_leader().await] {
        let running = cluster.of(id);
        let before = running.applications.progress().index;
        let began = SystemClock.readings();
        let tokens = join_all((0..2_000).map(|n| async move { running.acquire(&format!("{id}-{n}"), "holder", 600_000).await })).await;
        let took = ms_since(began);
        let entries = running.applications.progress().index - before;
        eprintln!("2000 acquires through node {id}: {took} ms, {entries} entries");
        assert_eq!(tokens.len(), 2_000);
        assert!(entries < 200, "{entries} entries");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn writes_go_on_when_the_raft_leader_is_gone() {
    let mut cluster = Cluster::founded(3).await;
    for round in 0..3 {
        let leader = cluster.raft_leader().await;
        let follower = cluster.follower().await;
        let before = cluster.of(follower).acquire(&format!("before-{round}"), "holder", 600_000).await;
        cluster.replica(leader).stop().await;
        let began = SystemClock.readings();
        let after = cluster.of(follower).acquire(&format!("after-{round}"), "holder", 600_000).await;
        eprintln!("round {round}: writes again after {} ms", ms_since(began));
        assert!(after > before);
        assert_eq!(cluster.of(follower).renew(vec![before, after]).await, [true, true]);
        cluster.replica(leader).start().await;
        let lease = cluster.of(leader).read(&format!("after-{round}")).await.expect("it caught up before it answered");
        assert_eq!(lease.token, after);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn writes_under_way_survive_a_change_of_raft_leader() {
    let mut cluster = Cluster::founded(3).await;
    let follower = cluster.follower().await;
    let running = cluster.of(follower);
    let (writes, transfer) = tokio::join!(
        join_all((0..500).map(|n| async move {
            let first = running.acquire(&format!("lease-{n}"), "holder", 600_000).await;
            // The request id makes it the same attempt.
            assert_eq!(running.acquire(&format!("lease-{n}"), "holder", 600_000).await, first);
        })),
        running.members.transfer_leader(0),
    );
    assert_eq!(writes.len(), 500);
    let new = transfer.unwrap();
    assert_eq!(new, cluster.raft_leader().await);
    cluster.stop().await;
}

#[tokio::test]
async fn without_a_quorum_nothing_is_promised() {
    let mut cluster = Cluster::founded(3).await;
    let left = cluster.raft_leader().await;
    for id in (1..=3).filter(|id| *id != left) {
        cluster.replica(id).stop().await;
    }
    let patience = Duration::from_secs(2);
    let running = cluster.of(left);
    let delete = Kind::Delete(Delete { key: Some(Key { namespace: "default".to_owned(), name: "x".to_owned() }), ..Delete::default() });
    let command = tenure_proto::peer::v1::Command { kind: Some(delete) };
    let (written, read) = tokio::join!(running.router.submit(command, patience), running.reads.barrier(patience));
    assert!(matches!(written, Err(SubmitError::NoLeader(_) | SubmitError::Unknown)), "{written:?}");
    assert!(matches!(read, Err(ReadError::NoLeader(_))), "{read:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn expiry_follows_the_deadline_closely() {
    let mut cluster = Cluster::founded(3).await;
    let leader = cluster.raft_leader().await;
    let mut late = Vec::new();
    for n in 0..10 {
        let name = format!("lease-{n}");
        let running = cluster.of(leader);
        running.acquire(&name, "holder", 200 + n * 7).await;
        let deadline = running.read(&name).await.unwrap().deadline.expect("it is held");
        let mut progress = running.applications.watch_progress();
        loop {
            let lease = running.applications.table.read().get(&tenure_lease::LeaseKey::trusted("default", name.as_str())).unwrap();
            let clock = running.applications.progress().clock;
            if lease.state == LeaseState::Expired {
                assert!(clock > deadline);
                late.push(clock.since(deadline));
                break;
            }
            progress.changed().await.unwrap();
        }
    }
    eprintln!("expired so many ms of lease clock after the deadline: {late:?}");
    late.sort_unstable();
    assert!(late[late.len() / 2] <= 20, "{late:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn lease_clock_keeps_up_with_real_time_while_something_is_held() {
    let mut cluster = Cluster::founded(3).await;
    let leader = cluster.raft_leader().await;
    let running = cluster.of(leader);
    let began = SystemClock.readings();
    running.acquire("db", "a", 600_000).await;
    let mut progress = running.applications.watch_progress();
    let from = *progress.borrow_and_update();
    let to = *progress.wait_for(|progress| progress.clock.since(from.clock) >= 2_000).await.unwrap();
    let real = ms_since(began);
    eprintln!("lease clock: {} ms in {real} ms, {} entries", to.clock.since(from.clock), to.index - from.index);
    assert!(to.clock.since(from.clock) <= real, "the clock never runs ahead of what has elapsed");
    assert!(to.index - from.index <= 8, "ticks come every 500 ms");
    cluster.stop().await;
}

#[tokio::test]
async fn entry_of_another_raft_leader_is_not_applied_and_its_jobs_go_on() {
    let mut cluster = Cluster::founded(3).await;
    let leader = cluster.raft_leader().await;
    let running = cluster.of(leader);
    let id = running.consensus.leadership().borrow().leading.expect("it leads");
    let former = RaftLeaderId { term: id.term - 1, node: id.node };
    let (answer, done) = Answer::one();
    running.proposer.propose_as(id, former, Arc::new(acquire_command("db", "a", 1_000)), answer).await;
    assert_eq!(done.await.unwrap(), Err(Undone::NotLeader));
    assert_eq!(running.read("db").await, None);
    running.acquire("db", "a", 60_000).await;
    cluster.stop().await;
}

#[tokio::test]
async fn command_of_a_peer_that_no_replica_could_apply_never_reaches_the_log() {
    let mut cluster = Cluster::founded(1).await;
    let running = cluster.of(1);
    let lopsided = peer::Renew { tokens: vec![1, 2], durations_ms: vec![5], keys: vec![] };
    let beyond = peer::Bootstrap { counter_start: u64::MAX, ..peer::Bootstrap::default() };
    let kinds = [None, Some(Kind::Acquire(peer::Acquire::default())), Some(Kind::Renew(lopsided)), Some(Kind::Bootstrap(beyond))];
    let jobs = kinds.into_iter().zip(0..).map(|(kind, id)| peer::Job { id, command: Some(peer::Command { kind }) });
    let requests = futures::stream::iter([Ok(peer::ForwardRequest { jobs: jobs.collect() })]);
    let answers: Vec<_> = forward::serve(&running.proposer, requests).collect().await;
    let results: Vec<_> = answers.into_iter().flat_map(|answer| answer.unwrap().results).collect();
    assert_eq!(results.len(), 4);
    for result in results {
        let Some(peer::job_result::Result::Violations(told)) = result.result else { panic!("job {}: {:?}", result.id, result.result) };
        assert!(!told.violations.is_empty(), "job {}", result.id);
    }
    running.acquire("db", "a", 60_000).await;
    cluster.stop().await;
}

#[tokio::test]
async fn replica_says_which_rules_of_the_raft_leader_a_command_breaks() {
    let mut cluster = Cluster::founded(3).await;
    let follower = cluster.follower().await;
    // This replica's configuration may allow what the raft leader's does not.
    let refused = cluster.of(follower).submit(cluster::acquire_command("db", "a", 999).kind.unwrap()).await.unwrap_err();
    let SubmitError::Invalid(violations) = &refused else { panic!("{refused}") };
    assert_eq!(violations.iter().map(|violation| violation.description.as_str()).collect::<Vec<_>>(), ["duration is 999ms; it must be 1s to 24h"]);
    cluster.of(follower).acquire("db", "a", 1_000).await;
    cluster.stop().await;
}

#[tokio::test]
async fn readers_that_come_together_are_all_answered() {
    let mut cluster = Cluster::founded(3).await;
    for id in 1..=3 {
        let running = cluster.of(id);
        running.reads.barrier(PATIENCE).await.unwrap();
        let began = SystemClock.readings();
        for _ in 0..20 {
            running.reads.barrier(PATIENCE).await.unwrap();
        }
        let one = SystemClock.readings().surely_since(began) / 20_000;
        let began = SystemClock.readings();
        let results = join_all((0..1_000).map(|_| running.reads.barrier(PATIENCE))).await;
        eprintln!("node {id}: a barrier takes {one} us, a thousand together {} ms", ms_since(began));
        assert!(results.iter().all(Result::is_ok));
    }
    // After a write through another replica, the follower has to hear that it is committed.
    let (leader, follower) = (cluster.raft_leader().await, cluster.follower().await);
    let mut waits = Vec::new();
    for n in 0..20 {
        let name = format!("lease-{n}");
        cluster.of(leader).acquire(&name, "holder", 600_000).await;
        let began = SystemClock.readings();
        assert!(cluster.of(follower).read(&name).await.is_some());
        waits.push(SystemClock.readings().surely_since(began) / 1_000);
    }
    waits.sort_unstable();
    eprintln!("read on a follower right after a write: {} us median, {} us worst", waits[10], waits[19]);
    cluster.stop().await;
}

#[tokio::test]
async fn dead_member_is_replaced_while_the_cluster_serves() {
    let mut cluster = Cluster::founded(3).await;
    let token = cluster.of(1).acquire("db", "a", 600_000).await;
    let dead = cluster.follower().await;
    cluster.replica(dead).stop().await;
    cluster.replica(dead).wipe();
    cluster.replica(dead).start().await;
    let asked = cluster.follower().await;
    let asked = if asked == dead { (1..=3).find(|id| *id != dead).unwrap() } else { asked };
    let addr = cluster.replica(dead).addr.clone();
    let refused = cluster.of(asked).members.add(dead, addr.clone(), false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(cluster.of(dead).identity.cluster_id().is_none(), "an empty replica is no member by its old name");

    cluster.of(asked).members.remove(dead).await.unwrap();
    assert_eq!(cluster.of(asked).members.remove(dead).await.unwrap_err().code(), Code::NotFound);
    cluster.of(asked).members.add(dead, addr, false).await.unwrap();
    assert_eq!(cluster.of(dead).read("db").await.expect("it has caught up").token, token);
    let voters = cluster.of(asked).consensus.leadership().borrow().nodes.values().filter(|member| member.voter).count();
    assert_eq!(voters, 3);
    cluster.stop().await;
}

#[tokio::test]
async fn members_come_and_go_one_by_one() {
    let mut cluster = Cluster::founded(1).await;
    let only = cluster.of(1).members.remove(1).await.unwrap_err();
    assert_eq!(only.code(), Code::FailedPrecondition);
    assert_eq!(cluster.of(1).members.transfer_leader(0).await.unwrap_err().code(), Code::FailedPrecondition);
    for id in [2, 3] {
        let mut replica = Replica::new(id);
        replica.start().await;
        let wrong = cluster.of(1).members.add(9, replica.addr.clone(), false).await.unwrap_err();
        assert_eq!(wrong.code(), Code::FailedPrecondition, "{wrong}");
        cluster.of(1).members.add(id, replica.addr.clone(), false).await.unwrap();
        cluster.replicas.push(replica);
    }
    let nobody = cluster.of(1).members.add(4, "127.0.0.1:1".to_owned(), false).await.unwrap_err();
    assert_eq!(nobody.code(), Code::Unavailable);
    assert_eq!(cluster.of(2).members.transfer_leader(3).await.unwrap(), 3);
    assert_eq!(cluster.of(1).members.transfer_leader(7).await.unwrap_err().code(), Code::NotFound);
    // The raft leader itself: it hands over first.
    cluster.of(2).members.remove(3).await.unwrap();
    cluster.replica(3).stop().await;
    cluster.of(1).acquire("db", "a", 60_000).await;
    // Without node 2, node 1 is enough; without a node that answers, nothing is.
    cluster.replica(2).stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn empty_replica_beside_a_cluster_founds_nothing() {
    let mut cluster = Cluster::founded(3).await;
    cluster.of(1).acquire("db", "a", 600_000).await;
    // The one that founded it.
    cluster.replica(1).stop().await;
    cluster.replica(1).wipe();
    cluster.replica(1).start().await;
    cluster.of(2).acquire("other", "a", 600_000).await;
    let mut leadership = cluster.of(1).consensus.leadership();
    let member = tokio::time::timeout(Duration::from_secs(2), leadership.wait_for(|known| !known.nodes.is_empty())).await;
    assert!(member.is_err(), "it is no member");
    assert!(cluster.of(1).identity.cluster_id().is_none());
    cluster.stop().await;
}

#[tokio::test]
async fn cluster_waits_for_every_initial_member() {
    let mut replicas: Vec<_> = (1..=3).map(Replica::new).collect();
    let initial_members: Vec<_> = replicas.iter().map(|replica| (replica.id, replica.addr.clone())).collect();
    for replica in &mut replicas {
        replica.bootstrap = true;
        replica.initial_members.clone_from(&initial_members);
    }
    replicas[0].start().await;
    replicas[1].start().await;
    let mut leadership = replicas[0].run().consensus.leadership();
    let founded = tokio::time::timeout(Duration::from_secs(2), leadership.wait_for(|known| !known.nodes.is_empty())).await;
    assert!(founded.is_err(), "two of three are not all");
    replicas[2].start().await;
    let mut cluster = Cluster { replicas };
    cluster.of(3).acquire("db", "a", 60_000).await;
    cluster.stop().await;
}

#[tokio::test]
async fn replica_that_moved_tells_the_cluster() {
    let mut cluster = Cluster::founded(3).await;
    let moved = cluster.follower().await;
    cluster.replica(moved).stop().await;
    cluster.replica(moved).move_away();
    cluster.replica(moved).start().await;
    let addr = cluster.replica(moved).addr.clone();
    let leader = (1..=3).find(|id| *id != moved).unwrap();
    let mut leadership = cluster.of(leader).consensus.leadership();
    let told = leadership.wait_for(|known| known.nodes.get(&moved).is_some_and(|member| member.node.peer_addr == addr && member.voter));
    tokio::time::timeout(PATIENCE, told).await.expect("in time").unwrap();
    cluster.of(moved).acquire("db", "a", 60_000).await;
    cluster.stop().await;
}
