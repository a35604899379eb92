//! Three `tenured` processes of our own in a temporary folder, for one run. Ended with it, and nothing is left.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tenure_client::Client;

use crate::clock;

const REPLICAS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) endpoints: Vec<String>,
    children: Vec<Child>,
    dir: TempDir,
}

/// `tenured` beside this program, unless another one is named.
fn binary(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let beside = || anyhow::Ok(std::env::current_exe()?.with_file_name("tenured"));
    let binary = named.map_or_else(beside, Ok)?;
    ensure!(binary.exists(), "{} is not there: build it (cargo build --release -p tenure-server), or name it with --tenured-bin", binary.display());
    Ok(binary)
}

/// Below those that the kernel gives to connections: what is free now is still free when the replicas come to it. Somewhere in that range, so that
/// two runs at once do not meet.
fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    let (first, range) = (8_000, 4_000);
    let start = u64::from(std::process::id()).wrapping_mul(7919);
    let candidates = (0..range).map(|at| format!("127.0.0.1:{}", first + (start + at) % range));
    let free: Vec<_> = candidates.filter(|address| TcpListener::bind(address).is_ok()).take(count).collect();
    ensure!(free.len() == count, "fewer than {count} free ports from {first} on");
    Ok(free)
}

impl Started {
    /// Starts them, and waits until they have a raft leader that answers.
    pub(crate) async fn three(named: Option<PathBuf>) -> anyhow::Result<Self> {
        let (binary, dir) = (binary(named)?, tempfile::Builder::new().prefix("tenure-bench-").tempdir()?);
        let addresses = free_addresses(3 * REPLICAS)?;
        let ports: Vec<&[String]> = addresses.chunks(3).collect();
        let endpoints = ports.iter().map(|ports| ports[0].clone()).collect();
        let mut started = Self { endpoints, children: Vec::new(), dir };
        let mut members = String::new();
        for (at, ports) in ports.iter().enumerate() {
            write!(members, "\n[[members]]\nnode_id = {}\npeer = \"{}\"\n", at + 1, ports[1])?;
        }
        for (at, ports) in ports.iter().enumerate() {
            let (id, dir) = (at + 1, started.dir.path());
            let (data, config) = (dir.join(format!("data-{id}")), dir.join(format!("node-{id}.toml")));
            let listen = format!("[listen]\nclient = \"{}\"\npeer = \"{}\"\nhttp = \"{}\"\n", ports[0], ports[1], ports[2]);
            fs::write(&config, format!("node_id = {id}\ndata_dir = {data:?}\nbootstrap = true\n\n{listen}{members}"))?;
            let child = spawn(&binary, &config, &log(dir, id))?;
            started.children.push(child);
        }
        started.ready().await?;
        Ok(started)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let client = Client::builder().endpoints(self.endpoints.clone()).request_timeout(Duration::from_secs(1)).build()?;
        let begun = clock::now();
        while begun.passed() < PATIENCE {
            for (at, child) in self.children.iter_mut().enumerate() {
                if let Some(status) = child.try_wait()? {
                    bail!("replica {} has ended: {status}\n{}", at + 1, fs::read_to_string(log(self.dir.path(), at + 1))?);
                }
            }
            let status = client.cluster_status().await;
            if status.is_ok_and(|status| status.members.len() == REPLICAS && status.members.iter().any(|member| member.is_raft_leader)) {
                return Ok(());
            }
            // Nobody tells when a port opens.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("no raft leader within {PATIENCE:?}")
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

fn log(dir: &Path, id: usize) -> PathBuf {
    dir.join(format!("node-{id}.log"))
}

fn spawn(binary: &Path, config: &Path, log: &Path) -> anyhow::Result<Child> {
    let log = File::create(log)?;
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot start {}", binary.display()))
}

impl Drop for Started {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL).ok();
            }
            child.wait().ok();
        }
    }
}
