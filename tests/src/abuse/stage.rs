//! The cluster of a run: real processes with the limits that the scenario asks for, what is in it beforehand, the attacking process, and whether it
//! serves new clients.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{
    Hurt, Orders, Scenario, Told,
    hurt::Disks,
    memory::{self, Watched},
};
use crate::{
    Cluster, Settings,
    api::{self, Api},
    binaries, clock, v1,
};

/// What an attacking process may take beyond its time before it is killed.
const GRACE: Duration = Duration::from_secs(15);
/// How long service may take to come back before the run gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Calls at a time that put the leases there which an attack needs.
const FILLING: usize = 192;
/// Their namespace.
pub(super) const FILLED: &str = "many";

/// See the module. Processes go before the file systems that they write to.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) disks: Disks,
    _dir: TempDir,
}

impl Stage {
    /// Writes configurations and makes file systems; starts nothing.
    pub(super) fn prepare(scenario: &Scenario, bin_dir: Option<&Path>) -> anyhow::Result<Self> {
        let setup = &scenario.setup;
        let dir = tempfile::Builder::new().prefix("abuse-disks-").tempdir_in(binaries::scratch())?;
        let mut settings = Settings { snapshot_log_bytes: setup.snapshot_log_bytes, ..Settings::default() };
        let disks = Disks::mount(dir.path(), settings.replicas, setup.disk_mib).context("no file systems of its own")?;
        settings.data_dirs = disks.data_dirs();
        let mut cluster = Cluster::prepare("abuse", settings)?;
        for replica in &mut cluster.replicas {
            replica.program = bin_dir.map(|dir| dir.join("tenured"));
            if let Some(limit) = setup.descriptors {
                replica.wrapper = vec!["prlimit".into(), format!("--nofile={limit}:{limit}")];
            }
        }
        Ok(Self { cluster, disks, _dir: dir })
    }

    /// Starts all replicas; `Some`: what those said that ended instead of serving.
    pub(super) async fn start(&mut self) -> anyhow::Result<Option<Vec<String>>> {
        for replica in &mut self.cluster.replicas {
            replica.spawn()?;
        }
        let mut refused = Vec::new();
        for replica in &mut self.cluster.replicas {
            // Those that are alone because the others have refused would wait for them for ever.
            if refused.is_empty() {
                if replica.ready_or_ended().await?.is_some() {
                    refused.push(replica.log_tail(3));
                }
            } else if replica.exited().await.is_ok() {
                refused.push(replica.log_tail(3));
            }
        }
        Ok((!refused.is_empty()).then_some(refused))
    }

