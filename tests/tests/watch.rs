//! Watches: consumers that do not keep up, raft leaders that go away, and pasts that are forgotten.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_tests::{
    Cluster, History, api, clock,
    replica::{PATIENCE, Replica},
    v1::{self, lease_service_client::LeaseServiceClient},
    watcher::Watcher,
};
use tokio::task::JoinSet;
use tonic::{Code, transport::Endpoint};

/// Resident memory, in MiB.
fn rss_mib(replica: &Replica) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", replica.pid()?.as_raw_nonzero()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? / 1024)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_that_does_not_read_gets_an_explicit_end_and_harms_nobody() -> anyhow::Result<()> {
    let cluster = Cluster::three("slow-consumer").await?;
    let start = cluster.api().grant(api::acquire("busy", "first", "me", 1000)).await?.revision;
    let mut stuck = Vec::new();
    for replica in cluster.apis() {
        let request = v1::WatchRequest { namespace: "busy".into(), after_revision: start, ..Default::default() };
        // A small window: what it does not read stays at the server.
        let channel = Endpoint::from_shared(format!("http://{}", replica.addr))?.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        stuck.push(LeaseServiceClient::new(channel.connect().await?).watch(request).await?.into_inner());
    }
    let mut reader = Watcher::spawn(&cluster.apis(), 1, "busy", start);

    // More changes than the tail of 32,768 holds, each with some weight.
    let mut writers = JoinSet::new();
    for writer in 0..96_usize {
        let replica = cluster.apis()[writer % 3].clone();
        writers.spawn(async move {
            for turn in 0..360 {
                let put = v1::PutRequest {
                    namespace: "busy".into(),
                    name: format!("lease-{writer}"),
                    annotations: [("turn".to_owned(), format!("{turn:0>600}"))].into(),
                    ..Default::default()
                };
                let begun = clock::now();
                while let Err(status) = replica.lease.clone().put(put.clone()).await {
                    ensure!(api::may_retry(&status) && clock::since(begun) < PATIENCE, "{status}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Ok(())
        });
    }
    let begun = clock::now();
    while let Some(written) = writers.join_next().await {
        written??;
    }
    println!("{} changes in {:?}", 96 * 360, clock::since(begun));
    let end = cluster.api().grant(api::acquire("busy", "last", "me", 1000)).await?.revision;
    reader.reached(end).await?;
    let (seen, resumed) = reader.stop().await?;
    ensure!(
        seen.len() >= 96 * 360 && seen.windows(2).all(|pair| pair[0].revision < pair[1].revision),
        "the reader saw {} (resumed {resumed} times)",
        seen.len()
    );
    for replica in &cluster.replicas {
        let rss = rss_mib(replica)?;
        println!("replica {}: {rss} MiB", replica.id);
        ensure!(rss < 250, "replica {} has grown to {rss} MiB", replica.id);
    }

    // What was sent before is still in the pipe, in order; then comes either all the rest or an error. Never a gap, never just silence.
    for mut answers in stuck {
        let mut revisions = vec![start];
        let status = loop {
            match tokio::time::timeout(Duration::from_secs(10), answers.message()).await.context("silence")? {
                Ok(Some(answer)) => {
                    revisions.extend(answer.events.iter().map(|event| event.revision).filter(|revision| *revision <= end));
                    if revisions.last().is_some_and(|last| *last >= end) || answer.bookmark >= end {
                        break None;
                    }
                }
                Ok(None) => anyhow::bail!("the watch ended without an error"),
                Err(status) => break Some(status),
            }
        };
        println!("one that did not read got {} events late, and then: {status:?}", revisions.len() - 1);
        let complete = seen.iter().map(|event| event.revision).take(revisions.len() - 1).eq(revisions[1..].iter().copied());
        ensure!(complete, "events are missing from the {} of a late reader", revisions.len() - 1);
        match status {
            None => ensure!(revisions.len() - 1 == seen.len(), "{} of {} events, and no error", revisions.len() - 1, seen.len()),
            Some(status) => ensure!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted | Code::Aborted | Code::Unavailable), "{status}"),
        }
    }

    // The beginning is forgotten, and the refusal says from where on it can be had.
    for replica in cluster.apis() {
        let request = v1::WatchRequest { namespace: "busy".into(), after_revision: start, ..Default::default() };
        let status = match replica.lease.clone().watch(request).await {
            Err(status) => status,
            Ok(answers) => answers.into_inner().message().await.err().context("a compacted watch began")?,
        };
        ensure!(status.code() == Code::OutOfRange && status.message().chars().any(|c| c.is_ascii_digit()), "{status}");
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_all_kinds_go_on_when_the_raft_leader_dies() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("watch-failover").await?;
    let start = cluster.api().grant(api::acquire("ns", "first", "me", 1000)).await?.revision;
    let raft_leader = cluster.raft_leader().await?;
    let survivor = usize::try_from(raft_leader % 3)?;
    // One that began at the raft leader and must move, and one at a follower that must not even notice.
    let history = Arc::new(History::of("watches-go-on"));
    let mut moved = Watcher::recorded(&cluster.apis(), usize::try_from(raft_leader - 1)?, "ns", start, &history);
    let mut stayed = Watcher::recorded(std::slice::from_ref(&cluster.apis()[survivor]), 0, "ns", start, &history);
    let write = |cluster: &Cluster, name: String| {
        let api = Arc::new(cluster.apis()[survivor].clone());
        async move {
            let begun = clock::now();
            let request = v1::AcquireRequest { request_id: name.clone(), ..api::acquire("ns", &name, "me", 60_000) };
            loop {
                match tokio::time::timeout(Duration::from_secs(1), api.grant(request.clone())).await {
                    Ok(Ok(lease)) => return Ok(lease),
                    _ => ensure!(clock::since(begun) < PATIENCE, "{name} could not be written"),
                }
            }
        }
    };
    for at in 0..50 {
        write(&cluster, format!("before-{at}")).await?;
    }
    cluster.replica(raft_leader)?.kill()?;
    let mut end = 0;
    for at in 0..50 {
        end = write(&cluster, format!("after-{at}")).await?.revision;
    }
    stayed.reached(end).await?;
    moved.reached(end).await?;
    cluster.start_all().await?;
    let (_, resumed) = stayed.stop().await?;
    ensure!(resumed == 0, "a watch at a follower had to be resumed {resumed} times");
    let (_, resumed) = moved.stop().await?;
    ensure!(resumed > 0, "the watch at the raft leader outlived it");
    // The restarted one has the same past as the one that never went.
    let mut restarted = Watcher::recorded(std::slice::from_ref(&cluster.replica(raft_leader)?.api), 0, "ns", start, &history);
    restarted.reached(end).await?;
    restarted.stop().await?;
    history.witness(&cluster.apis()[survivor], "ns", start).await?;
    let report = history.check()?;
    ensure!(report.checked_of("W5") >= 3 * 99, "three watches of a hundred changes: {}", report.checked_of("W5"));
    cluster.passed()
}
