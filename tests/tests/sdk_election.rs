//! Elections whose candidates are killed, stopped and cut off: never two that believe, and soon another one.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use rustix::process::Signal;
use tenure_client::{CancellationToken, Client, Finished, LeaderElection, RunError};
use tenure_tests::{
    Cluster, clock,
    clock::Rng,
    elector::{Elector, judge},
    replica::PATIENCE,
};

const LEASE: Duration = Duration::from_secs(1);

fn endpoints(cluster: &Cluster) -> Vec<String> {
    cluster.replicas.iter().map(|replica| replica.client.addr()).collect()
}

fn election(cluster: &Cluster, name: &str) -> anyhow::Result<LeaderElection> {
    let client = Client::builder().endpoints(endpoints(cluster)).build()?;
    Ok(LeaderElection::builder(&client, "default", name).data(name).lease_duration(LEASE).build()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_candidates_believe_at_once_while_they_and_the_replicas_die() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("sdk-election");
    let mut cluster = Cluster::three("sdk-election").await?;
    let addresses = endpoints(&cluster).join(",");
    let files: Vec<PathBuf> = (0..8).map(|at| cluster.dir().join(format!("believed-{at}"))).collect();
    let start = |at: usize| Elector::start(env!("CARGO_BIN_EXE_elector"), &addresses, "main", LEASE, &files[at]);
    let mut electors = vec![start(0)?, start(1)?, start(2)?];
    let rounds = if std::env::var_os("TENURE_TEST_LONG").is_some() { 50 } else { 6 };
    let mut takeovers = Vec::new();
    let mut since = clock::now();
    for round in 0..rounds {
        // Who leads now?
        let leading = soon_leads(&electors, since).await?;
        tokio::time::sleep(Duration::from_millis(300 + rng.below(400))).await;
        let struck = clock::now();
        match round % 3 {
            0 => {
                electors[leading].kill()?;
                let file = &files[leading];
                let next = Elector::start(env!("CARGO_BIN_EXE_elector"), &addresses, "main", LEASE, file)?;
                let others = [(leading + 1) % 3, (leading + 2) % 3];
                let took = others_lead(&electors, others, struck).await?;
                takeovers.push(Duration::from_nanos(took - struck));
                electors[leading] = next;
            }
            1 => {
                electors[leading].signal(Signal::STOP)?;
                let others = [(leading + 1) % 3, (leading + 2) % 3];
                others_lead(&electors, others, struck).await?;
                // Now it wakes up, long after its lease.
                electors[leading].signal(Signal::CONT)?;
            }
            _ => {
                let id = 1 + rng.below(3);
                cluster.replica(id)?.kill()?;
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                cluster.start_all().await?;
            }
        }
        since = clock::now();
    }
    soon_leads(&electors, since).await?;
    drop(electors);
    let beliefs = judge(&files)?;
    println!("{} leaderships; from kill -9 to the next: {takeovers:?}", beliefs.len());
    ensure!(beliefs.len() > 2);
    cluster.passed()
}

async fn soon_leads(electors: &[Elector], since: u64) -> anyhow::Result<usize> {
    let leading = electors.iter().enumerate().map(|(at, elector)| Box::pin(async move { elector.leads_after(since).await.map(|_| at) }));
    Ok(tokio::time::timeout(PATIENCE, futures::future::select_ok(leading)).await??.0)
}

async fn others_lead(electors: &[Elector], others: [usize; 2], since: u64) -> anyhow::Result<u64> {
    let leading = others.map(|at| Box::pin(electors[at].leads_after(since)));
    Ok(tokio::time::timeout(PATIENCE, futures::future::select_ok(leading)).await??.0)
}

#[tokio::test]
async fn run_calls_back_in_order_and_releases_on_cancel() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-run").await?;
    let election = election(&cluster, "run")?;
    let (seen, mut said) = tokio::sync::mpsc::unbounded_channel::<String>();
    let cancel = CancellationToken::new();
    let (started, stopped, leads) = (seen.clone(), seen.clone(), seen);
    let running = {
        let (election, cancel) = (election.clone(), cancel.clone());
        tokio::spawn(async move {
            let work = move |stop: CancellationToken, token: u64| async move {
                started.send(format!("started {}", token > 0)).ok();
                stop.cancelled().await;
                started.send("ended".into()).ok();
            };
            election.run(cancel, work, move || drop(stopped.send("stopped".into())), move |leader| drop(leads.send(format!("leader {}", leader.holder)))).await
        })
    };
    let mut first = [said.recv().await.unwrap_or_default(), said.recv().await.unwrap_or_default()];
    first.sort();
    ensure!(first == [format!("leader {}", election.identity()), "started true".into()], "{first:?}");
    cancel.cancel();
    ensure!(said.recv().await.as_deref() == Some("ended") && said.recv().await.as_deref() == Some("stopped"));
    ensure!(matches!(running.await??, Finished::Cancelled));
    let begun = clock::now();
    let next = self::election(&cluster, "run")?.campaign().await?;
    ensure!(next.is_leader() && clock::since(begun) < LEASE / 2, "it was not released");
    cluster.passed()
}

