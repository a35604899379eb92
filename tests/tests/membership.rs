//! A dead or wiped replica is replaced while the cluster serves.

use std::sync::Arc;

use anyhow::ensure;
use tenure_tests::{
    Cluster, History, api, clock,
    probe::Probe,
    replica::PATIENCE,
    v1::{AddMemberRequest, RemoveMemberRequest, TransferLeaderRequest, member},
    workload::{Ending, Holder, Outcome, Plan},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_replica_is_replaced_under_load() -> anyhow::Result<()> {
    // Small, so that the newcomer needs a snapshot.
    let settings = tenure_tests::Settings { snapshot_log_bytes: "64KiB", ..Default::default() };
    let mut cluster = Cluster::start("replace", settings).await?;
    let history = Arc::new(History::of("dead-replica-is-replaced"));
    // What a snapshot must bring over.
    for at in 0..300 {
        cluster.api().grant(api::acquire("old", &format!("lease-{at}"), "me", 600_000)).await?;
    }
    let survivors = cluster.apis()[..2].to_vec();
    let probe = Probe::spawn(&survivors, &history).await?;
    let mut holders = Vec::new();
    for at in 0..10_usize {
        let mut holder = Holder::spawn(Plan::new("load", &format!("lease-{at}"), &format!("holder-{at}"), 3000, &survivors, at), Arc::clone(&history));
        holder.granted().await?;
        holders.push(holder);
    }

    let begun = clock::now();
    cluster.replica(3)?.kill()?;
    let removed = cluster.api().cluster.clone().remove_member(RemoveMemberRequest { node_id: 3 }).await?.into_inner();
    ensure!(removed.members.iter().all(|member| member.node_id != 3), "{removed:?}");
    // Its directory cannot come back: what takes its place begins empty, and joins by being added.
    let addr = {
        let replica = cluster.replica(3)?;
        replica.wipe()?;
        replica.peer.addr()
    };
    let replica = cluster.replicas.last().expect("is there");
    cluster.configure(replica, &[], false)?;
    cluster.replica(3)?.spawn()?;
    // Through the other one, so that one of the two calls was not taken by the raft leader.
    let mut adding = cluster.apis()[1].cluster.clone();
    let added = loop {
        match adding.add_member(AddMemberRequest { node_id: 3, peer_addr: addr.clone(), learner_only: false }).await {
            Ok(added) => break added.into_inner(),
            // It may not listen yet.
            Err(status) if api::may_retry(&status) && clock::since(begun) < PATIENCE => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(status) => return Err(status.into()),
        }
    };
    ensure!(added.members.iter().any(|member| member.node_id == 3 && member.role() == member::Role::Voter), "{added:?}");
    cluster.replica(3)?.ready().await?;
    println!("replaced in {:?}; longest time without a write: {:?}", clock::since(begun), probe.longest_silence(begun));

    let old = cluster.apis()[2].list("old", "").await?;
    ensure!(old.len() == 300, "the new replica shows {} of 300 leases", old.len());
    let statuses = cluster.settled().await?;
    ensure!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "replicas differ: {statuses:?}");

    // It counts: with it and one of the old ones there is a quorum. It can lead, too.
    cluster.replica(1)?.kill()?;
    let killed = clock::now();
    ensure!(probe.writes_again(killed, PATIENCE).await, "no write with the new replica and an old one");
    let led = loop {
        match cluster.apis()[2].cluster.clone().transfer_leader(TransferLeaderRequest { node_id: 3 }).await {
            Ok(led) => break led.into_inner().raft_leader_id,
            Err(status) if api::may_retry(&status) && clock::since(killed) < PATIENCE => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(status) => return Err(status.into()),
        }
    };
    ensure!(led == 3 && cluster.raft_leader().await? == 3, "replica {led} leads");
    cluster.start_all().await?;
    for holder in holders {
        let lease = holder.plan.lease.clone();
        let hold = holder.stop(Ending::Release).await?;
        ensure!(hold.outcome == Outcome::Stopped(Ending::Release), "{lease} was not kept: {hold:?}");
    }
    history.check()?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomer_learns_from_a_raft_leader_that_was_replaced_itself() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("replaced-leader").await?;
    for at in 0..40 {
        cluster.api().grant(api::acquire("default", &format!("lease-{at}"), "me", 600_000)).await?;
    }
    let begun = clock::now();
    // Node 3 is another replica from here on, and leads.
    cluster.replica(3)?.kill()?;
    cluster.api().cluster.clone().remove_member(RemoveMemberRequest { node_id: 3 }).await?;
    cluster.replica(3)?.wipe()?;
    let replica = cluster.replicas.last().expect("is there");
    cluster.configure(replica, &[], false)?;
    cluster.replica(3)?.spawn()?;
    add(&cluster, 3, begun).await?;
    cluster.replica(3)?.ready().await?;
    while cluster.raft_leader().await? != 3 {
        ensure!(clock::since(begun) < PATIENCE, "node 3 does not come to lead");
        let asked = cluster.api().cluster.clone().transfer_leader(TransferLeaderRequest { node_id: 3 }).await;
        ensure!(asked.as_ref().map_or_else(api::may_retry, |_| true), "{asked:?}");
    }
    // The log tells the newcomer of the first node 3 long before it tells of this one.
    cluster.add_replica(4)?.spawn()?;
    add(&cluster, 4, begun).await?;
    cluster.replica(4)?.ready().await?;
    let statuses = cluster.settled().await?;
    ensure!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "replicas differ: {statuses:?}");
    cluster.passed()
}

/// Adds a replica that runs, which may not listen yet.
async fn add(cluster: &Cluster, node_id: u64, begun: u64) -> anyhow::Result<()> {
    let peer_addr = cluster.replicas.iter().rev().find(|replica| replica.id == node_id).expect("is there").peer.addr();
    loop {
        let request = AddMemberRequest { node_id, peer_addr: peer_addr.clone(), learner_only: false };
        match tokio::time::timeout(PATIENCE, cluster.api().cluster.clone().add_member(request)).await? {
            Ok(_) => return Ok(()),
            Err(status) if api::may_retry(&status) && clock::since(begun) < PATIENCE => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(status) => return Err(status.into()),
        }
    }
}
