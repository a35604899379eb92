//! Networks that work, and badly: slow, lossy, with connections that break; and a follower that falls far behind.

use std::time::Duration;

use anyhow::ensure;
use tenure_checker::history::What;

use super::super::{Need, Scenario, Stage, stage::host, user::Extra};
use crate::{api::may_retry, clock, proxy::Proxy, replica::PATIENCE, v1};

const NEEDS: &[Need] = &[Need::Hosts];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "slow-links",
        what: "what replicas send each other takes up to 120 ms, differently from link to link, and at times stands still on open connections",
        must: "slow is slow and not wrong",
        needs: NEEDS,
        floor: 1,
        keeps: false,
        prepare: |setup| setup.peer_proxies = true,
        act: |stage| Box::pin(slow_links(stage)),
    },
    Scenario {
        name: "lossy-links",
        what: "hosts lose up to 30 of 100 packets, and one sends at 1 Mbit/s",
        must: "TCP hides it; what it cannot hide is told",
        needs: NEEDS,
        floor: 0,
        keeps: false,
        prepare: |_| {},
        act: |stage| Box::pin(lossy_links(stage)),
    },
    Scenario {
        name: "tcp-kill",
        what: "every connection of a host is reset, several times a second, of replicas and clients alike",
        must: "streams are taken up again where they broke; no stuck renewals, no gap in a watch",
        needs: NEEDS,
        floor: 3,
        keeps: true,
        prepare: |_| {},
        act: |stage| Box::pin(tcp_kill(stage)),
    },
    Scenario {
        name: "retries",
        what: "answers are cut off after the request arrived, everybody asks again elsewhere, and some ask twice at once",
        must: "a repeated request is granted once, and never again when its grant is over",
        needs: &[],
        floor: 1,
        keeps: false,
        prepare: |setup| {
            setup.client_proxies = true;
            setup.extras = vec![Extra::Twins];
        },
        act: |stage| Box::pin(retries(stage)),
    },
    Scenario {
        name: "slow-follower-snapshot",
        what: "a follower is cut off until the others have purged what it lacks, while leases are renewed",
        must: "it gets a snapshot, and then has the same state; no lease ends early by it",
        needs: NEEDS,
        floor: 5,
        keeps: true,
        prepare: |setup| setup.snapshot_log_bytes = "64KiB",
        act: |stage| Box::pin(slow_follower_snapshot(stage)),
    },
];

async fn slow_links(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let fault = stage.history.fault_on("slow links", &[]);
        for at in 0..stage.peer_proxies.len() {
            let (there, back) = (stage.rng.below(60), stage.rng.below(60));
            stage.peer_proxies[at].delay_requests(Duration::from_millis(there));
            stage.peer_proxies[at].delay_answers(Duration::from_millis(back));
        }
        stage.pass_some(500, 1_500).await?;
        let at = usize::try_from(stage.rng.below(stage.peer_proxies.len() as u64))?;
        let answers_only = stage.rng.below(2) == 0;
        let cut = |proxy: &Proxy, cut: bool| if answers_only { proxy.cut_answers(cut) } else { proxy.cut(cut) };
        cut(&stage.peer_proxies[at], true);
        stage.pass_some(300, 2_000).await?;
        cut(&stage.peer_proxies[at], false);
        stage.history.healed(fault);
    }
    Ok(())
}

async fn lossy_links(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let fault = stage.history.fault_on("lossy links", &[]);
        let slow = host(1 + stage.rng.below(stage.setup.replicas));
        for id in stage.ids() {
            let percent = u8::try_from(stage.rng.below(31))?;
            stage.net()?.lose(&host(id), percent)?;
        }
        stage.net()?.limit(&slow, Some("1mbit"))?;
        stage.pass_some(1_500, 4_000).await?;
        stage.net()?.limit(&slow, None)?;
        stage.net()?.mend_all()?;
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
    }
    Ok(())
}

