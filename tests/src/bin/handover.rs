//! Measures the SDK against three replica processes: hand-over from an elected leader that resigns to one that waits, and what 10,000 kept leases
//! cost. `cargo run --release -p tenure-tests --bin handover`
//!
//! Figures, not tests: nothing here fails because something was slow.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_client::{Client, LeaderElection, Lease, Step};
use tenure_tests::{Cluster, clock, replica::PATIENCE};

const LEASES: usize = 10_000;

fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    Ok(Client::builder().endpoints(cluster.replicas.iter().map(|replica| replica.client.addr())).build()?)
}

/// `waiters` candidates, each with its own connection, hand over to each other `rounds` times.
async fn handover(waiters: usize, rounds: usize, endpoints: &[String], through: &str) -> anyhow::Result<()> {
    let (elected, mut leaders) = tokio::sync::mpsc::unbounded_channel();
    let mut candidates = Vec::new();
    for _ in 0..=waiters {
        let election = LeaderElection::builder(&Client::builder().endpoints(endpoints).build()?, "default", format!("election-{waiters}")).build()?;
        let elected = elected.clone();
        candidates.push(tokio::spawn(async move {
            loop {
                let leadership = election.campaign().await?;
                let at = clock::now();
                let (over, done) = tokio::sync::oneshot::channel();
                let _ = elected.send((leadership, at, over));
                // Back into the queue when it has resigned.
                if done.await.is_err() {
                    return anyhow::Ok(());
                }
            }
        }));
    }
    let mut took = Vec::new();
    let mut leading = leaders.recv().await.context("somebody leads")?;
    while took.len() < rounds {
        // Let the one that has resigned queue up again.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (leadership, _, over) = leading;
        let begun = clock::now();
        let resigning = tokio::spawn(async move {
            let resigned = leadership.resign().await;
            let _ = over.send(());
            resigned
        });
        leading = tokio::time::timeout(PATIENCE, leaders.recv()).await?.context("somebody leads")?;
        took.push(Duration::from_nanos(leading.1.saturating_sub(begun)));
        resigning.await??;
        ensure!(leading.0.is_leader(), "it leads");
    }
    candidates.iter().for_each(tokio::task::JoinHandle::abort);
    took.sort_unstable();
    let at = |permille: usize| took[(took.len() - 1) * permille / 1000].as_secs_f64() * 1000.0;
    println!(
        "resign to leading, {waiters:>2} waiting, through {through:<15}   p50 {:.2} ms   p99 {:.2} ms   max {:.2} ms   n {rounds}",
        at(500),
        at(990),
        at(1000)
    );
    Ok(())
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may contain anything, but it ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').context("a name in parentheses")?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

async fn kept(cluster: &Cluster) -> anyhow::Result<()> {
    let client = client(cluster)?;
    let begun = clock::now();
    let mut tasks = tokio::task::JoinSet::new();
    let mut leases: Vec<Lease> = Vec::new();
    for at in 0..LEASES {
        let mut asking = client.lease(format!("kept-{at}")).duration(Duration::from_secs(10)).ask()?;
        tasks.spawn(async move {
            match asking.next().await? {
                Step::Held(lease) => anyhow::Ok(lease),
                other => anyhow::bail!("not granted: {other:?}"),
            }
        });
        if tasks.len() >= 256 {
            leases.push(tasks.join_next().await.context("is running")???);
        }
    }
    while let Some(lease) = tasks.join_next().await {
        leases.push(lease??);
    }
    println!("acquired {LEASES} leases in {:?}", clock::since(begun));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pids = || cluster.replicas.iter().map(|replica| anyhow::Ok(u32::try_from(replica.pid()?.as_raw_nonzero().get())?)).collect::<Result<Vec<_>, _>>();
    let (mine, theirs) = (cpu(std::process::id())?, pids()?.into_iter().map(cpu).collect::<Result<Vec<_>, _>>()?);
    let begun = clock::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let passed = clock::since(begun).as_secs_f64();
    let share = |now: Duration, before: Duration| (now - before).as_secs_f64() / passed * 100.0;
    print!("keeping {LEASES} leases of 10 s: client {:.1} % of a core, replicas", share(cpu(std::process::id())?, mine));
    for (pid, before) in pids()?.into_iter().zip(theirs) {
        print!(" {:.1} %", share(cpu(pid)?, before));
    }
    println!();
    let lost = leases.iter().filter(|lease| !lease.is_held()).count();
    ensure!(lost == 0, "{lost} were lost");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cluster = Cluster::three("handover").await?;
    let all: Vec<String> = cluster.replicas.iter().map(|replica| replica.client.addr()).collect();
    let raft_leader = cluster.raft_leader().await?;
    let it: Vec<String> = cluster.replicas.iter().filter(|replica| replica.id == raft_leader).map(|replica| replica.client.addr()).collect();
    for waiters in [1, 16] {
        handover(waiters, 500, &it, "the raft leader").await?;
        handover(waiters, 500, &all, "any replica").await?;
    }
    kept(&cluster).await?;
    cluster.passed()
}
