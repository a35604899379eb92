//! One `tenure` process of the command line: its lines as they come, the signals it is sent, how it ended.

use std::{
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
};

use crate::{Cluster, binaries, replica::PATIENCE};

/// See the module. Killed when dropped.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    pid: Pid,
    out: Text,
    err: Text,
}

/// How a [`Tool`] has ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// As the kernel tells it.
    pub status: ExitStatus,
    /// All of its stdout.
    pub out: String,
    /// All of its stderr.
    pub err: String,
}

impl Output {
    /// An error that shows everything, unless it has exited with `code`.
    pub fn exited(self, code: i32) -> anyhow::Result<Self> {
        ensure!(self.status.code() == Some(code), "not exit code {code}, but {self:?}");
        Ok(self)
    }
}

#[derive(Clone, Debug)]
struct Text {
    all: Arc<Mutex<String>>,
    grown: watch::Receiver<bool>,
}

impl Text {
    fn read(from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let all = Arc::new(Mutex::new(String::new()));
        let (tell, grown) = watch::channel(false);
        let kept = Arc::clone(&all);
        tokio::spawn(async move {
            let mut lines = BufReader::new(from);
            let mut line = Vec::new();
            while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&line));
                line.clear();
                tell.send_replace(false);
            }
            tell.send_replace(true);
        });
        Self { all, grown }
    }

    fn now(&self) -> String {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `found` finds something in it; nothing when it ended without.
    async fn find<T>(&self, mut found: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let mut grown = self.grown.clone();
        loop {
            let ended = *grown.borrow_and_update();
            if let Some(found) = found(&self.now()) {
                return Some(found);
            }
            if ended || grown.changed().await.is_err() {
                return None;
            }
        }
    }
}

impl Tool {
    /// `tenure ARGS...` that talks to the cluster; its stdin is empty.
    pub fn start(cluster: &Cluster, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binaries::tenure()?);
        command.env("TENURE_ENDPOINTS", cluster.endpoints()).args(args);
        Self::spawn(command)
    }

    /// Any command.
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).context("a process has an id")?;
        let out = Text::read(child.stdout.take().context("stdout is a pipe")?);
        let err = Text::read(child.stderr.take().context("stderr is a pipe")?);
        Ok(Self { child, pid, out, err })
    }

    /// Of the process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid, signal).context("cannot signal")
    }

    /// Its stdout until now.
    #[must_use]
    pub fn printed(&self) -> String {
        self.out.now()
    }

    /// Types.
    pub async fn type_in(&mut self, text: &str) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is a pipe")?;
        stdin.write_all(text.as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    /// Waits for a whole line of stdout that `found` takes.
    pub async fn line<T>(&self, what: &str, mut found: impl FnMut(&str) -> Option<T>) -> anyhow::Result<T> {
        self.wait(&self.out, what, |text| text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).find_map(&mut found)).await
    }

    /// Waits until stderr has these words.
    pub async fn says(&self, words: &str) -> anyhow::Result<()> {
        self.wait(&self.err, words, |text| text.contains(words).then_some(())).await
    }

    async fn wait<T>(&self, text: &Text, what: &str, found: impl FnMut(&str) -> Option<T>) -> anyhow::Result<T> {
        match tokio::time::timeout(PATIENCE, text.find(found)).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!("ended before {what}; stdout: {}; stderr: {}", self.out.now(), self.err.now()),
            Err(_) => bail!("not within {PATIENCE:?}: {what}; stdout: {}; stderr: {}", self.out.now(), self.err.now()),
        }
    }

    /// Closes stdin and waits for the end.
    pub async fn ended(self) -> anyhow::Result<Output> {
        self.ended_within(PATIENCE).await
    }

    /// As [`Tool::ended`], for what has to wait for others.
    pub async fn ended_within(mut self, limit: Duration) -> anyhow::Result<Output> {
        drop(self.child.stdin.take());
        let Ok(status) = tokio::time::timeout(limit, self.child.wait()).await else {
            bail!("has not ended within {limit:?}; stdout: {}; stderr: {}", self.out.now(), self.err.now())
        };
        // What it left running may hold the pipes open; what it wrote itself is in them by now.
        for text in [&self.out, &self.err] {
            let _ = tokio::time::timeout(PATIENCE / 30, text.find(|_| None::<()>)).await;
        }
        Ok(Output { status: status?, out: self.out.now(), err: self.err.now() })
    }
}