async fn tcp_kill(stage: &mut Stage) -> anyhow::Result<()> {
    let hosts = [stage.hosts_besides(&[]), stage.user_hosts()].concat();
    while stage.goes_on() {
        let fault = stage.history.fault_on("connections reset", &[]);
        for _ in 0..6 {
            let at = usize::try_from(stage.rng.below(hosts.len() as u64))?;
            stage.net()?.reset_connections(&hosts[at])?;
            stage.pass_some(50, 400).await?;
        }
        stage.history.healed(fault);
        stage.served_after(clock::now()).await?;
    }
    Ok(())
}

async fn retries(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        let fault = stage.history.fault_on("answers cut off", &[]);
        let open = usize::try_from(stage.rng.below(stage.client_proxies.len() as u64))?;
        for (at, proxy) in stage.client_proxies.iter().enumerate() {
            proxy.cut_answers(at != open);
        }
        stage.pass_some(300, 2_000).await?;
        // The others only: what was asked there is not answered either.
        for (at, proxy) in stage.client_proxies.iter().enumerate() {
            proxy.cut_answers(at == open);
        }
        stage.pass_some(300, 1_500).await?;
        stage.client_proxies.iter().for_each(|proxy| proxy.cut_answers(false));
        stage.history.healed(fault);
        stage.pass_some(100, 500).await?;
    }
    Ok(())
}

/// Changes of some size, so that the log grows: through this replica, until it has seen so many.
async fn ballast(stage: &Stage, through: u64, count: u64) -> anyhow::Result<()> {
    let begun = clock::now();
    let api = &stage.cluster.replicas[usize::try_from(through - 1)?].api;
    for number in 0..count {
        let annotations = [("weight".to_owned(), format!("{number:0>8000}"))].into();
        let put = v1::PutRequest { namespace: "ballast".into(), name: format!("lease-{}", number % 5), annotations, ..v1::PutRequest::default() };
        while let Err(status) = api.lease.clone().put(put.clone()).await {
            ensure!(may_retry(&status) && clock::since(begun) < PATIENCE, "{status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn slow_follower_snapshot(stage: &mut Stage) -> anyhow::Result<()> {
    const RECEIVED: &str = "snapshot received";
    while stage.goes_on() {
        let leader = stage.raft_leader().await?;
        let slow = stage.other_than(leader);
        let received = |stage: &mut Stage| anyhow::Ok(stage.cluster.replica(slow)?.log_text()?.matches(RECEIVED).count());
        let before = received(stage)?;
        let fault = stage.history.fault("cut off", slow);
        let peers = stage.hosts_besides(&[slow]);
        stage.net()?.cut(&host(slow), &peers)?;
        // As long as it counts on an answer, the raft leader keeps what it has sent.
        let given_up = format!("peer cannot be reached peer={slow} purpose=replication");
        let known = |stage: &mut Stage| anyhow::Ok(stage.cluster.replica(leader)?.log_text()?.matches(&given_up).count());
        let (before_that, cut) = (known(stage)?, clock::now());
        while known(stage)? == before_that {
            ensure!(clock::since(cut) < PATIENCE, "replica {leader} does not notice that replica {slow} is cut off");
            ballast(stage, leader, 10).await?;
            stage.pass(Duration::from_millis(100)).await?;
            if stage.raft_leader().await? != leader {
                break;
            }
        }
        ballast(stage, leader, 60).await?;
        stage.pass_some(200, 1_000).await?;
        stage.net()?.mend(&host(slow))?;
        let mended = clock::now();
        while received(stage)? == before {
            ensure!(clock::since(mended) < PATIENCE, "replica {slow} was not sent a snapshot");
            stage.pass(Duration::from_millis(50)).await?;
        }
        stage.history.record(What::Note { node: slow.to_string(), text: RECEIVED.into() });
        stage.history.healed(fault);
        stage.pass_some(300, 1_000).await?;
    }
    Ok(())
}
