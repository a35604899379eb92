//! A cluster of real processes on loopback: directories, configurations, who leads, and what is left when a test fails.

use std::{fmt::Write as _, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::{
    api::Api,
    binaries, clock,
    netns::Place,
    ports,
    replica::{PATIENCE, Replica},
    v1,
};

/// What differs from test to test.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many found the cluster.
    pub replicas: u64,
    /// `limits.min_duration`.
    pub min_duration: &'static str,
    /// `limits.max_duration`.
    pub max_duration: &'static str,
    /// `snapshot.log_bytes`.
    pub snapshot_log_bytes: &'static str,
    /// Further lines of their configurations, before the first section.
    pub top: &'static str,
    /// Where their `data_dir`s are; a temporary folder when there is none for a replica.
    pub data_dirs: Vec<PathBuf>,
    /// The hosts that they run on, in order; this one when there is none for a replica.
    pub places: Vec<Place>,
    /// Where each is reached by the others, in order; at its peer port when there is none for a replica.
    pub peers: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            replicas: 3,
            min_duration: "1s",
            max_duration: "24h",
            snapshot_log_bytes: "64MiB",
            top: "",
            data_dirs: Vec::new(),
            places: Vec::new(),
            peers: Vec::new(),
        }
    }
}

/// See the module. Ends every process when dropped; unless [`Cluster::passed`] was called, it first shows what they printed.
#[derive(Debug)]
pub struct Cluster {
    /// By id, from 1: `replicas[0]` is replica 1.
    pub replicas: Vec<Replica>,
    settings: Settings,
    dir: Option<TempDir>,
    passed: bool,
}

impl Cluster {
    /// Three replicas with the defaults, ready to serve.
    pub async fn three(test: &str) -> anyhow::Result<Self> {
        Self::start(test, Settings::default()).await
    }

