//! One `tenured serve` process: its ports, its directory, its log, and the signals that tests send it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    api::Api,
    binaries, clock,
    ports::{self, Port},
};

/// How long anything may take on a busy machine before a test says that it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct Replica {
    /// In the cluster.
    pub id: u64,
    /// gRPC for clients.
    pub client: Port,
    /// For the other replicas.
    pub peer: Port,
    /// Health and metrics.
    pub http: Port,
    /// Its `data_dir`.
    pub data_dir: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// What it printed, over all its lives.
    pub log: PathBuf,
    /// Its client port.
    pub api: Api,
    /// What it is started with beside the test's own environment.
    pub env: Vec<(String, String)>,
    /// Another build of `tenured`.
    pub program: Option<PathBuf>,
    /// What starts it, as a tracer does; must become it by `exec`.
    pub wrapper: Vec<String>,
    child: Option<Child>,
}

impl Replica {
    /// Finds ports; starts nothing.
    pub fn new(id: u64, dir: &Path, data_dir: PathBuf) -> anyhow::Result<Self> {
        let client = ports::find()?;
        let api = Api::new(&client.addr());
        let config = dir.join(format!("node-{id}.toml"));
        let log = dir.join(format!("node-{id}.log"));
        Ok(Self {
            id,
            client,
            peer: ports::find()?,
            http: ports::find()?,
            data_dir,
            config,
            log,
            api,
            env: Vec::new(),
            program: None,
            wrapper: Vec::new(),
            child: None,
        })
    }

    /// Starts the process; it may not serve yet.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        ensure!(!self.running(), "replica {} runs already", self.id);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let program = match &self.program {
            Some(program) => program.clone(),
            None => binaries::tenured()?,
        };
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, args)) => {
                let mut command = Command::new(wrapper);
                command.args(args).arg(program);
                command
            }
            None => Command::new(program),
        };
        let child = command
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start tenured")?;
        self.child = Some(child);
        Ok(())
    }

    /// Takes another port for clients, from the next start on with a fresh configuration. Keep the old one, so that nobody else gets it.
    pub fn move_client_port(&mut self) -> anyhow::Result<Port> {
        let fresh = ports::find()?;
        self.api = Api::new(&fresh.addr());
        Ok(std::mem::replace(&mut self.client, fresh))
    }

    /// Of the process.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let child = self.child.as_ref().with_context(|| format!("replica {} does not run", self.id))?;
        Pid::from_raw(i32::try_from(child.id())?).context("a process has an id")
    }

    /// Started, and not yet waited for.
    #[must_use]
    pub fn running(&self) -> bool {
        self.child.is_some()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("cannot signal replica {}", self.id))
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().with_context(|| format!("replica {} does not run", self.id))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits until the process has ended by itself or by a signal.
    pub async fn exited(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("replica {} does not run", self.id))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process has an id")?;
        let waiting = tokio::task::spawn_blocking(move || child.wait());
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(status) => Ok(status??),
            Err(_) => {
                kill_process(pid, Signal::KILL).ok();
                bail!("replica {} did not exit", self.id)
            }
        }
    }

    /// SIGTERM, and waits until it is gone.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.exited().await
    }

    /// How the process has ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let status = self.child.as_mut().with_context(|| format!("replica {} does not run", self.id))?.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Waits until its health says SERVING (`None`), or until it has ended, and how. An error if it does neither.
    pub async fn ready_or_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let begun = clock::now();
        while clock::since(begun) < PATIENCE {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            match tokio::time::timeout(Duration::from_millis(100), self.watch_health()).await {
                Ok(Ok(())) => return Ok(None),
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(_) => {}
            }
        }
        bail!("replica {} neither serves nor ends\n{}", self.id, self.log_tail(30))
    }

    /// An error if the process ended when nobody asked it to.
    pub fn still_alive(&mut self) -> anyhow::Result<()> {
        let Some(child) = self.child.as_mut() else { bail!("replica {} does not run", self.id) };
        if let Some(status) = child.try_wait()? {
            self.child = None;
            bail!("replica {} ended by itself: {status}\n{}", self.id, self.log_tail(20));
        }
        Ok(())
    }

    /// Waits until its health says SERVING.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let begun = clock::now();
        let mut seen = "no answer".to_owned();
        while clock::since(begun) < PATIENCE {
            self.still_alive()?;
            let left = PATIENCE.saturating_sub(clock::since(begun));
            match tokio::time::timeout(left, self.watch_health()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(status)) => seen = status.to_string(),
                Err(_) => seen = "NOT_SERVING".to_owned(),
            }
            // Nobody tells when a port opens.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("replica {} is not ready after {PATIENCE:?}: {seen}\n{}", self.id, self.log_tail(30))
    }

    async fn watch_health(&self) -> Result<(), tonic::Status> {
        let request = HealthCheckRequest { service: "tenure.v1.LeaseService".into() };
        let mut answers = HealthClient::new(self.api.channel.clone()).watch(request).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if answer.status() == ServingStatus::Serving {
                return Ok(());
            }
        }
        Err(tonic::Status::unavailable("the health stream ended"))
    }

    /// Deletes everything it knows; it must not run.
    pub fn wipe(&self) -> anyhow::Result<()> {
        ensure!(!self.running(), "replica {} runs", self.id);
        fs::remove_dir_all(&self.data_dir).with_context(|| format!("cannot wipe {}", self.data_dir.display()))
    }

    /// The last lines that it printed.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        format!("--- replica {} ({})\n{}", self.id, self.log.display(), all[all.len().saturating_sub(lines)..].join("\n"))
    }

    /// Everything that it printed.
    pub fn log_text(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            // A stopped process takes SIGKILL too.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
