//! What operators do to a running cluster, well and badly.

use std::time::Duration;

use anyhow::ensure;
use tonic::{Code, Status};

use super::super::{Need, Scenario, Stage, stage::host};
use crate::{
    api::may_retry,
    clock,
    replica::{PATIENCE, Replica},
    v1::{AddMemberRequest, RemoveMemberRequest},
};

const NEEDS: &[Need] = &[Need::Hosts];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "rolling-restart",
        what: "one replica after the other is told to end, and started again",
        must: "no call fails that the SDK may repeat",
        needs: &[],
        floor: 10,
        keeps: true,
        prepare: |setup| setup.patience_ms = 20_000,
        act: |stage| Box::pin(rolling_restart(stage)),
    },
    Scenario {
        name: "membership",
        what: "a replica is added, the raft leader removed, and one that lost its disk replaced at the same address",
        must: "there is always a majority that knows everything; tokens never go back",
        needs: NEEDS,
        floor: 5,
        keeps: true,
        prepare: |setup| setup.spares = 1,
        act: |stage| Box::pin(membership(stage)),
    },
    Scenario {
        name: "config-mismatch",
        what: "replicas with a taken node id, an emptied disk, a cluster of their own or founders who are no such thing knock at the door",
        must: "they are refused or wait, none of them serves, and nobody else notices",
        needs: NEEDS,
        floor: 10,
        keeps: true,
        prepare: |setup| setup.spares = 2,
        act: |stage| Box::pin(config_mismatch(stage)),
    },
];

async fn rolling_restart(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        for id in stage.ids() {
            let fault = stage.history.fault("SIGTERM", id);
            let status = stage.cluster.replica(id)?.terminate().await?;
            ensure!(status.success(), "replica {id} ended with {status} when it was told to end");
            stage.pass_some(50, 600).await?;
            stage.start(id, fault).await?;
        }
    }
    stage.traffic.read()?;
    // What may not be sent twice may come to nothing.
    let idempotent = |why: &&(u64, String)| !why.1.contains("put ") && !why.1.contains("delete ");
    let failures: Vec<_> = stage.traffic.failures.iter().filter(idempotent).collect();
    ensure!(failures.is_empty(), "{} calls failed, the first: {}", failures.len(), failures[0].1);
    Ok(())
}

/// Asks one replica after the other until one does it, as an operator would.
async fn insist<T>(stage: &mut Stage, what: &str, mut ask: impl AsyncFnMut(&mut Replica) -> Result<T, Status>) -> anyhow::Result<T> {
    let begun = clock::now();
    for turn in 0.. {
        let at = turn % stage.cluster.replicas.len();
        if !stage.cluster.replicas[at].running() {
            continue;
        }
        match tokio::time::timeout(PATIENCE, ask(&mut stage.cluster.replicas[at])).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(status)) if !may_retry(&status) => anyhow::bail!("{what}: {status}"),
            other => ensure!(clock::since(begun) < 2 * PATIENCE, "{what}: not for a long time: {:?}", other.map(|answer| answer.err())),
        }
        stage.pass(Duration::from_millis(100)).await?;
    }
    unreachable!("turns do not end")
}

async fn add(stage: &mut Stage, node_id: u64) -> anyhow::Result<()> {
    let peer_addr = stage.cluster.replica(node_id)?.peer_addr();
    insist(stage, "adding a member", async |through| {
        // Asked before, and it was done.
        let known = through.api.status().await?.members.iter().any(|member| member.node_id == node_id && member.role() == crate::v1::member::Role::Voter);
        if !known {
            through.api.cluster.add_member(AddMemberRequest { node_id, peer_addr: peer_addr.clone(), learner_only: false }).await?;
        }
        Ok(())
    })
    .await?;
    stage.cluster.replica(node_id)?.ready().await
}

async fn remove(stage: &mut Stage, node_id: u64) -> anyhow::Result<()> {
    insist(stage, "removing a member", async |through| {
        if through.api.status().await?.members.iter().any(|member| member.node_id == node_id) {
            through.api.cluster.remove_member(RemoveMemberRequest { node_id }).await?;
        }
        Ok(())
    })
    .await
}

/// A replica that is down and whose directory must not come back: removed, and added anew with an empty one, at the same address.
pub(super) async fn replace(stage: &mut Stage, id: u64) -> anyhow::Result<()> {
    remove(stage, id).await?;
    stage.cluster.replica(id)?.wipe()?;
    let replica = &stage.cluster.replicas[usize::try_from(id - 1)?];
    stage.cluster.configure(replica, &[], false)?;
    stage.cluster.replica(id)?.spawn()?;
    add(stage, id).await
}

