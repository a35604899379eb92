//! Nothing goes wrong but what users ask: too much, too much at once, or too late.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, stream};
use tenure_checker::history::{Call, Outcome};
use tokio::task::JoinSet;
use tonic::Code;

use super::super::{Scenario, Stage, user::Extra};
use crate::{
    Api, History, api, clock,
    history::{state, unknown},
    replica::PATIENCE,
    v1::{self, acquire_response, renew_result},
    watcher::Watcher,
};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "mass-expiry",
        what: "two thousand leases run out in the same moment, the raft leader dies then every other time, and others go on renewing",
        must: "all are over soon, none too soon",
        needs: &[],
        floor: 3,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(mass_expiry(stage)),
    },
    Scenario {
        name: "renew-races",
        what: "leases of a tenth of a second are renewed, released and asked for again right at their ends, several at once, while the raft leader moves",
        must: "a renewal that was acknowledged counts, one that came too late does not; one token, one owner",
        needs: &[],
        floor: 10,
        keeps: true,
        prepare: |setup| {
            setup.extras = vec![Extra::Races];
            setup.durations = vec![120, 200, 400];
        },
        act: |stage| Box::pin(renew_races(stage)),
    },
    Scenario {
        name: "watch-bad-days",
        what: "readers stop reading, ask for long ago and for what is to come, and their replicas die and are restarted",
        must: "no gap, no repeat, nothing out of order; who cannot go on is told",
        needs: &[],
        floor: 5,
        keeps: true,
        prepare: |setup| setup.extras = vec![Extra::BadReaders],
        act: |stage| Box::pin(watch_bad_days(stage)),
    },
    Scenario {
        name: "overload",
        what: "many connections, many watches, renewals of nothing by the thousand, names of 64 KiB, lists of everything",
        must: "what is too much is refused as such; memory stays bounded",
        needs: &[],
        floor: 3,
        keeps: true,
        prepare: |setup| {
            setup.keeper_ms = 20_000;
            setup.patience_ms = 10_000;
        },
        act: |stage| Box::pin(overload(stage)),
    },
    Scenario {
        name: "healthy-soak",
        what: "nothing goes wrong",
        must: "no call fails",
        needs: &[],
        floor: 20,
        keeps: true,
        prepare: |setup| setup.patience_ms = 20_000,
        act: |stage| Box::pin(healthy_soak(stage)),
    },
];

const MANY: usize = 2_000;
const MASS: &str = "mass";

async fn mass_expiry(stage: &mut Stage) -> anyhow::Result<()> {
    let start = stage.cluster.api().grant(api::acquire(MASS, "first", "harness", 1_000)).await?.revision;
    let mut watcher = Watcher::recorded(&stage.cluster.apis(), 0, MASS, start, &stage.history);
    for turn in 0.. {
        if !stage.goes_on() {
            break;
        }
        let leader = stage.raft_leader().await?;
        let other = stage.other_than(leader);
        let api = stage.cluster.replica(other)?.api.clone();
        let history = Arc::clone(&stage.history);
        let granted = stream::iter(0..MANY).map(|at| grant(api.clone(), Arc::clone(&history), turn, at)).buffer_unordered(64);
        let tokens: Vec<(String, u64)> = granted.filter_map(async |token| token.ok().flatten()).collect().await;
        ensure!(tokens.len() > MANY / 2, "{} of {MANY} leases were granted", tokens.len());
        stage.traffic.read()?;
        // One message, one entry, one deadline.
        renew_all(&api, &stage.history, &tokens).await?;
        let renewed = clock::now();
        stage.pass(Duration::from_millis(2_700)).await?;
        if turn % 2 == 1 {
            let fault = stage.kill(leader)?;
            stage.led_by_another_than(leader).await?;
            stage.start(leader, fault).await?;
        }
        loop {
            let left = api.list(MASS, "").await?.iter().filter(|lease| lease.state() == v1::lease::State::Held).count();
            if left == 0 {
                break;
            }
            ensure!(clock::since(renewed) < 2 * PATIENCE, "{left} leases are still held long after their end");
            stage.pass(Duration::from_millis(100)).await?;
        }
    }
    let end = stage.cluster.api().grant(api::acquire(MASS, "last", "harness", 1_000)).await?.revision;
    watcher.reached(end).await?;
    watcher.stop().await.map(drop)
}

async fn grant(api: Api, history: Arc<History>, turn: u64, at: usize) -> anyhow::Result<Option<(String, u64)>> {
    let (name, holder) = (format!("lease-{turn}-{at}"), format!("holder-{at}"));
    // Their retention is over before there are too many.
    let request = v1::AcquireRequest { retention: api::millis(1_000), request_id: name.clone(), ..api::acquire(MASS, &name, &holder, 3_000) };
    let lease = format!("{MASS}/{name}");
    let call = Call::Acquire { lease: lease.clone(), holder, request_id: name, duration_ms: 3_000, wait_ms: None, reclaim: false };
    let op = history.begin("mass", call);
    match api.acquire(request).await {
        Ok(v1::AcquireResponse { header, result: Some(acquire_response::Result::Granted(granted)), .. }) => {
            let shown = state(&granted.lease.context("a grant shows its lease")?);
            let token = shown.token;
            history.end(op, Outcome::Granted { lease: shown, must_renew: granted.must_renew, revision: header.map_or(0, |header| header.revision) });
            Ok(Some((lease, token)))
        }
        other => {
            history.end(op, unknown(format!("{other:?}")));
            Ok(None)
        }
    }
}