    /// Starts them and waits until each is ready.
    pub async fn start(test: &str, settings: Settings) -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(test, settings)?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Writes the configurations; starts nothing.
    pub fn prepare(test: &str, settings: Settings) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("{test}-")).tempdir_in(binaries::scratch())?;
        let mut replicas = Vec::new();
        for id in 1..=settings.replicas {
            let at = usize::try_from(id - 1)?;
            let data_dir = settings.data_dirs.get(at).cloned().unwrap_or_else(|| dir.path().join(format!("data-{id}")));
            let mut replica = Replica::at(id, dir.path(), data_dir, settings.places.get(at).cloned().unwrap_or_default())?;
            replica.advertised_peer = settings.peers.get(at).cloned();
            replicas.push(replica);
        }
        let cluster = Self { replicas, settings, dir: Some(dir), passed: false };
        let founders: Vec<(u64, String)> = cluster.replicas.iter().map(|replica| (replica.id, replica.peer_addr())).collect();
        for replica in &cluster.replicas {
            cluster.configure(replica, &founders, true)?;
        }
        Ok(cluster)
    }

    /// Writes one replica's configuration file.
    pub fn configure(&self, replica: &Replica, members: &[(u64, String)], bootstrap: bool) -> anyhow::Result<()> {
        let Settings { min_duration, max_duration, snapshot_log_bytes, top, .. } = &self.settings;
        let mut text = format!(
            "node_id = {}\ndata_dir = {:?}\nbootstrap = {bootstrap}\n{top}\n[listen]\nclient = \"{}\"\npeer = \"{}\"\nhttp = \"{}\"\n",
            replica.id,
            replica.data_dir,
            replica.client.addr(),
            replica.peer.addr(),
            replica.http.addr(),
        );
        if let Some(peer) = &replica.advertised_peer {
            write!(text, "\n[advertise]\npeer = \"{peer}\"\n")?;
        }
        for (id, peer) in members {
            write!(text, "\n[[members]]\nnode_id = {id}\npeer = \"{peer}\"\n")?;
        }
        write!(text, "\n[limits]\nmin_duration = \"{min_duration}\"\nmax_duration = \"{max_duration}\"\n\n[snapshot]\nlog_bytes = \"{snapshot_log_bytes}\"\n")?;
        fs::write(&replica.config, text)?;
        Ok(())
    }

    /// One more replica, with ports and a folder of its own, that no configuration names yet.
    pub fn add_replica(&mut self, id: u64) -> anyhow::Result<&mut Replica> {
        let dir = self.dir.as_ref().context("the folder lives as long as the cluster")?.path();
        let place = usize::try_from(id - 1).ok().and_then(|at| self.settings.places.get(at)).cloned().unwrap_or_default();
        let replica = Replica::at(id, dir, dir.join(format!("data-new-{id}")), place)?;
        self.configure(&replica, &[], false)?;
        self.replicas.push(replica);
        self.replicas.last_mut().context("was just pushed")
    }

    /// Puts a stopped replica elsewhere: its next start is at other ports, which only its own configuration knows.
    pub fn move_away(&mut self, id: u64) -> anyhow::Result<()> {
        let replica = self.replica(id)?;
        ensure!(!replica.running(), "replica {id} runs");
        (replica.client, replica.peer, replica.http) = (ports::find()?, ports::find()?, ports::find()?);
        replica.api = Api::new(&replica.client.addr());
        let replica = self.replicas.iter().rev().find(|replica| replica.id == id).context("was just there")?;
        self.configure(replica, &[], false)
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.as_ref().expect("lives as long as the cluster").path()
    }

    /// Starts what does not run, and waits until all are ready.
    pub async fn start_all(&mut self) -> anyhow::Result<()> {
        for replica in &mut self.replicas {
            if !replica.running() {
                replica.spawn()?;
            }
        }
        for replica in &mut self.replicas {
            replica.ready().await?;
        }
        Ok(())
    }

    /// kill -9 of all that run, as nearly at once as a loop can.
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        for replica in self.replicas.iter().filter(|replica| replica.running()) {
            replica.signal(rustix::process::Signal::KILL)?;
        }
        self.replicas.iter_mut().filter(|replica| replica.running()).try_for_each(Replica::kill)
    }

    /// By id.
    pub fn replica(&mut self, id: u64) -> anyhow::Result<&mut Replica> {
        self.replicas.iter_mut().rev().find(|replica| replica.id == id).with_context(|| format!("no replica {id}"))
    }

    /// A client of each replica, in order.
    #[must_use]
    pub fn apis(&self) -> Vec<Api> {
        self.replicas.iter().map(|replica| replica.api.clone()).collect()
    }

    /// A client of replica 1.
    #[must_use]
    pub fn api(&self) -> Api {
        self.replicas[0].api.clone()
    }

    /// `--endpoints` of the command line.
    #[must_use]
    pub fn endpoints(&self) -> String {
        self.replicas.iter().map(|replica| replica.client.addr()).collect::<Vec<_>>().join(",")
    }

    /// Waits until a running replica says that it is the raft leader itself, and answers a linearizable call; its id.
    pub async fn raft_leader(&self) -> anyhow::Result<u64> {
        let begun = clock::now();
        while clock::since(begun) < PATIENCE {
            let mut best: Option<(u64, u64)> = None;
            for replica in self.replicas.iter().filter(|replica| replica.running()) {
                let Ok(Ok(status)) = tokio::time::timeout(Duration::from_millis(500), replica.api.status()).await else { continue };
                if status.members.iter().any(|member| member.node_id == replica.id && member.is_raft_leader) {
                    best = best.max(Some((status.term, replica.id)));
                }
            }
            if let Some((_, id)) = best {
                return Ok(id);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("no raft leader after {PATIENCE:?}")
    }

    /// Waits until all running replicas have applied as much as the farthest; returns their statuses.
    pub async fn settled(&self) -> anyhow::Result<Vec<v1::StatusResponse>> {
        let begun = clock::now();
        let mut seen = Vec::new();
        while clock::since(begun) < PATIENCE {
            seen.clear();
            for replica in self.replicas.iter().filter(|replica| replica.running()) {
                if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_secs(1), replica.api.status()).await {
                    seen.push(status);
                }
            }
            let running = self.replicas.iter().filter(|replica| replica.running()).count();
            let first = seen.first().map(|status| status.applied_index);
            if seen.len() == running && seen.iter().all(|status| Some(status.applied_index) == first) {
                return Ok(seen);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let indexes: Vec<u64> = seen.iter().map(|status| status.applied_index).collect();
        bail!("replicas do not come to one applied index: {indexes:?}")
    }

    /// The test's last line: nothing panicked, and the folder may go.
    pub fn passed(mut self) -> anyhow::Result<()> {
        for replica in &self.replicas {
            let text = replica.log_text().unwrap_or_default();
            // sled unwraps the errors of a disk that is gone. That ends the history's thread, which is built for it, and nothing else.
            let ours = |line: &&str| line.contains("panicked at") && !line.contains("/sled-");
            if let Some(line) = text.lines().find(ours) {
                bail!("replica {} panicked: {line}", replica.id);
            }
        }
        self.passed = true;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.passed {
            self.replicas.clear();
            return;
        }
        for replica in &self.replicas {
            println!("{}", replica.log_tail(60));
        }
        self.replicas.clear();
        if let Some(dir) = self.dir.take() {
            println!("kept: {}", dir.keep().display());
        }
    }
}
