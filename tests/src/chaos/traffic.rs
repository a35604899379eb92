//! The users of a run: their processes, and their journals, which are read while they are written. Traffic is what was acknowledged.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tenure_checker::history::{Outcome, Record, What};

use super::user::{self, MAY_ARRIVE, Orders};
use crate::{clock, history::History, netns::Place, replica::PATIENCE};

/// One user, over all its lives.
#[derive(Debug)]
pub struct User {
    /// `u1`, say; its host has the same name.
    pub name: String,
    /// What it is started with beside the harness' own environment.
    pub env: Vec<(String, String)>,
    place: Place,
    orders: Orders,
    dir: PathBuf,
    boots: u64,
    child: Option<Child>,
}

/// Refusals that are as good an answer as any: the cluster has looked.
const ANSWERS: [&str; 6] = ["LEASE_NOT_FOUND", "LEASE_EXISTS", "LEASE_IN_USE", "REVISION_MISMATCH", "REQUEST_ID_REUSED", "WAIT_MOVED"];

/// What of a file was read.
#[derive(Debug, Default)]
struct Reading {
    offset: u64,
    rest: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Traffic {
    /// In order.
    pub users: Vec<User>,
    history: Arc<History>,
    journals: BTreeMap<PathBuf, Reading>,
    /// When an operation was answered, and with something that means that it was served.
    served: Vec<u64>,
    /// When a keeper lost its lease, and what it said.
    pub losses: Vec<(u64, String)>,
    /// Calls that came to nothing: when, and why.
    pub failures: Vec<(u64, String)>,
}

impl User {
    /// Starts nothing. `number` is unique in the run, from 1.
    #[must_use]
    pub fn new(number: u64, place: Place, dir: &Path, orders: Orders) -> Self {
        let name = format!("u{number}");
        let orders = Orders { first_number: number << 40, ..orders };
        Self { name, env: Vec::new(), place, orders, dir: dir.to_owned(), boots: 0, child: None }
    }

    /// A new process, with a name and a journal of its own.
    fn start(&mut self) -> anyhow::Result<PathBuf> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        self.boots += 1;
        let name = format!("{}.{}", self.name, self.boots);
        let journal = self.dir.join(format!("{name}.jsonl"));
        let orders = Orders {
            seed: self.orders.seed.wrapping_add(self.boots),
            first_number: self.orders.first_number + (self.boots << 32),
            journal: journal.clone(),
            name,
            ..self.orders.clone()
        };
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{}.log", self.name)))?;
        let mut command = self.place.command(std::env::current_exe()?);
        command.args(["user", &serde_json::to_string(&orders)?]).envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn().context("cannot start a user")?;
        self.child = Some(child);
        Ok(journal)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    fn still_alive(&mut self) -> anyhow::Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        if let Some(status) = child.try_wait()? {
            bail!("{} ended by itself: {status}\n{}", self.name, self.log());
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        drop(child.stdin.take());
        let begun = clock::now();
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if clock::since(begun) > 2 * PATIENCE {
                child.kill()?;
                child.wait()?;
                bail!("{} did not end:\n{}", self.name, self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Traffic {
    /// Starts nothing.
    #[must_use]
    pub fn new(history: &Arc<History>, users: Vec<User>) -> Self {
        let history = Arc::clone(history);
        Self { users, history, journals: BTreeMap::new(), served: Vec::new(), losses: Vec::new(), failures: Vec::new() }
    }

    /// Starts those that do not run.
    pub fn start(&mut self) -> anyhow::Result<()> {
        for user in self.users.iter_mut().filter(|user| user.child.is_none()) {
            self.journals.insert(user.start()?, Reading::default());
        }
        Ok(())
    }

    /// kill -9.
    pub fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        let user = &mut self.users[at];
        let mut child = user.child.take().with_context(|| format!("{} does not run", user.name))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Tells all to come to an end, and waits until they have.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for child in self.users.iter_mut().filter_map(|user| user.child.as_mut()) {
            drop(child.stdin.take());
        }
        for user in self.users.iter_mut().filter(|user| user.child.is_some()) {
            let status = user.ended().await?;
            ensure!(status.success(), "{} ended with {status}:\n{}", user.name, user.log());
        }
        self.read()
    }

    /// Takes in what was written since.
    pub fn read(&mut self) -> anyhow::Result<()> {
        for user in &mut self.users {
            user.still_alive()?;
        }
        for (path, reading) in &mut self.journals {
            // Not there yet.
            let Ok(mut file) = File::open(path) else { continue };
            file.seek(SeekFrom::Start(reading.offset))?;
            reading.offset += file.read_to_end(&mut reading.rest)? as u64;
            let whole = reading.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in reading.rest.drain(..whole).collect::<Vec<u8>>().split_inclusive(|byte| *byte == b'\n') {
                let Record { at, what } = serde_json::from_slice(line).with_context(|| format!("in {}", path.display()))?;
                match &what {
                    What::Return(answer) => match &answer.outcome {
                        // The call was answered; it is an attempt before it that may still arrive.
                        Outcome::Unknown { error } if error == MAY_ARRIVE => self.served.push(at),
                        Outcome::Unknown { error } => self.failures.push((at, error.clone())),
                        Outcome::Refused { reason } if !ANSWERS.contains(&reason.as_str()) => self.failures.push((at, reason.clone())),
                        _ => self.served.push(at),
                    },
                    What::Note { text, .. } if text.starts_with(user::LOST) => self.losses.push((at, text.clone())),
                    _ => {}
                }
                self.history.record_at(at, what);
            }
        }
        Ok(())
    }

    /// How many operations were served in `[from, to)`, of those that were read.
    #[must_use]
    pub fn served(&self, from: u64, to: u64) -> usize {
        self.served.iter().filter(|at| (from..to).contains(*at)).count()
    }
}
