//! The full history of holds, in sled: rebuilt from the log where it can be, never in apply's way.
//!
//! sled is not trusted with anything that was promised: a record may be lost with the power, and then the answer says since when it is complete.
//! Only the thread `tenure-history` touches sled. Apply puts messages into a bounded queue and goes on; when that is full, the messages are dropped
//! and everything up to the last of them counts as incomplete.

mod recorder;
mod store;
#[cfg(test)]
mod tests;

use std::{
    fs, panic,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{JoinHandle, Thread},
    time::Duration,
};

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use tenure_lease::{Applied, Event, Hold, LeaseKey, LeaseTable};
use tokio::sync::oneshot;

use crate::replica::OnApplied;
use recorder::Recorder;
use store::Store;
#[cfg(feature = "fuzzing")]
pub(crate) use store::rewritten;

/// Messages between apply and the recorder; each holds the endings of one entry.
const QUEUE: usize = 4_096;
/// A question waits so long for room in the queue before it tries again.
const RETRY: Duration = Duration::from_millis(5);

/// Cheap to clone. Own thread, bounded queue, a gap marker when it had to drop.
#[derive(Clone, Debug)]
pub(crate) struct History {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: SyncSender<Message>,
    seen: Arc<Seen>,
    recorder: Mutex<Option<JoinHandle<()>>>,
    /// It may be letting messages gather.
    thread: Thread,
}

/// What apply tells the recorder without a message.
#[derive(Debug, Default)]
struct Seen {
    /// Everything that ended up to this change is in the queue, or was dropped.
    through: AtomicU64,
    /// Something that ended up to this change was dropped.
    dropped: AtomicU64,
}

enum Message {
    /// Holds that ended, in the order of the log.
    Ended(Vec<Arc<Event>>),
    /// The table is at this change, and what led there was not told: by a snapshot, or by starting.
    Jumped(u64),
    Question {
        key: LeaseKey,
        limit: usize,
        answer: oneshot::Sender<anyhow::Result<Holds>>,
    },
    Close,
}

/// What is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Holds {
    /// Newest first.
    pub(crate) holds: Vec<Hold>,
    /// Nothing that ended after this change is missing.
    pub(crate) complete_since: u64,
}

impl History {
    /// Opens `<data_dir>/history`; a damaged database is set aside and begun anew (it is rebuilt, with a gap). Blocks: not for a runtime worker.
    ///
    /// Tell it where the table starts, by [`OnApplied::replaced`], before the first entry is applied.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let dir = data_dir.join("history");
        let store = match Store::open(&dir) {
            Ok(store) => store,
            Err(error) => {
                let aside = set_aside(&dir)?;
                tracing::warn!(error = format!("{error:#}"), aside = %aside.display(), "the history is damaged: set aside and begun anew; no lease is affected");
                Store::open(&dir).context("cannot begin a new history")?
            }
        };
        let (queue, messages) = sync_channel(QUEUE);
        let seen = Arc::new(Seen::default());
        let recorder = Recorder::new(store, messages, seen.clone());
        let thread = std::thread::Builder::new().name("tenure-history".into()).spawn(move || recorder.run()).context("cannot start the history's thread")?;
        let shared = Shared { queue, seen, thread: thread.thread().clone(), recorder: Mutex::new(Some(thread)) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Ended holds of a lease (across delete and re-create), as of everything applied before the call.
    pub(crate) async fn of(&self, key: &LeaseKey, limit: usize) -> anyhow::Result<Holds> {
        let (answer, answered) = oneshot::channel();
        let mut question = Message::Question { key: key.clone(), limit, answer };
        loop {
            match self.shared.queue.try_send(question) {
                Ok(()) => break,
                Err(TrySendError::Full(again)) => question = again,
                Err(TrySendError::Disconnected(_)) => anyhow::bail!("the history is closed"),
            }
            tokio::time::sleep(RETRY).await;
        }
        self.shared.thread.unpark();
        answered.await.context("the history is closed")?
    }

    /// Drains the queue and closes. Blocks until that is on disk: not for a runtime worker.
    pub(crate) fn close(&self) {
        if let Some(thread) = self.shared.recorder.lock().take() {
            // Fails only when the thread has gone, and then there is nothing to drain.
            let _ = self.shared.queue.send(Message::Close);
            self.shared.thread.unpark();
            if thread.join().is_err() {
                tracing::error!("the history's thread panicked");
            }
        }
    }

    fn tell(&self, message: Message, revision: u64) {
        if self.shared.queue.try_send(message).is_err() {
            self.shared.seen.dropped.fetch_max(revision, Ordering::Release);
        }
        // After the message: whoever reads this finds it in the queue.
        self.shared.seen.through.fetch_max(revision, Ordering::Release);
    }
}

/// How much a directory's history holds. Opening sled changes it, so a copy is looked at. Blocking.
pub(crate) fn inspect(data_dir: &Path) -> anyhow::Result<String> {
    let dir = data_dir.join("history");
    if !dir.is_dir() {
        return Ok("none kept".into());
    }
    let copy = std::env::temp_dir().join(format!("tenure-check-{}", std::process::id()));
    let look = || copy_dir(&dir, &copy).with_context(|| format!("cannot copy {}", dir.display())).and_then(|()| Store::open(&copy)?.verify());
    // sled 0.34 panics on some damage instead of reporting it.
    let looked = panic::catch_unwind(look).unwrap_or_else(|_| Err(anyhow!("sled panicked while reading {}", dir.display())));
    // What is left in the temporary folder does no harm.
    let _ = std::fs::remove_dir_all(&copy);
    let (holds, complete_since) = looked?;
    Ok(format!("{holds} holds, complete since change {complete_since}"))
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl OnApplied for History {
    fn applied(&self, table: &LeaseTable, applied: &Applied) {
        let ended: Vec<Arc<Event>> = applied.events.iter().filter(|event| event.ended.is_some()).cloned().collect();
        if ended.is_empty() {
            self.shared.seen.through.fetch_max(table.revision(), Ordering::Release);
        } else {
            self.tell(Message::Ended(ended), table.revision());
        }
    }

    fn replaced(&self, table: &LeaseTable) {
        self.tell(Message::Jumped(table.revision()), table.revision());
    }
}

fn set_aside(dir: &Path) -> anyhow::Result<PathBuf> {
    for n in 1..1_000 {
        let aside = dir.with_file_name(format!("history.damaged-{n}"));
        if !aside.exists() {
            fs::rename(dir, &aside).with_context(|| format!("cannot set the damaged history {} aside", dir.display()))?;
            return Ok(aside);
        }
    }
    anyhow::bail!("too many damaged histories beside {}: remove them", dir.display())
}
