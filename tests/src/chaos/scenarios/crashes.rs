//! Processes that are gone from one moment to the next.

use std::time::Duration;

use anyhow::Context as _;

use super::super::{Scenario, Stage};
use crate::clock;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "kill-leader",
        what: "the raft leader is killed, again and again, and comes back",
        must: "nothing acknowledged is lost; the others go on",
        needs: &[],
        floor: 5,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(kill_leader(stage)),
    },
    Scenario {
        name: "kill-all",
        what: "all replicas are killed at once, and come back",
        must: "nothing acknowledged is lost, no token goes back",
        needs: &[],
        floor: 1,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(kill_all(stage)),
    },
    Scenario {
        name: "three-leader-changes",
        what: "three raft leaders in a row are killed right after each other, while leases are near their ends",
        must: "no lease ends early, and none lives for ever: deadlines move on with the log, not with the raft leader",
        needs: &[],
        floor: 3,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(three_leader_changes(stage)),
    },
];

async fn kill_leader(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let killed = clock::now();
        let fault = stage.kill(leader)?;
        stage.served_after(killed).await?;
        stage.pass_some(200, 1_200).await?;
        stage.start(leader, fault).await?;
        stage.pass_some(100, 800).await?;
    }
    Ok(())
}

async fn kill_all(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let fault = stage.history.fault_on("outage", &[]);
        stage.cluster.kill_all()?;
        stage.pass_some(10, 700).await?;
        stage.cluster.start_all().await?;
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
        stage.pass_some(500, 1_500).await?;
    }
    Ok(())
}

async fn three_leader_changes(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        for _ in 0..3 {
            let leader = stage.raft_leader().await?;
            let fault = stage.kill(leader)?;
            stage.led_by_another_than(leader).await.context("after a kill")?;
            stage.start(leader, fault).await?;
        }
        // Longer than the short leases: what should have ended by now has.
        stage.pass(Duration::from_millis(2_500)).await?;
    }
    Ok(())
}