async fn renew_all(api: &Api, history: &History, tokens: &[(String, u64)]) -> anyhow::Result<()> {
    let call = |(lease, token): &(String, u64)| Call::Renew { lease: lease.clone(), token: *token, duration_ms: None };
    let ops: Vec<u64> = tokens.iter().map(|token| history.begin("mass", call(token))).collect();
    let answer = api.renew(tokens.iter().map(|(_, token)| api::renewal(*token)).collect()).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    for (op, result) in ops.into_iter().zip(answer.results) {
        let outcome = match result.result {
            Some(renew_result::Result::Renewed(renewed)) => Outcome::Renewed { duration_ms: api::to_millis(renewed.duration.as_ref()), revision },
            Some(renew_result::Result::Lost(lost)) => match crate::history::reason(lost.reason()) {
                Some(reason) => Outcome::Lost { reason, holder: None },
                None => unknown("lost without a reason"),
            },
            None => unknown("no result"),
        };
        history.end(op, outcome);
    }
    Ok(())
}

async fn renew_races(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        stage.pass_some(800, 2_500).await?;
        let leader = stage.raft_leader().await?;
        let next = stage.other_than(leader);
        stage.transfer_to(next).await?;
    }
    Ok(())
}

async fn watch_bad_days(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let id = if stage.rng.below(3) == 0 { leader } else { stage.other_than(leader) };
        if stage.rng.below(2) == 0 {
            let fault = stage.kill(id)?;
            stage.pass_some(100, 1_000).await?;
            stage.start(id, fault).await?;
        } else {
            let fault = stage.history.fault("SIGTERM", id);
            stage.cluster.replica(id)?.terminate().await?;
            stage.start(id, fault).await?;
        }
        stage.pass_some(500, 2_000).await?;
    }
    Ok(())
}

/// The ways to ask for too much.
async fn pester(api: Api, way: usize) -> anyhow::Result<()> {
    let may_be_refused = |status: &tonic::Status, codes: &[Code]| {
        ensure!(api::may_retry(status) || codes.contains(&status.code()), "{way}: {status}");
        anyhow::Ok(())
    };
    for turn in 0_u64.. {
        match way % 5 {
            0 => {
                // Tokens that there never were.
                let items = (1..1_000).map(|token| api::renewal(turn * 1_000 + token)).collect();
                if let Err(status) = api.renew(items).await {
                    may_be_refused(&status, &[])?;
                }
            }
            1 => {
                let request = api::acquire(&"n".repeat(64 << 10), &"l".repeat(64 << 10), "pest", 1_000);
                match api.acquire(request).await {
                    Err(status) => may_be_refused(&status, &[Code::InvalidArgument])?,
                    Ok(answer) => anyhow::bail!("a name of 64 KiB was taken: {answer:?}"),
                }
            }
            2 => {
                if let Err(status) = api.list("chaos", "").await {
                    may_be_refused(&status, &[Code::OutOfRange])?;
                }
            }
            3 => {
                // Kept open, and not read.
                let request = v1::WatchRequest { all_namespaces: true, send_initial: true, ..v1::WatchRequest::default() };
                match api.lease.clone().watch(request).await {
                    Ok(answers) => {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        drop(answers);
                    }
                    Err(status) => may_be_refused(&status, &[])?,
                }
            }
            _ => {
                let request = v1::AcquireRequest { wait_for: api::millis(300), ..api::acquire("pests", "wanted", &format!("pest-{way}-{turn}"), 150) };
                if let Err(status) = api.acquire(request).await {
                    may_be_refused(&status, &[])?;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn overload(stage: &mut Stage) -> anyhow::Result<()> {
    const PESTS: usize = 60;
    const MOST_MIB: u64 = 700;
    let mut pests = JoinSet::new();
    for replica in &stage.cluster.replicas {
        for way in 0..PESTS {
            // A connection each.
            pests.spawn(pester(Api::new(&replica.client.addr()), way));
        }
    }
    let mut largest = 0;
    while stage.goes_on() {
        stage.pass_some(200, 400).await?;
        for replica in &stage.cluster.replicas {
            largest = largest.max(resident_mib(replica.pid()?.as_raw_nonzero().get())?);
        }
        if let Some(ended) = pests.try_join_next() {
            ended??;
        }
    }
    ensure!(largest < MOST_MIB, "a replica has grown to {largest} MiB");
    Ok(())
}

fn resident_mib(pid: i32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? / 1024)
}

async fn healthy_soak(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        stage.pass_some(200, 400).await?;
    }
    let failures = &stage.traffic.failures;
    ensure!(failures.is_empty(), "{} calls failed, the first: {}", failures.len(), failures[0].1);
    Ok(())
}
