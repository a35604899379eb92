//! A program that prints lines: one of the SDK's examples, say. Notes when each line came, on the clock that every process of this machine shares.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use crate::{clock, replica::PATIENCE};

/// A line, and the moment of [`clock::now`] at which it was read.
pub type Line = (u64, String);

/// See the module. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    lines: mpsc::UnboundedReceiver<Line>,
    /// What was read so far.
    seen: Vec<Line>,
}

impl Program {
    /// Starts it in an environment that names the cluster, with `dir` for temporary files. Its error output is ours.
    pub fn start(program: &Path, endpoints: &str, dir: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(args).env("TENURE_ENDPOINTS", endpoints).env("TMPDIR", dir).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let output = BufReader::new(child.stdout.take().context("is piped")?);
        let (told, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| told.send((clock::now(), line)).is_ok()));
        Ok(Self { child, lines, seen: Vec::new() })
    }

    /// Waits for a line that contains `text`, past those that were waited for before; when it came, and the whole of it.
    pub async fn line(&mut self, text: &str) -> anyhow::Result<Line> {
        let waiting = async {
            while let Some(line) = self.lines.recv().await {
                self.seen.push(line.clone());
                if line.1.contains(text) {
                    return Some(line);
                }
            }
            None
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("it ended without {text:?}: {:?}", self.seen),
            Err(_) => bail!("{text:?} did not come within {PATIENCE:?}: {:?}", self.seen),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended: its status, and all that it has printed.
    pub async fn ended(&mut self) -> anyhow::Result<(ExitStatus, String)> {
        let reading = async {
            while let Some(line) = self.lines.recv().await {
                self.seen.push(line);
            }
        };
        ensure!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "it did not end within {PATIENCE:?}: {:?}", self.seen);
        // Its output is closed, so that this is short.
        let status = self.child.wait()?;
        Ok((status, self.seen.iter().map(|(_, line)| format!("{line}\n")).collect()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill().ok();
    }
}
