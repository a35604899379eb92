//! The well-behaved client beside every attack: three leases of 3 s, one through each replica, each renewed every 0.3 s by a call with a deadline of
//! 2 s. It judges nothing; it writes down what each call took and what came of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tonic::Request;

use crate::{
    api::{self, Api},
    clock,
    v1::{AcquireRequest, RenewRequest, renew_result},
};

/// Of each lease.
const DURATION: Duration = Duration::from_secs(3);
/// Between two renewals of a lease.
const EVERY: Duration = Duration::from_millis(300);
/// Of a call.
const DEADLINE: Duration = Duration::from_secs(2);
const NAMESPACE: &str = "bystander";

/// One call.
#[derive(Clone, Copy, Debug)]
struct Call {
    begun: u64,
    took: Duration,
    /// Index of the replica that was asked.
    through: usize,
    fine: bool,
}

/// What came of the calls of a while.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) calls: usize,
    pub(super) failed: usize,
    pub(super) lost: u64,
    pub(super) median: Duration,
    pub(super) worst: Duration,
}

#[derive(Debug, Default)]
struct Book {
    calls: Mutex<Vec<Call>>,
    lost: AtomicU64,
    /// When each lease was last known to be held.
    held: Mutex<Vec<u64>>,
}

/// See the module. Ends when dropped.
#[derive(Debug)]
pub(super) struct Bystander {
    book: Arc<Book>,
    _tasks: JoinSet<()>,
}

impl Bystander {
    /// Acquires the three leases, and uses each connection once, so that all of them are open before anything happens.
    pub(super) async fn spawn(addrs: &[String]) -> anyhow::Result<Self> {
        let apis: Vec<Api> = addrs.iter().map(|addr| Api::new(addr)).collect();
        let book = Arc::new(Book { held: Mutex::new(vec![clock::now(); apis.len()]), ..Book::default() });
        let mut tasks = JoinSet::new();
        for home in 0..apis.len() {
            let name = format!("lease-{home}");
            let lease = apis[home].grant(request(&name)).await.with_context(|| format!("the bystander acquires {name}"))?;
            let mut keeper = Keeper { apis: apis.clone(), home, name, token: lease.token, book: Arc::clone(&book) };
            tasks.spawn(async move { keeper.keep().await });
        }
        Ok(Self { book, _tasks: tasks })
    }

    /// Leases lost so far, and calls that have begun since then, but for those through replicas that are spared.
    pub(super) fn since(&self, from: u64, spared: &[usize]) -> Seen {
        let calls = self.book.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let counted: Vec<&Call> = calls.iter().filter(|call| call.begun + clock::nanos(call.took) >= from && !spared.contains(&call.through)).collect();
        let mut took: Vec<Duration> = counted.iter().map(|call| call.took).collect();
        took.sort_unstable();
        let silent = self.book.held.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|at| clock::since(**at) > DURATION).count();
        Seen {
            calls: counted.len(),
            failed: counted.iter().filter(|call| !call.fine).count(),
            // A lease of which nothing good was heard for its whole duration is over for its holder, whatever the cluster believes.
            lost: self.book.lost.load(Ordering::Relaxed) + silent as u64,
            median: took.get(took.len() / 2).copied().unwrap_or_default(),
            worst: took.last().copied().unwrap_or_default(),
        }
    }
}

fn request(name: &str) -> AcquireRequest {
    AcquireRequest { reclaim: true, ..api::acquire(NAMESPACE, name, "bystander", u64::try_from(DURATION.as_millis()).unwrap_or(0)) }
}

/// What a call for a lease has shown.
enum Word {
    Renewed,
    Lost,
    Nothing,
}

struct Keeper {
    apis: Vec<Api>,
    home: usize,
    name: String,
    token: u64,
    book: Arc<Book>,
}

impl Keeper {
    async fn keep(&mut self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // At its own replica first; where that fails, at once at the others, as every good client does.
            for further in 0..self.apis.len() {
                match self.renew((self.home + further) % self.apis.len()).await {
                    Word::Renewed => break,
                    Word::Lost => {
                        self.book.lost.fetch_add(1, Ordering::Relaxed);
                        self.acquire().await;
                        break;
                    }
                    Word::Nothing => {}
                }
            }
        }
    }

    async fn renew(&self, through: usize) -> Word {
        let begun = clock::now();
        let word = match tokio::time::timeout(DEADLINE, self.ask(through)).await {
            Ok(Ok(word)) => word,
            Ok(Err(_)) | Err(_) => Word::Nothing,
        };
        let fine = !matches!(word, Word::Nothing);
        self.book.calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { begun, took: clock::since(begun), through, fine });
        if matches!(word, Word::Renewed) {
            self.held_now();
        }
        word
    }

    async fn ask(&self, through: usize) -> Result<Word, tonic::Status> {
        let mut request = Request::new(tokio_stream::once(RenewRequest { items: vec![api::renewal(self.token)] }));
        request.set_timeout(DEADLINE);
        let mut answers = self.apis[through].lease.clone().renew(request).await?.into_inner();
        let answer = answers.message().await?.ok_or_else(|| tonic::Status::unavailable("the stream ended without an answer"))?;
        match answer.results.into_iter().next().and_then(|result| result.result) {
            Some(renew_result::Result::Renewed(_)) => Ok(Word::Renewed),
            Some(renew_result::Result::Lost(_)) => Ok(Word::Lost),
            None => Err(tonic::Status::internal("a renewal without a result")),
        }
    }

    async fn acquire(&mut self) {
        for further in 0..self.apis.len() {
            let api = &self.apis[(self.home + further) % self.apis.len()];
            if let Ok(Ok(lease)) = tokio::time::timeout(DEADLINE, api.grant(request(&self.name))).await {
                self.token = lease.token;
                self.held_now();
                return;
            }
        }
    }

    fn held_now(&self) {
        if let Some(at) = self.book.held.lock().unwrap_or_else(PoisonError::into_inner).get_mut(self.home) {
            *at = clock::now();
        }
    }
}
