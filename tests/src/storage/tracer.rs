//! `strace` as the hand of fate: system calls of the real `tenured` that fail, take long, or are its last. Needs the right to trace; where there
//! is none, rounds are skipped and say so.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Pid;

use crate::{clock, replica::PATIENCE, storage::Skipped};

/// Whether this machine allows it.
pub fn possible() -> Result<(), Skipped> {
    static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
    let tried = POSSIBLE.get_or_init(|| match Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("strace: {error}")),
    });
    tried.clone().map_err(Skipped)
}

/// What to do to which system call.
#[derive(Clone, Debug)]
pub struct Injection {
    /// `fdatasync`, or several with commas.
    pub calls: &'static str,
    /// `error=EIO`, `signal=SIGKILL`, `delay_enter=…`.
    pub what: String,
    /// At which call, of those that one thread makes.
    pub when: u64,
    /// Only on these files; empty: on all.
    pub paths: Vec<PathBuf>,
}

impl Injection {
    fn args(&self, out: &Path) -> Vec<String> {
        let Self { calls, what, when, paths } = self;
        let mut args: Vec<String> = ["-f", "-y", "-ttt", "-o"].map(str::to_owned).to_vec();
        args.push(out.to_string_lossy().into_owned());
        args.extend(["-e".to_owned(), format!("trace={calls}"), "-e".to_owned(), format!("inject={calls}:{what}:when={when}")]);
        args.extend(paths.iter().flat_map(|path| ["-P".to_owned(), path.to_string_lossy().into_owned()]));
        args
    }

    /// For [`crate::replica::Replica::wrapper`]: from the first instruction on.
    #[must_use]
    pub fn wrapper(&self, out: &Path) -> Vec<String> {
        // The tracer is a grandchild, so that the child is tenured itself.
        let mut wrapper = vec!["strace".to_owned(), "-D".to_owned()];
        wrapper.extend(self.args(out));
        wrapper
    }
}

/// An strace of a process that runs. Lets go of it when dropped.
#[derive(Debug)]
pub struct Tracer {
    child: Child,
}

impl Tracer {
    /// Waits until it has the process in hand.
    pub async fn attach(pid: Pid, out: &Path, injection: &Injection) -> anyhow::Result<Self> {
        let said = out.with_extension("said");
        let child = Command::new("strace")
            .args(injection.args(out))
            .arg("-p")
            .arg(pid.as_raw_nonzero().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said)?)
            .spawn()
            .context("cannot run strace")?;
        let tracer = Self { child };
        let begun = clock::now();
        while !std::fs::read_to_string(&said)?.contains("attached") {
            ensure!(clock::since(begun) < PATIENCE, "strace does not get hold of it: {}", std::fs::read_to_string(&said)?);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(tracer)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // SIGINT would have it detach politely; the kernel detaches for who is killed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The lines of a trace, from the injected one on; `None`: it has not happened.
pub fn since_injected(out: &Path) -> anyhow::Result<Option<Vec<String>>> {
    let text = std::fs::read(out).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let hit = lines.iter().position(|line| line.contains("(INJECTED)") || line.contains("(DELAYED)") || line.contains("killed by SIGKILL"));
    Ok(hit.map(|hit| lines[hit..].to_vec()))
}
