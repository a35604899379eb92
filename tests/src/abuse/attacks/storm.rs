//! Calls without number: so many connections, so many calls at a time on each, until the attack is over or enough were made.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Mutex as Waiting, task::JoinSet};

use super::{Orders, line::Line};

/// After a connection was ended or refused.
const PAUSE: Duration = Duration::from_millis(100);
/// After a call was refused because there are too many: a client that is careless, not one that spins.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);
const RESOURCE_EXHAUSTED: u32 = 8;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Storm {
    pub(super) addrs: Vec<String>,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    /// No more calls than that.
    pub(super) most: u64,
    pub(super) path: &'static str,
    pub(super) metadata: Vec<(&'static str, String)>,
    /// Each call is reset so soon after it was sent.
    pub(super) cancel_after: Option<Duration>,
}

/// What came of the calls.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    cancelled: AtomicU64,
    connections: AtomicU64,
    broken: AtomicU64,
    codes: Mutex<BTreeMap<u32, u64>>,
}

impl Counts {
    /// How many answers had this code.
    pub(super) fn times(&self, code: u32) -> u64 {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner).get(&code).copied().unwrap_or(0)
    }

    fn code(&self, code: u32) {
        *self.codes.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
        write!(f, "{} calls on {} connections", number(&self.sent), number(&self.connections))?;
        let cancelled = number(&self.cancelled);
        if cancelled > 0 {
            write!(f, ", {cancelled} cancelled")?;
        }
        for (code, times) in self.codes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let name = format!("{:?}", tonic::Code::from_i32(i32::try_from(*code).unwrap_or(2)));
            write!(f, ", {times} {name}")?;
        }
        let broken = number(&self.broken);
        if broken > 0 {
            write!(f, ", {broken} broken off")?;
        }
        Ok(())
    }
}

/// A connection that is opened again when it has ended.
pub(super) struct Kept {
    addr: String,
    line: Waiting<Option<Line>>,
}

impl Kept {
    pub(super) fn new(addr: &str) -> Self {
        Self { addr: addr.to_owned(), line: Waiting::new(None) }
    }

    pub(super) async fn line(&self, counts: &Counts) -> anyhow::Result<Line> {
        let mut kept = self.line.lock().await;
        if let Some(line) = kept.as_ref().filter(|line| !line.ended()) {
            return Ok(line.clone());
        }
        *kept = None;
        let line = Line::open(&self.addr).await?;
        counts.connections.fetch_add(1, Ordering::Relaxed);
        Ok(kept.insert(line).clone())
    }
}

impl Storm {
    /// Until the attack is over; `make` says what the call of a number sends.
    pub(super) async fn blow(self, orders: &Orders, make: impl Fn(u64) -> Bytes + Send + Sync + 'static) -> Arc<Counts> {
        let (storm, make, counts, next) = (Arc::new(self), Arc::new(make), Arc::<Counts>::default(), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for connection in 0..storm.connections {
            let kept = Arc::new(Kept::new(&storm.addrs[connection % storm.addrs.len()]));
            for _ in 0..storm.in_flight {
                let (storm, make, counts, next, kept) = (storm.clone(), make.clone(), counts.clone(), next.clone(), kept.clone());
                tasks.spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= storm.most {
                            return;
                        }
                        match storm.one(&kept, &counts, make(number)).await {
                            Ok(RESOURCE_EXHAUSTED) => tokio::time::sleep(REFUSED_PAUSE).await,
                            Ok(_) => {}
                            Err(_) => {
                                counts.broken.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(PAUSE).await;
                            }
                        }
                    }
                });
            }
        }
        orders.meanwhile(async { while tasks.join_next().await.is_some() {} }).await;
        counts
    }

    async fn one(&self, kept: &Kept, counts: &Counts, message: Bytes) -> anyhow::Result<u32> {
        let line = kept.line(counts).await?;
        let answer = line.call(self.path, &self.metadata, message).await?;
        counts.sent.fetch_add(1, Ordering::Relaxed);
        let code = match self.cancel_after {
            None => answer.code().await?,
            Some(after) => match tokio::time::timeout(after, answer.code()).await {
                Ok(code) => code?,
                Err(_) => {
                    counts.cancelled.fetch_add(1, Ordering::Relaxed);
                    return Ok(0);
                }
            },
        };
        counts.code(code);
        Ok(code)
    }
}