#[tokio::test]
async fn callback_that_panics_or_never_ends_keeps_nobody_waiting() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-panic").await?;
    let election = election(&cluster, "panic")?;
    let stopped = Arc::new(AtomicU64::new(0));
    let count = || {
        stopped.fetch_add(1, Ordering::Relaxed);
    };
    let error = election.run(CancellationToken::new(), |_, _| async { panic!("of the work") }, count, |_| ()).await.unwrap_err();
    ensure!(matches!(&error, RunError::Panicked(words) if words == "of the work"), "{error}");
    // Whether it hears of itself by the news or by its own call first is open. Until it led: then work ends, and is told so, too.
    let (mut times, led) = (1, Arc::new(AtomicBool::new(false)));
    for attempt in 0.. {
        let begins = |stop: CancellationToken, _| {
            led.store(true, Ordering::Relaxed);
            async move { stop.cancelled().await }
        };
        let error = election.run(CancellationToken::new(), begins, count, |_| panic!("of the news")).await.unwrap_err();
        ensure!(matches!(&error, RunError::Panicked(words) if words == "of the news"), "{error}");
        times += u64::from(led.load(Ordering::Relaxed));
        ensure!(stopped.load(Ordering::Relaxed) == times, "told {stopped:?} times, not {times}");
        if led.load(Ordering::Relaxed) {
            break;
        }
        ensure!(attempt < 50, "it always heard of itself before it led");
    }
    // Never ends, and does not listen either: aborted.
    let cancel = CancellationToken::new();
    let (begun, cancelled) = (clock::now(), cancel.clone());
    let finished = election
        .run(
            cancel,
            move |_, _| async move {
                cancelled.cancel();
                std::future::pending().await
            },
            count,
            |_| (),
        )
        .await?;
    ensure!(matches!(finished, Finished::Cancelled) && clock::since(begun) < 2 * LEASE);
    ensure!(stopped.load(Ordering::Relaxed) == times + 1);
    let begun = clock::now();
    let next = self::election(&cluster, "panic")?.campaign().await?;
    ensure!(next.is_leader() && clock::since(begun) < LEASE / 2, "it was not released");
    cluster.passed()
}

#[tokio::test]
async fn observers_see_each_elected_leader_with_its_data() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-observe").await?;
    let election = election(&cluster, "seen")?;
    let mut observed = election.observe().await?;
    ensure!(observed.next().await?.is_none());
    for _ in 0..3 {
        let leadership = election.campaign().await?;
        let leader = tokio::time::timeout(PATIENCE, observed.next()).await??;
        ensure!(leader.as_ref().is_some_and(|leader| leader.token == leadership.token() && leader.data == b"seen"), "{leader:?}");
        leadership.resign().await?;
        ensure!(tokio::time::timeout(PATIENCE, observed.next()).await??.is_none());
    }
    cluster.passed()
}

#[tokio::test]
async fn proclaimed_data_comes_with_a_larger_token() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-proclaim").await?;
    let election = election(&cluster, "proclaim")?;
    let mut leadership = election.campaign().await?;
    let (before, old) = (leadership.token(), leadership.cancellation());
    leadership.proclaim(b"moved").await?;
    ensure!(leadership.is_leader() && leadership.token() > before && old.is_cancelled());
    let leader = election.observe().await?.next().await?;
    ensure!(leader.as_ref().is_some_and(|leader| leader.data == b"moved" && leader.token == leadership.token()), "{leader:?}");
    // Kept under the new token, and not disturbed by the end of the old one.
    tokio::time::sleep(2 * LEASE).await;
    ensure!(leadership.is_leader(), "{:?}", leadership.lease().lost_reason());
    leadership.resign().await?;
    ensure!(leadership.proclaim(b"too late").await.is_err());
    cluster.passed()
}
