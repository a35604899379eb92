//! Clocks that are wrong. `tenured` and the SDK measure leases by clocks that no library can fake; what runs wrong here is the wall clock and the timers
//! of replicas (libfaketime), and the clocks that users measure their leases with (the SDK's `Clock`).

use super::super::{Need, Scenario, Stage};
use crate::faketime::Jumps;

const HOUR: i64 = 3_600;

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "drift",
        what: "users' clocks run 0.045 % fast and slow, timers of replicas 5 %; the raft leader moves",
        must: "all promises: it is within what is promised",
        needs: &[Need::Faketime],
        floor: 5,
        keeps: true,
        prepare: |setup| {
            setup.faketime = Some(Jumps::Timers);
            setup.rates = vec![1.05, 0.95, 1.0];
            setup.skews = [450, -450, 0];
        },
        act: |stage| Box::pin(drift(stage)),
    },
    Scenario {
        name: "drift-beyond",
        what: "users' clocks run 5 % fast and slow, far beyond what is promised",
        must: "holders may believe too long, and tokens protect all the same",
        needs: &[],
        floor: 5,
        keeps: false,
        prepare: |setup| {
            setup.skews = [50_000, -50_000, 0];
            setup.clocks_within_promise = false;
        },
        act: |stage| Box::pin(drift(stage)),
    },
    Scenario {
        name: "clock-jump",
        what: "wall clocks of replicas and users jump by an hour, to and fro, some many times a second",
        must: "nothing at all: no decision uses them",
        needs: &[Need::Faketime],
        floor: 5,
        keeps: true,
        prepare: |setup| setup.faketime = Some(Jumps::Wall),
        act: |stage| Box::pin(clock_jump(stage)),
    },
];

async fn drift(stage: &mut Stage) -> anyhow::Result<()> {
    let fault = stage.history.fault_on("clock rate", &[]);
    while stage.goes_on() {
        stage.pass_some(1_500, 3_000).await?;
        let leader = stage.raft_leader().await?;
        let next = stage.other_than(leader);
        stage.transfer_to(next).await?;
    }
    stage.history.healed(fault);
    Ok(())
}

async fn clock_jump(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let at = usize::try_from(stage.rng.below(stage.faketimes.len() as u64))?;
        let fault = stage.history.fault_on("wall clock set", &[]);
        for _ in 0..1 + stage.rng.below(6) {
            let hours = i64::try_from(stage.rng.below(5))? - 2;
            stage.faketimes[at].jump(hours * HOUR)?;
            stage.pass_some(20, 300).await?;
        }
        stage.history.healed(fault);
        if stage.rng.below(4) == 0 {
            let leader = stage.raft_leader().await?;
            let next = stage.other_than(leader);
            stage.transfer_to(next).await?;
        }
    }
    Ok(())
}
