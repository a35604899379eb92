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
