//! Packets that do not arrive: partitions of every shape.

use super::super::{Need, Scenario, Stage, stage::host};
use crate::clock;

const NEEDS: &[Need] = &[Need::Hosts];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "leader-isolated-from-peers",
        what: "the raft leader is cut off from the other replicas, and clients still reach it",
        must: "it acknowledges nothing, reads nothing stale, and its clients find the others",
        needs: NEEDS,
        floor: 3,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(isolated(stage, Isolation::FromPeers)),
    },
    Scenario {
        name: "leader-isolated-from-clients",
        what: "the raft leader is cut off from all clients, and leads on",
        must: "clients find the others, which pass on what they ask",
        needs: NEEDS,
        floor: 3,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(isolated(stage, Isolation::FromClients)),
    },
    Scenario {
        name: "one-way",
        what: "the raft leader hears nobody, or nobody hears it: one direction only, clients included in turn",
        must: "no two lead at once for anybody; there is a raft leader that works",
        needs: NEEDS,
        floor: 3,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(one_way(stage)),
    },
    Scenario {
        name: "bridge",
        what: "two halves do not see each other, and one replica sees both",
        must: "one raft leader, or a clean refusal; no elections without end",
        needs: NEEDS,
        floor: 1,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(bridge(stage)),
    },
    Scenario {
        name: "flapping",
        what: "the raft leader is cut off and back in about an election timeout, over and over",
        must: "who comes back does not push out who leads; leases run out in time all the same",
        needs: NEEDS,
        floor: 1,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(flapping(stage)),
    },
    Scenario {
        name: "half-open",
        what: "the raft leader's machine vanishes without a word to anybody, and comes back at the same address",
        must: "nobody hangs on connections whose other end has forgotten them",
        needs: NEEDS,
        floor: 3,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(half_open(stage)),
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isolation {
    FromPeers,
    FromClients,
}

async fn isolated(stage: &mut Stage, isolation: Isolation) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let (kind, others) = match isolation {
            Isolation::FromPeers => ("cut off from peers", stage.hosts_besides(&[leader])),
            Isolation::FromClients => ("cut off from clients", stage.user_hosts()),
        };
        let fault = stage.history.fault(kind, leader);
        let cut = clock::now();
        stage.net()?.cut(&host(leader), &others)?;
        if isolation == Isolation::FromPeers {
            stage.led_by_another_than(leader).await?;
        }
        stage.served_after(cut).await?;
        stage.pass_some(1_000, 4_000).await?;
        stage.net()?.mend(&host(leader))?;
        stage.history.healed(fault);
        stage.pass_some(300, 1_500).await?;
    }
    Ok(())
}

async fn one_way(stage: &mut Stage) -> anyhow::Result<()> {
    for turn in 0.. {
        if !stage.goes_on() {
            break;
        }
        let leader = stage.raft_leader().await?;
        let mut others = stage.hosts_besides(&[leader]);
        if turn % 4 >= 2 {
            others.extend(stage.user_hosts());
        }
        let mute = turn % 2 == 0;
        let fault = stage.history.fault(if mute { "heard by nobody" } else { "hears nobody" }, leader);
        if mute {
            stage.net()?.mute(&host(leader), &others)?
        } else {
            stage.net()?.deafen(&host(leader), &others)?
        }
        stage.pass_some(1_000, 3_500).await?;
        stage.net()?.mend(&host(leader))?;
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
        stage.pass_some(200, 1_000).await?;
    }
    Ok(())
}

async fn bridge(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        // Often the raft leader stands on one side.
        let middle = if stage.rng.below(3) == 0 { leader } else { stage.other_than(leader) };
        let sides = stage.hosts_besides(&[middle]);
        let (left, right) = sides.split_at(sides.len() / 2);
        let fault = stage.history.fault_on("bridge", &sides);
        for one in left {
            stage.net()?.cut(one, right)?;
        }
        stage.pass_some(1_500, 4_000).await?;
        stage.net()?.mend_all()?;
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
        stage.pass_some(200, 1_000).await?;
    }
    Ok(())
}

async fn flapping(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let peers = stage.hosts_besides(&[leader]);
        let fault = stage.history.fault("flapping", leader);
        for _ in 0..8 {
            stage.net()?.cut(&host(leader), &peers)?;
            stage.pass_some(80, 450).await?;
            stage.net()?.mend(&host(leader))?;
            stage.pass_some(80, 450).await?;
        }
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
    }
    Ok(())
}

async fn half_open(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let everybody = [stage.hosts_besides(&[leader]), stage.user_hosts()].concat();
        let gone = clock::now();
        stage.net()?.cut(&host(leader), &everybody)?;
        let fault = stage.kill(leader)?;
        stage.led_by_another_than(leader).await?;
        stage.served_after(gone).await?;
        stage.pass_some(200, 2_500).await?;
        stage.net()?.mend(&host(leader))?;
        stage.start(leader, fault).await?;
        stage.pass_some(300, 1_200).await?;
    }
    Ok(())
}
