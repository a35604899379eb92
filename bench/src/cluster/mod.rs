//! A cluster to measure: one that runs already, or three processes of our own in a temporary folder, ended with the run, and nothing is left.

mod etcd;
mod http;
mod ports;
mod reading;
mod tenure;

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) use self::reading::Usage;
use crate::{clock, usage};

/// Of a cluster of our own.
pub(crate) const MEMBERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose cluster.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, ValueEnum)]
pub(crate) enum Target {
    Tenure,
    Etcd,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tenure => "tenure",
            Self::Etcd => "etcd",
        })
    }
}

/// How to start clusters.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) tenured: Option<PathBuf>,
    pub(crate) etcd: Option<PathBuf>,
    /// Where the folders of data go.
    pub(crate) dir: Option<PathBuf>,
}

impl Binaries {
    /// What a program says of itself; an error if it cannot be run.
    pub(crate) fn version(&self, target: Target) -> anyhow::Result<String> {
        let binary = match target {
            Target::Tenure => tenure::binary(self.tenured.as_deref())?,
            Target::Etcd => etcd::binary(self.etcd.as_deref())?.to_owned(),
        };
        let output = Command::new(&binary).arg("--version").output().with_context(|| format!("cannot run {}", binary.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    }

    /// What the data will be on.
    pub(crate) fn file_system(&self) -> String {
        usage::file_system(&self.dir.clone().unwrap_or_else(std::env::temp_dir))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) target: Target,
    members: Vec<Member>,
    /// Holds configurations, data and logs; none for a cluster that ran already.
    dir: Option<TempDir>,
}

#[derive(Debug)]
struct Member {
    client: String,
    /// Where it counts what it does.
    http: String,
    launch: Option<Launch>,
    child: Option<Child>,
}

/// How a member is started, once and again.
#[derive(Debug)]
struct Launch {
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug)]
struct Status {
    /// It knows of a raft leader, and serves.
    ready: bool,
    leads: bool,
    term: u64,
}

impl Cluster {
    /// One that runs already; the addresses are of clients.
    pub(crate) fn running(target: Target, endpoints: &[String]) -> Self {
        let member = |client: &String| Member { client: client.clone(), http: String::new(), launch: None, child: None };
        Self { target, members: endpoints.iter().map(member).collect(), dir: None }
    }

    /// Three new processes at their defaults (but for addresses and folders), ready for clients.
    pub(crate) async fn start(target: Target, binaries: &Binaries) -> anyhow::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("tenure-bench-");
        let dir = binaries.dir.as_ref().map_or_else(|| builder.tempdir(), |dir| builder.tempdir_in(dir)).context("no folder for data")?;
        let members = match target {
            Target::Tenure => tenure::members(binaries.tenured.as_deref(), dir.path())?,
            Target::Etcd => etcd::members(binaries.etcd.as_deref(), dir.path())?,
        };
        let mut cluster = Self { target, members, dir: Some(dir) };
        for at in 0..cluster.members.len() {
            cluster.restart(at)?;
        }
        cluster.ready().await?;
        // The first connection is to the raft leader, so that a single client has the same way to go every time, and on either side.
        let leader = cluster.raft_leader().await?;
        cluster.members.rotate_left(leader);
        Ok(cluster)
    }

    /// Client addresses; in a cluster of our own, first that of the member which led at the start.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// The processes that are ours to measure.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| member.child.as_ref()).map(Child::id).collect()
    }

    /// Whether its processes may be killed and measured.
    pub(crate) fn is_ours(&self) -> bool {
        self.dir.is_some()
    }

    /// Waits until every member is up and one leads.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let begun = clock::now();
        loop {
            self.all_live()?;
            let mut statuses = Vec::new();
            for member in &self.members {
                statuses.extend(self.status(member).await.ok());
            }
            if statuses.len() == self.members.len() && statuses.iter().all(|status| status.ready) && statuses.iter().any(|status| status.leads) {
                return Ok(());
            }
            ensure!(begun.passed() < PATIENCE, "{} was not ready within {PATIENCE:?}: {statuses:?}", self.target);
            // Nobody tells when a port opens.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn all_live(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            let (Some(child), Some(launch)) = (&mut member.child, &member.launch) else { continue };
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(&launch.log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(20).collect();
                bail!("a member has ended: {status}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
        Ok(())
    }

    async fn status(&self, member: &Member) -> anyhow::Result<Status> {
        match self.target {
            Target::Tenure => tenure::status(member).await,
            Target::Etcd => etcd::status(member).await,
        }
    }

    /// Which member leads.
    pub(crate) async fn raft_leader(&self) -> anyhow::Result<usize> {
        let begun = clock::now();
        while begun.passed() < PATIENCE {
            for (at, member) in self.members.iter().enumerate() {
                if self.status(member).await.is_ok_and(|status| status.leads) {
                    return Ok(at);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("{}: no raft leader within {PATIENCE:?}", self.target)
    }

    /// Raft's term; it grows with every election. None for a cluster that is not ours.
    pub(crate) async fn term(&self) -> anyhow::Result<Option<u64>> {
        if !self.is_ours() {
            return Ok(None);
        }
        let mut term = 0;
        for member in &self.members {
            term = term.max(self.status(member).await?.term);
        }
        Ok(Some(term))
    }

    /// Ends a member without a word.
    pub(crate) fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        let child = self.members[at].child.as_mut().context("not a process of ours")?;
        signal(child, Signal::KILL);
        child.wait()?;
        self.members[at].child = None;
        Ok(())
    }

    /// Starts a member that was killed, with the data that it had.
    pub(crate) fn restart(&mut self, at: usize) -> anyhow::Result<()> {
        let member = &mut self.members[at];
        let launch = member.launch.as_ref().context("not a process of ours")?;
        member.child = Some(launch.spawn()?);
        Ok(())
    }

    /// Hands raft leadership to another member.
    pub(crate) async fn transfer(&self) -> anyhow::Result<()> {
        match self.target {
            Target::Tenure => tenure::transfer(&self.members[0]).await,
            Target::Etcd => etcd::transfer(&self.members, self.raft_leader().await?).await,
        }
    }
}

impl Launch {
    fn spawn(&self) -> anyhow::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}

fn log_file(dir: &Path, id: usize) -> PathBuf {
    dir.join(format!("node-{id}.log"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            signal(child, Signal::KILL);
            child.wait().ok();
        }
    }
}
