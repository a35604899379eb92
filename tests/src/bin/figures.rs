//! Measures what the README promises and prints a table and JSON: `cargo run --profile dist -p tenure-tests --bin figures`.
//!
//! Figures, not tests: nothing here fails because something was slow.

use std::{
    fs::File,
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};
use tenure_tests::{Api, Cluster, History, api, binaries, clock, ports, probe::Probe, replica::PATIENCE};

/// Sorted samples.
struct Samples(Vec<Duration>);

impl Samples {
    fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    fn at(&self, permille: usize) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * permille / 1000).map_or(0.0, Duration::as_secs_f64) * 1000.0
    }

    fn show(&self, figures: &mut Map<String, Value>, name: &str) {
        let (p50, p99, max) = (self.at(500), self.at(990), self.at(1000));
        println!("{name:<52} p50 {p50:>8.3} ms   p99 {p99:>8.3} ms   max {max:>8.3} ms   n {}", self.0.len());
        figures.insert(name.into(), json!({ "p50_ms": p50, "p99_ms": p99, "max_ms": max, "n": self.0.len() }));
    }
}

fn fdatasync() -> anyhow::Result<Samples> {
    let mut file = tempfile::tempfile_in(binaries::scratch())?;
    let mut samples = Vec::new();
    for _ in 0..300 {
        file.write_all(&[7; 512])?;
        let begun = clock::now();
        file.sync_data()?;
        samples.push(clock::since(begun));
    }
    Ok(Samples::new(samples))
}

async fn pairs(api: &Api, count: usize) -> anyhow::Result<Samples> {
    let mut samples = Vec::new();
    for turn in 0..count + 50 {
        let begun = clock::now();
        let token = api.grant(api::acquire("figures", "pair", "me", 10_000)).await?.token;
        api.release("figures", "pair", token).await?;
        // The first ones pay for the connection.
        if turn >= 50 {
            samples.push(clock::since(begun));
        }
    }
    Ok(Samples::new(samples))
}

/// User and system time of a process.
fn cpu(pid: i32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("a name in parentheses")?.1;
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn rss_mib(pid: i32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("VmRSS")?;
    Ok(f64::from(line.split_whitespace().nth(1).context("a number")?.parse::<u32>()?) / 1024.0)
}

async fn idle(cluster: &Cluster, figures: &mut Map<String, Value>) -> anyhow::Result<()> {
    let raft_leader = cluster.raft_leader().await?;
    let pids: Vec<i32> = cluster.replicas.iter().map(|replica| Ok(replica.pid()?.as_raw_nonzero().get())).collect::<anyhow::Result<_>>()?;
    let before: Vec<Duration> = pids.iter().map(|pid| cpu(*pid)).collect::<anyhow::Result<_>>()?;
    let begun = clock::now();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let passed = clock::since(begun).as_secs_f64();
    for ((replica, pid), before) in cluster.replicas.iter().zip(pids).zip(before) {
        let percent = (cpu(pid)? - before).as_secs_f64() / passed * 100.0;
        let rss = rss_mib(pid)?;
        let role = if replica.id == raft_leader { "raft leader" } else { "follower" };
        println!("{:<52} {percent:>5.2} % of a core, {rss:>5.1} MiB", format!("idle, replica {} ({role})", replica.id));
        figures.insert(format!("idle replica {} ({role})", replica.id), json!({ "cpu_percent": percent, "rss_mib": rss }));
    }
    Ok(())
}

async fn gaps(cluster: &mut Cluster, by_kill: bool) -> anyhow::Result<Samples> {
    let history = Arc::new(History::default());
    let probe = Probe::spawn(&cluster.apis(), &history).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut samples = Vec::new();
    for _ in 0..10 {
        let raft_leader = cluster.raft_leader().await?;
        let begun = clock::now();
        if by_kill {
            cluster.replica(raft_leader)?.kill()?;
        } else {
            cluster.replica(raft_leader)?.terminate().await?;
        }
        ensure!(probe.writes_again(clock::now(), PATIENCE).await, "no write for {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        samples.push(probe.longest_silence(begun));
        cluster.start_all().await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    history.no_refusals()?;
    Ok(Samples::new(samples))
}

/// From the start of `tenured dev` in an empty folder until each of its replicas has granted a lease.
async fn dev() -> anyhow::Result<Samples> {
    let mut samples = Vec::new();
    for _ in 0..5 {
        let dir = tempfile::tempdir_in(binaries::scratch())?;
        let log = File::create(dir.path().join("log"))?;
        let base = ports::block()?;
        let begun = clock::now();
        let mut child = Command::new(binaries::tenured()?)
            .args(["dev", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(["--base-port", &base.number.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let ready = async {
            for port in [base.number, base.number + 10, base.number + 20] {
                let api = Api::new(&format!("127.0.0.1:{port}"));
                while api.grant(api::acquire("figures", &format!("dev-{port}"), "me", 5000)).await.is_err() {
                    if let Some(status) = child.try_wait()? {
                        anyhow::bail!("tenured dev ended: {status}: {}", std::fs::read_to_string(dir.path().join("log"))?);
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Ok(clock::since(begun))
        };
        let outcome = tokio::time::timeout(PATIENCE, ready).await;
        child.kill().ok();
        child.wait()?;
        samples.push(outcome.context("tenured dev is not ready")??);
    }
    Ok(Samples::new(samples))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut figures = Map::new();
    fdatasync()?.show(&mut figures, "fdatasync of this disk");
    match dev().await {
        Ok(samples) => samples.show(&mut figures, "tenured dev: all three ports grant after"),
        Err(error) => println!("tenured dev: not measured: {error:#}"),
    }
    let mut cluster = Cluster::three("figures").await?;
    idle(&cluster, &mut figures).await?;
    let raft_leader = cluster.raft_leader().await?;
    for replica in &cluster.replicas {
        let role = if replica.id == raft_leader { "the raft leader" } else { "a follower" };
        pairs(&replica.api, 1000).await?.show(&mut figures, &format!("acquire + release through {role} ({})", replica.id));
    }
    gaps(&mut cluster, true).await?.show(&mut figures, "no write after kill -9 of the raft leader");
    gaps(&mut cluster, false).await?.show(&mut figures, "no write after SIGTERM of the raft leader");
    println!("{}", serde_json::to_string_pretty(&figures)?);
    cluster.passed()
}
