//! A rolling restart of every replica, under heartbeats, elections and calls: nobody notices.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tenure_client::{Acquired, Client, Heartbeat, LeaderElection, Leadership, Observation, Pulse};
use tenure_tests::{Cluster, clock, replica::PATIENCE, v1};
use tokio::task::{JoinHandle, JoinSet};

const NODES: usize = 200;
const ELECTIONS: usize = 20;
/// A tenth of the kubelet's, rounded up.
const HEARTBEAT: Duration = Duration::from_secs(5);
const LEASE: Duration = Duration::from_secs(6);

fn client(endpoints: &[String]) -> anyhow::Result<Client> {
    Ok(Client::builder().endpoints(endpoints).build()?)
}

/// Calls of every kind that may be sent again, until told to stop; how many there were. Ends at the first error.
async fn calls(client: Client, at: usize, stop: Arc<AtomicBool>, made: Arc<AtomicU64>) -> anyhow::Result<()> {
    let name = format!("called-{at}");
    while !stop.load(Ordering::Relaxed) {
        let Acquired::Held(lease) = client.lease(&name).namespace("calls").duration(LEASE).try_acquire().await.context("acquire")? else {
            bail!("{name} is nobody else's");
        };
        let get = v1::GetRequest { namespace: "calls".into(), name: name.clone(), ..Default::default() };
        let seen = client.get(get).await.context("get")?;
        ensure!(seen.token == lease.token(), "a read that does not know of the grant: {seen:?}");
        client.list_all(v1::ListRequest { namespace: "calls".into(), page_size: 2, ..Default::default() }).await.context("list")?;
        client.put(v1::PutRequest { namespace: "calls".into(), name: format!("put-{at}"), ..Default::default() }).await.context("put")?;
        let answer = client.renew(vec![v1::RenewItem { token: lease.token(), ..Default::default() }]).await.context("renew")?;
        ensure!(matches!(answer.results[0].result, Some(v1::renew_result::Result::Renewed(_))), "{answer:?}");
        client.history(v1::HistoryRequest { namespace: "calls".into(), name: name.clone(), ..Default::default() }).await.context("history")?;
        client.cluster_status().await.context("cluster status")?;
        lease.release().await.context("release")?;
        made.fetch_add(8, Ordering::Relaxed);
    }
    Ok(())
}

/// Only the elected leader that it began with.
async fn watched(mut observation: Observation, token: u64) -> anyhow::Result<()> {
    loop {
        let leader = observation.next().await.context("observe")?;
        ensure!(leader.as_ref().is_some_and(|leader| leader.token == token), "changed hands: {leader:?} after {token}");
    }
}

struct Election {
    leadership: Leadership,
    waiting: JoinHandle<Result<Leadership, tenure_client::Error>>,
    watching: JoinHandle<anyhow::Result<()>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_loses_no_lease_changes_no_hands_and_fails_no_call() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sdk-roll").await?;
    let endpoints: Vec<String> = cluster.replicas.iter().map(|replica| replica.client.addr()).collect();
    let mut beating = JoinSet::new();
    for at in 0..NODES {
        // Connections of its own for each node, as in life.
        let mut heartbeat = Heartbeat::builder(&client(&endpoints)?, "nodes", format!("node-{at}")).duration(HEARTBEAT).every(HEARTBEAT / 4).start()?;
        beating.spawn(async move {
            while !matches!(heartbeat.pulse(), Pulse::Beating { .. }) {
                heartbeat.changed().await;
            }
            heartbeat
        });
    }
    let mut nodes = tokio::time::timeout(2 * PATIENCE, beating.join_all()).await.context("not all beat")?;
    let mut elections = Vec::new();
    for at in 0..ELECTIONS {
        let candidate =
            || -> anyhow::Result<_> { Ok(LeaderElection::builder(&client(&endpoints)?, "elections", format!("election-{at}")).lease_duration(LEASE).build()?) };
        let (first, second) = (candidate()?, candidate()?);
        let leadership = tokio::time::timeout(PATIENCE, first.campaign()).await??;
        let mut observation = second.observe().await?;
        let leader = observation.next().await?;
        ensure!(leader.is_some_and(|leader| leader.token == leadership.token()));
        let watching = tokio::spawn(watched(observation, leadership.token()));
        let waiting = tokio::spawn(async move { second.campaign().await });
        elections.push(Election { leadership, waiting, watching });
    }
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> =
        (0..4).map(|at| Ok(tokio::spawn(calls(client(&endpoints)?, at, Arc::clone(&stop), Arc::clone(&made))))).collect::<anyhow::Result<_>>()?;
    let before: Vec<u64> = nodes.iter().map(token).collect();
    let start = cluster.api().status().await?.header.context("a header")?.revision;

    let begun = clock::now();
    for id in 1..=3 {
        let status = cluster.replica(id)?.terminate().await?;
        ensure!(status.success(), "replica {id}: {status}");
        cluster.start_all().await?;
    }
    // Long enough for whoever is not renewed to be missed.
    tokio::time::sleep(HEARTBEAT + LEASE).await;
    println!("three replicas restarted in {:?}", clock::since(begun).saturating_sub(HEARTBEAT + LEASE));

    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        tokio::time::timeout(PATIENCE, caller).await??.context("a call that may be sent again failed")?;
    }
    println!("{} calls", made.load(Ordering::Relaxed));
    for (node, before) in nodes.iter_mut().zip(before) {
        ensure!(token(node) == before, "a heartbeat was interrupted: {:?}", node.pulse());
    }
    for (at, election) in elections.iter().enumerate() {
        let lost = election.leadership.lease().lost_reason();
        ensure!(election.leadership.is_leader() && lost.is_none(), "election {at} was lost: {lost:?}");
        ensure!(!election.waiting.is_finished() && !election.watching.is_finished(), "election {at} changed hands, or its observer failed");
    }
    // What the cluster says has ended since: nothing but what the callers released.
    let mut ended = client(&endpoints)?.watch(v1::WatchRequest { all_namespaces: true, after_revision: start, ..Default::default() }).await?;
    let last = cluster.api().status().await?.header.context("a header")?.revision;
    while ended.revision() < last {
        for event in tokio::time::timeout(PATIENCE, ended.next()).await??.events {
            let lease = event.lease.clone().unwrap_or_default();
            let expected = ["calls", "tenure-system"].contains(&lease.namespace.as_str());
            ensure!(expected, "{}/{} changed: {event:?}", lease.namespace, lease.name);
        }
    }
    // Those who waited have kept their place.
    for election in elections {
        election.watching.abort();
        election.leadership.resign().await?;
        let next = tokio::time::timeout(PATIENCE, election.waiting).await???;
        ensure!(next.is_leader() && next.token() > election.leadership.token());
    }
    cluster.passed()
}

fn token(node: &Heartbeat) -> u64 {
    match node.pulse() {
        Pulse::Beating { token } => token,
        _ => 0,
    }
}
