//! Candidates in processes of their own, and the judge of what they believed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tenure_checker::history::{self as format, What};

use crate::{clock, history::History, replica::PATIENCE};

/// One `elector` process. Killed when dropped.
#[derive(Debug)]
pub struct Elector {
    child: Child,
    file: PathBuf,
}

/// From the first to the last moment at which one process believed to lead under one token; nanoseconds of [`clock::now`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Belief {
    /// When it was first noticed.
    pub from: u64,
    /// When it was last noticed.
    pub to: u64,
    /// The fencing token.
    pub token: u64,
}

impl Elector {
    /// `program` is `env!("CARGO_BIN_EXE_elector")`; `file` takes down what it believes.
    pub fn start(program: &str, endpoints: &str, name: &str, lease: Duration, file: &Path) -> anyhow::Result<Self> {
        Self::start_in(program, endpoints, name, lease, file, &[])
    }

    /// As [`Elector::start`], with more in its environment.
    pub fn start_in(program: &str, endpoints: &str, name: &str, lease: Duration, file: &Path, env: &[(String, String)]) -> anyhow::Result<Self> {
        let millis = lease.as_millis().to_string();
        let mut command = Command::new(program);
        command.args([endpoints, name, &millis]).arg(file).envs(env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        let child = command.spawn().context("cannot start an elector")?;
        Ok(Self { child, file: file.to_owned() })
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

    /// What it has believed so far.
    pub fn beliefs(&self) -> anyhow::Result<Vec<Belief>> {
        beliefs(&self.file)
    }

    /// Waits until it has believed to lead after the moment `since`, and says from when.
    pub async fn leads_after(&self, since: u64) -> anyhow::Result<u64> {
        while clock::since(since) < PATIENCE {
            if let Some(belief) = self.beliefs()?.into_iter().find(|belief| belief.to > since) {
                return Ok(belief.from.max(since));
            }
            // Another process cannot tell.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        bail!("it was not elected within {PATIENCE:?}: {:?}", self.beliefs()?)
    }
}

impl Drop for Elector {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

fn beliefs(file: &Path) -> anyhow::Result<Vec<Belief>> {
    let mut by_token = BTreeMap::new();
    // Not there before the first belief; the last line may be half written.
    for line in fs::read_to_string(file).unwrap_or_default().split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let (token, at) = line.split_once(' ').context("a line has two numbers")?;
        let (token, at): (u64, u64) = (token.parse()?, at.parse()?);
        let belief = by_token.entry(token).or_insert(Belief { from: at, to: at, token });
        belief.to = belief.to.max(at);
    }
    Ok(by_token.into_values().collect())
}

/// No two believed at once, and whoever believed later had the larger token (P1 and P11 of the checker). Returns all beliefs in order.
pub fn judge(files: &[PathBuf]) -> anyhow::Result<Vec<Belief>> {
    let history = History::of("electors");
    let mut all = Vec::new();
    for (at, file) in files.iter().enumerate() {
        for believed in beliefs(file)? {
            // Up to and with the last moment at which it was noticed; the process samples, so its deadline is not known.
            let belief = history.number();
            let (lease, holder) = ("default/election".to_owned(), format!("candidate-{at}"));
            let believe = format::Belief { belief, lease, holder, token: believed.token, deadline: u64::MAX };
            history.record_at(believed.from, What::Believe(believe));
            history.record_at(believed.to + 1, What::Doubt { belief });
            all.push(believed);
        }
    }
    history.judged()?;
    all.sort_unstable();
    Ok(all)
}
