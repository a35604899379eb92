//! What is done to single processes from outside: system calls that fail or take long (strace), and hardly any CPU (a control group, or stopping it
//! most of the time). Ends when dropped.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{clock, replica::PATIENCE};

/// A process whose system calls are tampered with.
#[derive(Debug)]
pub(super) struct Traced {
    strace: Child,
}

impl Traced {
    /// `inject` as strace has it: `fdatasync:error=EIO`, say. Returns when every thread is traced.
    pub(super) async fn start(pid: Pid, calls: &str, inject: &str) -> anyhow::Result<Self> {
        let number = pid.as_raw_nonzero().to_string();
        let strace = Command::new("strace")
            .args([
                "-f",
                "-q",
                "-o",
                "/dev/null",
                "-e",
                "signal=none",
                "-e",
                &format!("trace={calls}"),
                "-e",
                &format!("inject={calls}:{inject}"),
                "-p",
                &number,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run strace")?;
        let mut this = Self { strace };
        let begun = clock::now();
        while !all_traced(&number) {
            if this.strace.try_wait()?.is_some() {
                bail!("strace ended at once");
            }
            if clock::since(begun) > PATIENCE {
                bail!("strace does not come to trace process {number}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(this)
    }
}

fn all_traced(pid: &str) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.filter_map(Result::ok).all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}

impl Drop for Traced {
    fn drop(&mut self) {
        // Told to end, it lets go of the process.
        if let Some(pid) = i32::try_from(self.strace.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).ok();
        }
        self.strace.wait().ok();
    }
}

/// A process that gets two hundredths of a core.
#[derive(Debug)]
pub(super) enum Starved {
    /// In a group with a quota.
    Group(PathBuf),
    /// Where there are no groups: stopped most of the time.
    Stopped(Pid, Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>),
}

const GROUPS: &str = "/sys/fs/cgroup/cpu";
const PREFIX: &str = "tenure-chaos-";

impl Starved {
    pub(super) fn start(pid: Pid) -> Self {
        let group = PathBuf::from(GROUPS).join(format!("{PREFIX}{}", std::process::id()));
        let quota = || {
            fs::create_dir_all(&group)?;
            fs::write(group.join("cpu.cfs_quota_us"), "2000")?;
            fs::write(group.join("cgroup.procs"), pid.as_raw_nonzero().to_string())
        };
        if quota().is_ok() {
            return Self::Group(group);
        }
        fs::remove_dir(&group).ok();
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for (signal, ms) in [(Signal::STOP, 98), (Signal::CONT, 2)] {
                    kill_process(pid, signal).ok();
                    std::thread::sleep(Duration::from_millis(ms));
                }
            }
        });
        Self::Stopped(pid, ended, Some(thread))
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        match self {
            Self::Group(group) => {
                let inside = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                for pid in inside.lines() {
                    fs::write(PathBuf::from(GROUPS).join("cgroup.procs"), pid).ok();
                }
                fs::remove_dir(group).ok();
            }
            Self::Stopped(pid, ended, thread) => {
                ended.store(true, Ordering::Relaxed);
                if let Some(thread) = thread.take() {
                    thread.join().ok();
                }
                kill_process(*pid, Signal::CONT).ok();
            }
        }
    }
}

/// Removes the groups of harnesses that are gone.
pub(super) fn sweep() {
    for entry in fs::read_dir(GROUPS).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.strip_prefix(PREFIX).is_some_and(|owner| fs::metadata(format!("/proc/{owner}")).is_err()) {
            fs::remove_dir(entry.path()).ok();
        }
    }
}
