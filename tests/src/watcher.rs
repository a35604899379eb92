//! A watch that resumes by itself, through whichever replica answers, and remembers every event.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::bail;
use tenure_checker::history::{WatchEnd, WatchOpen, What};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tonic::{Code, Status};

use crate::{
    api::{Api, may_retry},
    history::{History, change},
    replica::PATIENCE,
    v1,
};

/// See the module.
#[derive(Debug)]
pub struct Watcher {
    events: Arc<Mutex<Vec<v1::Event>>>,
    seen: watch::Receiver<u64>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<u64, Status>>,
}

impl Watcher {
    /// Watches a namespace from the first change after a revision.
    #[must_use]
    pub fn spawn(replicas: &[Api], first: usize, namespace: &str, after_revision: u64) -> Self {
        Self::recorded(replicas, first, namespace, after_revision, &Arc::default())
    }

    /// The same, for a history that is judged.
    #[must_use]
    pub fn recorded(replicas: &[Api], first: usize, namespace: &str, after_revision: u64, history: &Arc<History>) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let (reached, seen) = watch::channel(after_revision);
        let (stop, stopped) = oneshot::channel();
        let mut replicas = replicas.to_vec();
        let first = first % replicas.len().max(1);
        replicas.rotate_left(first);
        let task = tokio::spawn(follow(replicas, namespace.to_owned(), Arc::clone(&events), reached, stopped, Arc::clone(history)));
        Self { events, seen, stop: Some(stop), task }
    }

    /// Waits until nothing up to a revision is missing.
    pub async fn reached(&mut self, revision: u64) -> anyhow::Result<()> {
        let came = tokio::time::timeout(PATIENCE, self.seen.wait_for(|seen| *seen >= revision)).await.map(|seen| seen.is_ok());
        match came {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the watch ended: {:?}", (&mut self.task).await),
            Err(_) => bail!("the watch is at {} and not at {revision}", *self.seen.borrow()),
        }
    }

    /// What it has seen until now.
    #[must_use]
    pub fn events(&self) -> Vec<v1::Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it; the events, and how often it was resumed.
    pub async fn stop(mut self) -> anyhow::Result<(Vec<v1::Event>, u64)> {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        let resumed = (&mut self.task).await??;
        Ok((self.events(), resumed))
    }
}

async fn follow(
    replicas: Vec<Api>,
    namespace: String,
    events: Arc<Mutex<Vec<v1::Event>>>,
    reached: watch::Sender<u64>,
    mut stopped: oneshot::Receiver<()>,
    history: Arc<History>,
) -> Result<u64, Status> {
    let mut resumed = 0;
    let mut before = None;
    loop {
        let watch = history.number();
        let ended = |end| history.record(What::WatchEnd { watch, end });
        let api = &replicas[usize::try_from(resumed).unwrap_or(0) % replicas.len()];
        let request = v1::WatchRequest { namespace: namespace.clone(), after_revision: *reached.borrow(), ..Default::default() };
        let one = async {
            // A replica that is going down may never answer.
            let opened = tokio::time::timeout(Duration::from_secs(2), api.lease.clone().watch(request)).await;
            let mut answers = opened.map_err(|_| Status::deadline_exceeded("Watch did not open"))??.into_inner();
            history.record(What::WatchOpen(WatchOpen {
                watch,
                client: format!("watcher of {namespace}"),
                node: Some(api.addr.clone()),
                namespace: Some(namespace.clone()),
                after_revision: *reached.borrow(),
                resumes: before,
                ..WatchOpen::default()
            }));
            before = Some(watch);
            while let Some(answer) = answers.message().await? {
                let last = answer.events.last().map_or(0, |event| event.revision);
                for change in answer.events.iter().filter_map(change) {
                    history.record(What::WatchEvent { watch, change });
                }
                if answer.bookmark > 0 {
                    history.record(What::WatchBookmark { watch, revision: answer.bookmark });
                }
                events.lock().unwrap_or_else(PoisonError::into_inner).extend(answer.events);
                let upto = last.max(answer.bookmark).max(*reached.borrow());
                reached.send_replace(upto);
            }
            Ok::<(), Status>(())
        };
        tokio::select! {
            _ = &mut stopped => {
                ended(WatchEnd::Closed);
                return Ok(resumed);
            }
            end = one => match end {
                Ok(()) => ended(WatchEnd::Silent),
                Err(status) => {
                    ended(if status.code() == Code::OutOfRange { WatchEnd::Compacted { floor: 0 } } else { WatchEnd::Failed { error: status.to_string() } });
                    if !may_retry(&status) {
                        return Err(status);
                    }
                }
            }
        }
        resumed += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything that happened in a namespace in `(after, upto]`, as one replica replays it now.
pub async fn replay(api: &Api, namespace: &str, after: u64, upto: u64) -> anyhow::Result<Vec<v1::Event>> {
    let mut watcher = Watcher::spawn(std::slice::from_ref(api), 0, namespace, after);
    watcher.reached(upto).await?;
    let (events, _) = watcher.stop().await?;
    Ok(events.into_iter().filter(|event| event.revision <= upto).collect())
}
