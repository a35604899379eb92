//! Processes that stand still, and go on as if nothing had been.

use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;

use super::super::{
    Need, Scenario, Stage,
    hurt::{Starved, Traced},
    stage::host,
};
use crate::clock;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "stop-leader",
        what: "the raft leader stands still for longer than leases last, and goes on",
        must: "what it had queued does no harm; nobody is granted early, nobody sees the past",
        needs: &[],
        floor: 3,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(stop_leader(stage)),
    },
    Scenario {
        name: "stop-holder",
        what: "holders stand still for longer than their leases last, and go on to write",
        must: "they know at their first look; the store refuses what they write under old tokens",
        needs: &[],
        floor: 3,
        keeps: false,
        prepare: |setup| setup.keeper_ms = 1_500,
        act: |stage| Box::pin(stop_holder(stage)),
    },
    Scenario {
        name: "stop-all",
        what: "all replicas stand still for longer than leases last",
        must: "the lease clock stands still as well: leases do not all end because the service was away",
        needs: &[],
        floor: 0,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(stop_all(stage)),
    },
    Scenario {
        name: "starve-leader",
        what: "the raft leader gets two hundredths of a core",
        must: "late is late and not wrong: what it had queued before another led does no harm",
        needs: &[],
        floor: 1,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(starve_leader(stage)),
    },
    Scenario {
        name: "stuck-fsync",
        what: "every fsync of the raft leader takes 2 s, and every other time it is cut off from its peers as well",
        must: "nothing is acknowledged before it is on a majority's disks; what it had queued before another led does no harm",
        needs: &[Need::Strace, Need::Hosts],
        floor: 1,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(stuck_fsync(stage)),
    },
];

async fn stop_leader(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let fault = stage.stop(leader)?;
        stage.led_by_another_than(leader).await?;
        stage.pass_some(1_500, 4_500).await?;
        stage.resume(leader, fault)?;
        stage.pass_some(300, 1_500).await?;
    }
    Ok(())
}

async fn stop_holder(stage: &mut Stage) -> anyhow::Result<()> {
    let mut at = 0;
    while stage.goes_on() {
        let name = stage.traffic.users[at].name.clone();
        let fault = stage.history.fault_on("SIGSTOP", &[name]);
        stage.traffic.users[at].signal(Signal::STOP)?;
        stage.pass_some(1_700, 4_000).await?;
        stage.traffic.users[at].signal(Signal::CONT)?;
        stage.history.healed(fault);
        stage.pass_some(200, 800).await?;
        at = (at + 1) % stage.traffic.users.len();
    }
    let refused = stage.history.refused_writes();
    ensure!(refused > 0, "no write came too late: nothing was shown");
    Ok(())
}

async fn stop_all(stage: &mut Stage) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_secs(4);
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let before = stage.cluster.replica(leader)?.api.status().await?.lease_clock_ms;
        let fault = stage.history.fault_on("outage", &[]);
        for id in stage.ids() {
            stage.cluster.replica(id)?.signal(Signal::STOP)?;
        }
        stage.pass(PAUSE).await?;
        for id in stage.ids() {
            stage.cluster.replica(id)?.signal(Signal::CONT)?;
        }
        let leader = stage.raft_leader().await?;
        let ran = stage.cluster.replica(leader)?.api.status().await?.lease_clock_ms.saturating_sub(before);
        stage.history.healed(fault);
        // Half of the pause is far more than it may run ahead, and leaves a busy machine its time.
        ensure!(Duration::from_millis(ran) < PAUSE * 3 / 4, "the lease clock ran {ran} ms over a pause of {PAUSE:?}");
        stage.pass_some(500, 2_000).await?;
    }
    Ok(())
}

async fn starve_leader(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let fault = stage.history.fault("starved", leader);
        let starved = Starved::start(stage.cluster.replica(leader)?.pid()?);
        stage.pass_some(2_000, 4_500).await?;
        drop(starved);
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
        stage.pass_some(300, 1_200).await?;
    }
    Ok(())
}

async fn stuck_fsync(stage: &mut Stage) -> anyhow::Result<()> {
    for turn in 0.. {
        if !stage.goes_on() {
            break;
        }
        let leader = stage.raft_leader().await?;
        let fault = stage.history.fault("stuck fsync", leader);
        let traced = Traced::start(stage.cluster.replica(leader)?.pid()?, "fsync,fdatasync", "delay_enter=2000000").await?;
        stage.pass_some(1_500, 3_000).await?;
        if turn % 2 == 0 {
            // Another one leads; what this one has in hand is late, and of a former term.
            let peers = stage.hosts_besides(&[leader]);
            stage.net()?.cut(&host(leader), &peers)?;
            stage.led_by_another_than(leader).await?;
            stage.pass_some(1_000, 2_500).await?;
            stage.net()?.mend(&host(leader))?;
            stage.pass_some(500, 1_000).await?;
        }
        drop(traced);
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
        stage.pass_some(300, 1_200).await?;
    }
    Ok(())
}