    /// Puts so many leases there, held by nobody and kept for ever.
    pub(super) async fn fill(&self, leases: u32) -> anyhow::Result<()> {
        let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
        for first in 0..FILLING {
            let api = self.cluster.replicas[first % self.cluster.replicas.len()].api.clone();
            tasks.spawn(async move {
                for number in (first..usize::try_from(leases)?).step_by(FILLING) {
                    let request = v1::PutRequest { namespace: FILLED.into(), name: format!("lease-{number:07}"), ..Default::default() };
                    let mut tries = 0;
                    while let Err(status) = api.lease.clone().put(request.clone()).await {
                        tries += 1;
                        ensure!(api::may_retry(&status) && tries < 100, "cannot put lease {number}: {status}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Who leads (by index), as a call says that needs it: Status takes long where there are many leases.
    pub(super) async fn raft_leader(&self) -> anyhow::Result<usize> {
        let begun = clock::now();
        loop {
            let request = v1::AcquireRequest { reclaim: true, ..api::acquire("abuse-before", "lease", "new-client", 3_000) };
            let asked = self.cluster.replicas[0].api.acquire(request);
            let header = tokio::time::timeout(Duration::from_secs(5), asked).await.ok().and_then(Result::ok).and_then(|answer| answer.header);
            let leads = |addr: &String| self.cluster.replicas.iter().position(|replica| replica.client.addr() == *addr);
            if let Some(leader) = header.as_ref().and_then(|header| leads(&header.raft_leader)) {
                return Ok(leader);
            }
            ensure!(clock::since(begun) < PATIENCE, "no raft leader after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Of a replica that has time to say so.
    pub(super) async fn term(&self) -> Option<u64> {
        let status = tokio::time::timeout(Duration::from_secs(5), self.cluster.replicas[0].api.status()).await;
        Some(status.ok()?.ok()?.term)
    }

    /// Whom the scenario hurts: followers before the raft leader.
    pub(super) fn victims(&self, hurt: Hurt, leader: usize) -> Vec<usize> {
        let followers = (0..self.cluster.replicas.len()).filter(|at| *at != leader);
        followers.chain([leader]).take(hurt.victims()).collect()
    }

    /// Addresses and times for the attacking process.
    pub(super) fn orders(&self, scenario: &Scenario, leader: usize, seconds: u64) -> Orders {
        let addrs = |of: fn(&crate::replica::Replica) -> String| self.cluster.replicas.iter().map(of).collect();
        Orders {
            attack: scenario.name.into(),
            until: clock::now() + clock::nanos(Duration::from_secs(seconds)),
            client: addrs(|replica| replica.client.addr()),
            peer: addrs(|replica| replica.peer.addr()),
            http: addrs(|replica| replica.http.addr()),
            leader,
            filled: FILLED.into(),
        }
    }

    /// Processes and directories, for as long as they live.
    pub(super) fn watched(&self) -> anyhow::Result<Vec<Watched>> {
        self.cluster.replicas.iter().map(|replica| Ok(Watched { pid: replica.pid()?, data_dir: replica.data_dir.clone() })).collect()
    }

    /// Memory and disk space of each replica now, in bytes.
    pub(super) fn takes(&self) -> anyhow::Result<Vec<(u64, u64)>> {
        let takes = |replica: Watched| (memory::resident(replica.pid, false).unwrap_or(0), memory::size_of(&replica.data_dir));
        Ok(self.watched()?.into_iter().map(takes).collect())
    }

    /// Indexes of those that have ended by themselves.
    pub(super) fn ended(&mut self) -> anyhow::Result<Vec<usize>> {
        let mut ended = Vec::new();
        for (at, replica) in self.cluster.replicas.iter_mut().enumerate() {
            if !replica.running() || replica.ended()?.is_some() {
                ended.push(at);
            }
        }
        Ok(ended)
    }

    /// Starts those again, as a supervisor would; what each said that ended again.
    pub(super) async fn start_again(&mut self, ended: &[usize]) -> anyhow::Result<Vec<String>> {
        for at in ended {
            self.cluster.replicas[*at].spawn()?;
        }
        let mut refused = Vec::new();
        for at in ended {
            match self.cluster.replicas[*at].ready_or_ended().await {
                Ok(None) => {}
                Ok(Some(_)) => refused.push(self.cluster.replicas[*at].log_tail(1)),
                Err(error) => refused.push(format!("{error:#}").lines().take(2).collect::<Vec<_>>().join(" ")),
            }
        }
        Ok(refused)
    }

    /// Waits until new clients can acquire and renew through every replica; the time since then, or `None` when that does not come.
    pub(super) async fn serves_again(&self, since: u64) -> Option<Duration> {
        let mut tasks = JoinSet::new();
        for replica in &self.cluster.replicas {
            let (addr, id) = (replica.client.addr(), replica.id);
            tasks.spawn(async move {
                for attempt in 0_u32.. {
                    // A client of its own each time: old connections show nothing.
                    let served = tokio::time::timeout(Duration::from_secs(1), serves(&addr, &format!("after-{id}-{attempt}"))).await;
                    if matches!(served, Ok(Ok(()))) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, all).await.ok()?;
        Some(clock::since(since))
    }

    /// Leases of which less is there than was acknowledged.
    pub(super) async fn missing(&self, acknowledged: &BTreeMap<String, u64>) -> anyhow::Result<Vec<String>> {
        let mut missing = Vec::new();
        for replica in &self.cluster.replicas {
            for (name, number) in acknowledged.iter().filter(|(_, number)| **number > 0) {
                let there = replica.api.get(Told::NAMESPACE, name).await.ok().and_then(|lease| lease.labels.get(Told::NUMBER)?.parse::<u64>().ok());
                if there.is_none_or(|there| there < *number) {
                    missing.push(format!("replica {}: {name} is at {there:?}, and {number} was acknowledged", replica.id));
                }
            }
        }
        Ok(missing)
    }
}

async fn serves(addr: &str, name: &str) -> anyhow::Result<()> {
    let api = Api::new(addr);
    let lease = api.grant(api::acquire("abuse-after", name, "new-client", 3_000)).await?;
    let answer = api.renew(vec![api::renewal(lease.token)]).await?;
    let renewed = answer.results.first().is_some_and(|result| matches!(result.result, Some(v1::renew_result::Result::Renewed(_))));
    ensure!(renewed, "{name} was not renewed");
    Ok(())
}

/// The attacking process, until it has ended: what it told.
pub(super) async fn attack(orders: &Orders) -> anyhow::Result<Told> {
    let left = Duration::from_nanos(orders.until.saturating_sub(clock::now()));
    let child = tokio::process::Command::new(std::env::current_exe()?)
        .args(["attack", &serde_json::to_string(orders)?])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the attacking process")?;
    let output = tokio::time::timeout(left + GRACE, child.wait_with_output()).await.context("the attacking process did not end")??;
    ensure!(output.status.success(), "the attacking process failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).context("the attacking process told nothing")
}
