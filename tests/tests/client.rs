//! The client library against replicas that die: what it promises to hide stays hidden.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_client::{Client, Error};
use tenure_tests::{
    Cluster, api, millis,
    v1::{self, acquire_response::Result as Answer, renew_result},
};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn client(cluster: &Cluster, first: u64) -> anyhow::Result<Client> {
    let mut endpoints: Vec<String> = cluster.endpoints().split(',').map(str::to_owned).collect();
    let at = usize::try_from(first - 1)?;
    endpoints.rotate_left(at);
    let address = endpoints[0].clone();
    // A client starts anywhere; the test wants to know where.
    (0..64)
        .filter_map(|seed| Client::builder().endpoints(endpoints.clone()).seed(seed).build().ok())
        .find(|client| client.endpoint() == address)
        .context("some seed starts with the first endpoint")
}

async fn granted(client: &Client, request: v1::AcquireRequest) -> anyhow::Result<v1::Lease> {
    match client.acquire(request).decision().await?.result {
        Some(Answer::Granted(v1::Granted { lease: Some(lease), .. })) => Ok(lease),
        other => anyhow::bail!("not granted: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_stream_answers_every_message_in_order_while_its_replica_is_killed() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("client-renew").await?;
    let raft_leader = cluster.raft_leader().await?;
    let client = client(&cluster, raft_leader)?;
    let mut tokens = Vec::new();
    for i in 0..20 {
        tokens.push(granted(&client, api::acquire("ns", &format!("l{i}"), "me", 6_000)).await?.token);
    }
    let stream = client.renew_stream();
    let mut pending = Vec::new();
    for round in 0..60 {
        // Each message renews another number of leases, so that an answer to the wrong message shows.
        let some = 1 + round % tokens.len();
        pending.push((some, stream.send(tokens[..some].iter().map(|&token| api::renewal(token)).collect()).await?));
        if round == 20 {
            cluster.replica(raft_leader)?.kill()?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (some, renewal) in pending {
        let answer = timeout(SOON, renewal).await.context("an answer is missing")??;
        let renewed = answer.results.iter().filter(|result| matches!(result.result, Some(renew_result::Result::Renewed(_)))).count();
        ensure!(renewed == some && answer.results.len() == some, "{some} were sent: {answer:?}");
    }
    let message = vec![v1::RenewItem { duration: millis(1), ..api::renewal(tokens[0]) }];
    let wrong = timeout(SOON, stream.send(message).await?).await?;
    ensure!(matches!(wrong, Err(Error::Misuse(_))), "{wrong:?}");
    let next = timeout(SOON, stream.send(vec![api::renewal(tokens[0])]).await?).await??;
    ensure!(next.results.len() == 1, "a message that breaks a rule must not take the stream along: {next:?}");
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumes_on_another_replica_without_gap_or_repeat() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("client-watch").await?;
    let raft_leader = cluster.raft_leader().await?;
    let (watcher, writer) = (client(&cluster, raft_leader)?, client(&cluster, raft_leader % 3 + 1)?);
    let mut initial = watcher.watch(v1::WatchRequest { namespace: "ns".into(), send_initial: true, ..Default::default() }).await?;
    ensure!(timeout(SOON, initial.next()).await??.bookmark != 0, "an empty state is told too");
    let mut watch = watcher.watch(v1::WatchRequest { namespace: "ns".into(), ..Default::default() }).await?;
    let mut written = Vec::new();
    for round in 0..30 {
        let name = format!("l{round}");
        let put = v1::PutRequest { namespace: "ns".into(), name, labels: HashMap::from([("a".into(), "b".into())]), ..Default::default() };
        written.push(writer.put(put).await?.revision);
        if round == 10 {
            cluster.replica(raft_leader)?.kill()?;
        }
    }
    for watch in [&mut watch, &mut initial] {
        let mut seen = Vec::new();
        while seen.last() != written.last() {
            seen.extend(timeout(SOON, watch.next()).await??.events.iter().map(|event| event.revision));
        }
        ensure!(seen.is_sorted_by(|a, b| a < b), "repeated or out of order: {seen:?}");
        // A put that was sent twice made a change more; none that was acknowledged may be missing.
        ensure!(written.iter().all(|revision| seen.contains(revision)), "missing: {written:?} of {seen:?}");
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_keeps_its_place_when_the_replica_that_it_waits_at_is_killed() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("client-wait").await?;
    let raft_leader = cluster.raft_leader().await?;
    let (first, second) = (client(&cluster, raft_leader)?, client(&cluster, raft_leader % 3 + 1)?);
    let held = granted(&second, api::acquire("ns", "l", "holder", 60_000)).await?;
    let ask = |holder| v1::AcquireRequest { wait_for: millis(60_000), ..api::acquire("ns", "l", holder, 10_000) };
    let (mut a, mut b) = (first.acquire(ask("a")), second.acquire(ask("b")));
    for (acquiring, position) in [(&mut a, 1), (&mut b, 2)] {
        let answer = timeout(SOON, acquiring.next()).await??;
        let queued = answer.and_then(|answer| answer.result);
        ensure!(matches!(&queued, Some(Answer::Queued(queued)) if queued.position == position), "{queued:?}");
    }
    cluster.replica(raft_leader)?.kill()?;
    // It hears its position again from another replica: it is back in its place.
    let again = timeout(SOON, a.next()).await??.and_then(|answer| answer.result);
    ensure!(matches!(&again, Some(Answer::Queued(queued)) if queued.position == 1), "{again:?}");
    second.release(v1::ReleaseRequest { namespace: "ns".into(), name: "l".into(), token: held.token, ..Default::default() }).await?;
    let Some(Answer::Granted(v1::Granted { lease: Some(lease), must_renew: true })) = timeout(SOON, a.decision()).await??.result else {
        anyhow::bail!("the first in the queue was not granted");
    };
    let answer = first.renew(vec![api::renewal(lease.token)]).await?;
    ensure!(matches!(answer.results[0].result, Some(renew_result::Result::Renewed(_))), "{answer:?}");
    timeout(SOON, b.give_up()).await??;
    let lease = first.get(v1::GetRequest { namespace: "ns".into(), name: "l".into(), ..Default::default() }).await?;
    ensure!(lease.holder == "a" && lease.waiters == 0, "{lease:?}");
    cluster.passed()
}

/// Its place is in the log and can be granted when the replicas are back: "nothing was changed" would be a lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_that_was_cut_off_ends_with_its_outcome_unknown() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("client-doubt").await?;
    let client = Client::builder().endpoints(cluster.endpoints().split(',').map(str::to_owned)).request_timeout(Duration::from_secs(2)).build()?;
    granted(&client, api::acquire("ns", "l", "holder", 60_000)).await?;
    let mut waiting = client.acquire(v1::AcquireRequest { wait_for: millis(2_000), ..api::acquire("ns", "l", "waiter", 10_000) });
    let queued = timeout(SOON, waiting.next()).await??.and_then(|answer| answer.result);
    ensure!(matches!(queued, Some(Answer::Queued(_))), "{queued:?}");
    for id in 1..=3 {
        cluster.replica(id)?.terminate().await?;
    }
    let error = match timeout(SOON, waiting.decision()).await? {
        Ok(answer) => anyhow::bail!("nobody was there to answer, and yet: {answer:?}"),
        Err(error) => error,
    };
    ensure!(error.outcome_unknown(), "{error}");
    cluster.passed()
}