async fn membership(stage: &mut Stage) -> anyhow::Result<()> {
    let newcomer = stage.setup.replicas + 1;
    while stage.goes_on() {
        let fault = stage.history.fault("added", newcomer);
        if stage.cluster.replicas.iter().all(|replica| replica.id != newcomer) {
            stage.cluster.add_replica(newcomer)?;
            let api = stage.cluster.replica(newcomer)?.api.clone();
            stage.observers.watch(newcomer, api, &stage.history);
        }
        stage.cluster.replica(newcomer)?.spawn()?;
        add(stage, newcomer).await?;
        stage.history.healed(fault);
        stage.pass_some(200, 600).await?;

        // The raft leader goes, and comes back with nothing.
        let leader = stage.raft_leader().await?;
        let fault = stage.history.fault("removed", leader);
        remove(stage, leader).await?;
        stage.cluster.replica(leader)?.kill()?;
        stage.led_by_another_than(leader).await?;
        replace(stage, leader).await?;
        stage.history.healed(fault);
        stage.pass_some(200, 600).await?;

        // As many as before.
        let fault = stage.history.fault("removed", newcomer);
        remove(stage, newcomer).await?;
        stage.cluster.replica(newcomer)?.kill()?;
        stage.cluster.replica(newcomer)?.wipe()?;
        stage.history.healed(fault);
        stage.pass_some(200, 600).await?;
    }
    stage.cluster.replicas.retain(|replica| replica.id != newcomer);
    Ok(())
}

/// A process that is none of ours, on a spare host.
fn stranger(stage: &Stage, at: u64, node_id: u64, name: &str) -> anyhow::Result<Replica> {
    let dir = stage.cluster.dir().join(name);
    std::fs::create_dir_all(&dir)?;
    Replica::at(node_id, &dir, dir.join("data"), stage.net()?.place(&host(at))?)
}

/// It must neither serve nor be taken for one of ours for a while; it may end by itself, with an error.
async fn refused(stage: &mut Stage, stranger: &mut Replica) -> anyhow::Result<()> {
    let begun = clock::now();
    while clock::since(begun) < Duration::from_millis(1_500) {
        stage.pass(Duration::from_millis(100)).await?;
        if stranger.still_alive().is_err() {
            return Ok(());
        }
        ensure!(!serves(stranger).await, "a stranger serves");
    }
    stranger.kill()
}

/// Whether it says anything about leases, if only that there is none.
async fn serves(replica: &Replica) -> bool {
    match tokio::time::timeout(Duration::from_millis(300), replica.api.get("chaos", "first")).await {
        Ok(Ok(_)) => true,
        Ok(Err(status)) => status.code() == Code::NotFound,
        Err(_) => false,
    }
}

async fn config_mismatch(stage: &mut Stage) -> anyhow::Result<()> {
    let (first, second) = (stage.setup.replicas + 1, stage.setup.replicas + 2);
    let founders: Vec<(u64, String)> = stage.cluster.replicas.iter().map(|replica| (replica.id, replica.peer_addr())).collect();
    for round in 0.. {
        if !stage.goes_on() {
            break;
        }
        // A taken id, from another address, with nothing on its disk.
        let mut twin = stranger(stage, first, 2, &format!("twin-{round}"))?;
        let fault = stage.history.fault_on("a second node 2", &[]);
        let others = founders.iter().map(|(id, peer)| (*id, if *id == 2 { twin.peer_addr() } else { peer.clone() })).collect::<Vec<_>>();
        stage.cluster.configure(&twin, &others, true)?;
        twin.spawn()?;
        refused(stage, &mut twin).await?;
        stage.history.healed(fault);

        // One who says that it founds a cluster with ours.
        let mut founder = stranger(stage, first, 9, &format!("founder-{round}"))?;
        let fault = stage.history.fault_on("a founder who is none", &[]);
        let others = [founders.clone(), vec![(9, founder.peer_addr())]].concat();
        stage.cluster.configure(&founder, &others, true)?;
        founder.spawn()?;
        refused(stage, &mut founder).await?;
        stage.history.healed(fault);

        // A cluster of its own: its member cannot become one of ours.
        let mut other = stranger(stage, second, 1, &format!("other-{round}"))?;
        let fault = stage.history.fault_on("another cluster", &[]);
        stage.cluster.configure(&other, &[(1, other.peer_addr())], true)?;
        other.spawn()?;
        other.ready().await?;
        let request = AddMemberRequest { node_id: 8, peer_addr: other.peer_addr(), learner_only: false };
        let added = tokio::time::timeout(PATIENCE, stage.cluster.api().cluster.clone().add_member(request)).await?;
        ensure!(added.is_err(), "a member of another cluster was added: {added:?}");
        other.kill()?;
        stage.history.healed(fault);

        // One of ours whose disk is empty: it must not vote as if it had never voted.
        let leader = stage.raft_leader().await?;
        let emptied = stage.other_than(leader);
        let fault = stage.kill(emptied)?;
        let replica = stage.cluster.replica(emptied)?;
        let aside = replica.data_dir.with_extension("aside");
        std::fs::rename(&replica.data_dir, &aside)?;
        replica.spawn()?;
        stage.pass(Duration::from_millis(1_500)).await?;
        let replica = stage.cluster.replica(emptied)?;
        if replica.still_alive().is_ok() {
            ensure!(!serves(replica).await, "a replica with an empty directory serves");
            replica.kill()?;
        }
        std::fs::remove_dir_all(&replica.data_dir)?;
        std::fs::rename(&aside, &replica.data_dir)?;
        stage.start(emptied, fault).await?;
    }
    Ok(())
}
