//! How long nobody could write: small writes through every replica, all the time, and the silences between them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    api::{self, Api, may_retry},
    clock,
    history::History,
    v1::{AcquireRequest, renew_result},
};

/// See the module. Ends when dropped.
#[derive(Debug)]
pub struct Probe {
    writes: Arc<Mutex<Vec<u64>>>,
    _tasks: JoinSet<()>,
}

impl Probe {
    /// One writer per replica, each renewing one lease with little pause. What may not be retried goes into the history.
    pub async fn spawn(replicas: &[Api], history: &Arc<History>) -> anyhow::Result<Self> {
        let writes = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for (at, replica) in replicas.iter().enumerate() {
            // A probe before this one may have left it held.
            let request = AcquireRequest { reclaim: true, ..api::acquire("probe", &format!("probe-{at}"), "probe", 3_600_000) };
            let token = replica.grant(request).await?.token;
            let (replica, writes, history) = (replica.clone(), Arc::clone(&writes), Arc::clone(history));
            tasks.spawn(async move {
                loop {
                    match tokio::time::timeout(Duration::from_millis(250), replica.renew(vec![api::renewal(token)])).await {
                        Ok(Ok(answer)) if matches!(answer.results.first().and_then(|r| r.result.as_ref()), Some(renew_result::Result::Renewed(_))) => {
                            writes.lock().unwrap_or_else(PoisonError::into_inner).push(clock::now());
                        }
                        Ok(Ok(answer)) => history.refusal(format!("Renew at {}: {answer:?}", replica.addr)),
                        Ok(Err(status)) if !may_retry(&status) => history.refusal(format!("Renew at {}: {status}", replica.addr)),
                        _ => {}
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            });
        }
        Ok(Self { writes, _tasks: tasks })
    }

    /// The longest time within `[from, now]` in which no write was acknowledged.
    #[must_use]
    pub fn longest_silence(&self, from: u64) -> Duration {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        writes.sort_unstable();
        let mut last = writes.iter().copied().filter(|at| *at < from).max().unwrap_or(from);
        let mut longest = 0;
        for at in writes.into_iter().filter(|at| *at >= from).chain([clock::now()]) {
            longest = longest.max(at - last);
            last = at;
        }
        Duration::from_nanos(longest)
    }

    /// Waits for a write that is acknowledged after `from`; false if there is none for `patience`.
    pub async fn writes_again(&self, from: u64, patience: Duration) -> bool {
        while clock::since(from) < patience {
            if self.writes.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|at| *at > from) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        false
    }
}

/// For people: the gaps in order of size.
#[must_use]
pub fn distribution(mut gaps: Vec<Duration>) -> String {
    gaps.sort_unstable();
    let ms: Vec<String> = gaps.iter().map(|gap| format!("{:.0}", gap.as_secs_f64() * 1000.0)).collect();
    format!("{} ms", ms.join(" "))
}
