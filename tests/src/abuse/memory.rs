//! What the replicas take while they are attacked: resident memory from /proc, and space in their data directories. Reads only; kills a replica only
//! where the scenario says that memory is short.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

const EVERY: Duration = Duration::from_millis(100);
/// Directories are walked less often: they change slowly.
const DISK_EVERY: u32 = 5;

/// The most that one replica took, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Most {
    pub(super) resident: u64,
    pub(super) disk: u64,
}

/// See the module. Ends when dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    most: Arc<Mutex<Vec<Most>>>,
    _task: JoinSet<()>,
}

/// A process and its data directory.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) pid: Pid,
    pub(super) data_dir: PathBuf,
}

impl Watcher {
    /// Forgets earlier peaks of these processes, where the kernel allows that, and watches them from now on.
    pub(super) fn spawn(watched: Vec<Watched>, kill_above: Option<u64>) -> Self {
        let most = Arc::new(Mutex::new(vec![Most::default(); watched.len()]));
        // 5: the peak begins anew.
        let anew: Vec<bool> = watched.iter().map(|replica| fs::write(format!("/proc/{}/clear_refs", replica.pid.as_raw_nonzero()), "5").is_ok()).collect();
        let mut task = JoinSet::new();
        let seen = Arc::clone(&most);
        task.spawn(async move {
            for turn in 0_u32.. {
                for (at, replica) in watched.iter().enumerate() {
                    let now = resident(replica.pid, anew[at]).unwrap_or(0);
                    let disk = if turn % DISK_EVERY == 0 { size_of(&replica.data_dir) } else { 0 };
                    if let Some(most) = seen.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
                        most.resident = most.resident.max(now);
                        most.disk = most.disk.max(disk);
                    }
                    if kill_above.is_some_and(|limit| now > limit) {
                        kill_process(replica.pid, Signal::KILL).ok();
                    }
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { most, _task: task }
    }

    /// So far, of each.
    pub(super) fn most(&self) -> Vec<Most> {
        self.most.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Bytes of memory that a process has, or the most that it had since its peak was begun anew; `None` when it has ended.
pub(super) fn resident(pid: Pid, peak: bool) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let field = if peak { "VmHWM:" } else { "VmRSS:" };
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Bytes of all files below a directory; those that come and go meanwhile may be missed.
pub(super) fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.fold(0, |sum, entry| {
        let size = match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        };
        sum + size
    })
}
