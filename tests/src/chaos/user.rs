//! A program that uses the SDK for everything that it is for, all at once, in a process of its own: `chaos user ORDERS`. It is killed, stopped, cut off
//! and given bad clocks; whatever it sees and believes is in its journal before it goes on.
//!
//! Ends in good order when its standard input is closed.

mod asking;
mod journal;
mod racing;
mod watching;

use std::{io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tenure_checker::history::{Belief, What};
use tenure_client::{
    CancellationToken, Client, LeaderElection, Lease, Step,
    clock::{Clock, Readings, SystemClock},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
};

use crate::clock::{self, Rng};
use journal::Journal;

/// Of every lease that users fight for.
pub const NAMESPACE: &str = "chaos";

/// What a user is told to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Unique in a run.
    pub name: String,
    /// Repeats its choices; nothing else of a run repeats exactly.
    pub seed: u64,
    /// Numbers of operations and beliefs begin here, so that those of several processes differ.
    pub first_number: u64,
    /// Replicas, host:port.
    pub endpoints: Vec<String>,
    /// Takes down what it sees.
    pub journal: PathBuf,
    /// A resource that checks tokens.
    pub store: String,
    /// How many leases all users fight for.
    pub leases: u64,
    /// Of those leases, in milliseconds.
    pub durations: Vec<u64>,
    /// How much faster its clocks run than they should, in parts per million.
    pub skew_ppm: i64,
    /// For each call, all attempts together, in milliseconds.
    pub patience_ms: u64,
    /// Leases of its own that it never gives up, and their duration.
    pub keepers: u64,
    /// See `keepers`.
    pub keeper_ms: u64,
    /// What it does beside the usual.
    pub extras: Vec<Extra>,
}

/// What users do in some scenarios only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extra {
    /// Renewals, releases and repeats right at the end of short leases, several at once for one token.
    Races,
    /// The same request sent twice at once, through different replicas.
    Twins,
    /// Readers that stop reading, come back to long ago, or ask for the future.
    BadReaders,
}

/// Clocks that run too fast or too slow, at the same rate for all their life.
#[derive(Clone, Debug)]
struct Skewed {
    ppm: i64,
    origin: Readings,
}

impl Skewed {
    fn stretch(&self, length: u64) -> u64 {
        let length = i128::from(length);
        u64::try_from(length + length * i128::from(self.ppm) / 1_000_000).unwrap_or(0)
    }

    /// When the first of its clocks shows this: true time.
    fn when(&self, deadline: Readings) -> u64 {
        let real = |shown: u64, origin: u64| {
            let length = i128::from(shown.saturating_sub(origin)) * 1_000_000 / i128::from(1_000_000 + self.ppm);
            u64::try_from(length).unwrap_or(u64::MAX)
        };
        let boottime = real(deadline.boottime_ns, self.origin.boottime_ns);
        self.origin.boottime_ns + boottime.min(real(deadline.monotonic_raw_ns, self.origin.monotonic_raw_ns))
    }
}

impl Clock for Skewed {
    fn readings(&self) -> Readings {
        let now = SystemClock.readings();
        Readings {
            boottime_ns: self.origin.boottime_ns + self.stretch(now.boottime_ns.saturating_sub(self.origin.boottime_ns)),
            monotonic_raw_ns: self.origin.monotonic_raw_ns + self.stretch(now.monotonic_raw_ns.saturating_sub(self.origin.monotonic_raw_ns)),
        }
    }
}

/// What one task of the process works with.
struct Task {
    orders: Arc<Orders>,
    journal: Arc<Journal>,
    client: Client,
    clock: Skewed,
    ending: CancellationToken,
    /// Process and task: nobody else has it.
    name: String,
    rng: Rng,
}

/// The whole process.
///
/// # Errors
/// The journal cannot be written, or a task has failed in a way that no fault explains.
pub async fn run(orders: Orders) -> anyhow::Result<()> {
    let journal = Arc::new(Journal::create(&orders.journal, orders.first_number)?);
    let orders = Arc::new(orders);
    let clock = Skewed { ppm: orders.skew_ppm, origin: SystemClock.readings() };
    let ending = CancellationToken::new();
    let mut rng = Rng::of(orders.seed);
    let client = client(&orders, &clock, &mut rng)?;
    let mut task = |what: &str| Task {
        orders: Arc::clone(&orders),
        journal: Arc::clone(&journal),
        client: client.clone(),
        clock: clock.clone(),
        ending: ending.clone(),
        name: format!("{}-{what}", orders.name),
        rng: rng.fork(),
    };
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for at in 0..3 {
        tasks.spawn(hold(task(&format!("hold-{at}"))));
    }
    tasks.spawn(elect(task("elect")));
    for at in 0..4 {
        tasks.spawn(asking::ask(task(&format!("ask-{at}"))));
    }
    tasks.spawn(asking::read(task("read")));
    tasks.spawn(watching::watch(task("watch")));
    for at in 0..orders.keepers {
        tasks.spawn(keep(task(&format!("keep-{at}")), at));
    }
    for extra in &orders.extras {
        match extra {
            Extra::Races => (0..3).for_each(|at| drop(tasks.spawn(racing::race(task(&format!("race-{at}")))))),
            Extra::Twins => drop(tasks.spawn(racing::twins(task("twins")))),
            Extra::BadReaders => (0..2).for_each(|at| drop(tasks.spawn(watching::watch_badly(task(&format!("bad-reader-{at}")))))),
        }
    }
    // In a thread of its own, which nobody waits for.
    std::thread::spawn(move || {
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        ending.cancel();
    });
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn client(orders: &Orders, clock: &Skewed, rng: &mut Rng) -> anyhow::Result<Client> {
    let patience = Duration::from_millis(orders.patience_ms);
    let builder = Client::builder().endpoints(&orders.endpoints).seed(rng.bits()).clock(Arc::new(clock.clone()));
    Ok(builder.request_timeout(patience).attempt_timeout(Duration::from_millis(1_000)).connect_timeout(Duration::from_millis(500)).build()?)
}

impl Task {
    /// Between two lengths, in milliseconds.
    fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.rng.below(most - least))
    }

    /// So many times in a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    fn lease(&mut self) -> String {
        format!("lease-{}", self.rng.below(self.orders.leases))
    }

    fn duration(&mut self) -> Duration {
        let at = usize::try_from(self.rng.below(self.orders.durations.len() as u64)).unwrap_or(0);
        Duration::from_millis(self.orders.durations.get(at).copied().unwrap_or(1_000))
    }

    /// For holders and requests.
    fn fresh(&mut self) -> String {
        format!("{}-{:08x}", self.name, self.rng.bits() >> 32)
    }

    /// Until the process is to end, or for a while.
    async fn rest(&self, length: Duration) {
        tokio::select! {
            () = self.ending.cancelled() => {}
            () = tokio::time::sleep(length) => {}
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }
}

/// Leases as most programs use them: asked for, kept alive by the SDK, released or dropped.
async fn hold(mut task: Task) -> anyhow::Result<()> {
    while !task.is_ending() {
        let pause = task.between(1, 200);
        task.rest(pause).await;
        let (name, duration) = (task.lease(), task.duration());
        let mut asked = task.client.lease(name).namespace(NAMESPACE).duration(duration).holder(task.fresh());
        if task.chance(70) {
            asked = asked.wait_for(task.between(100, 4_000));
        }
        let mut asking = asked.ask()?;
        let patience = task.between(200, 6_000);
        let got = tokio::time::timeout(patience, async {
            loop {
                match asking.next().await {
                    Ok(Step::Held(lease)) => return Some(lease),
                    Ok(Step::Queued { .. }) => {}
                    Ok(Step::Denied(_)) | Err(_) => return None,
                }
            }
        });
        // Dropped in the middle: the SDK gives the place, or the grant, back.
        let Ok(Some(lease)) = got.await else { continue };
        let how_long = task.between(1, 2_000);
        believe(&task, &lease, how_long, Duration::from_millis(4)).await;
        if task.chance(70) {
            // If nobody answers, it runs out.
            drop(lease.release().await);
        }
    }
    Ok(())
}

/// One lease of its own, kept for as long as the process lives. A loss is worth a note: the scenario knows whether it is due.
async fn keep(task: Task, at: u64) -> anyhow::Result<()> {
    let name = format!("kept-{}-{at}", task.orders.name);
    while !task.is_ending() {
        let asked = task.client.lease(&name).namespace(NAMESPACE).duration(Duration::from_millis(task.orders.keeper_ms)).holder(&task.name).reclaim(true);
        let Ok(lease) = asked.acquire().await else {
            task.rest(Duration::from_millis(100)).await;
            continue;
        };
        believe(&task, &lease, Duration::MAX, Duration::from_millis(20)).await;
        if task.is_ending() {
            drop(lease.release().await);
        } else {
            let why = lease.lost_reason().map_or_else(|| "no reason".into(), |reason| format!("{reason}"));
            task.journal.record(What::Note { node: task.name.clone(), text: format!("{LOST}{name}: {why}") })?;
        }
    }
    Ok(())
}

/// Begins the note of a keeper that lost its lease.
pub(super) const LOST: &str = "lost ";

/// What is known of an acquire that was denied after an attempt of it had broken off.
pub(super) const MAY_ARRIVE: &str = "denied, but an earlier attempt may still arrive";

/// Elections, with a short term of office.
async fn elect(mut task: Task) -> anyhow::Result<()> {
    let election =
        LeaderElection::builder(&task.client, NAMESPACE, "election").identity(task.name.clone()).lease_duration(Duration::from_millis(1_500)).build()?;
    while !task.is_ending() {
        let patience = task.between(500, 8_000);
        let Ok(Ok(leadership)) = tokio::time::timeout(patience, election.campaign()).await else { continue };
        let how_long = task.between(100, 2_000);
        believe(&task, leadership.lease(), how_long, Duration::from_millis(4)).await;
        if task.chance(70) {
            drop(leadership.resign().await);
        } else {
            drop(leadership);
            task.rest(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Acts as holder for a while, and writes down from when to when; now and then it writes to the store, with its token.
async fn believe(task: &Task, lease: &Lease, how_long: Duration, every: Duration) {
    let (belief, begun) = (task.journal.number(), clock::now());
    let name = format!("{}/{}", lease.namespace(), lease.name());
    let (mut deadline, mut last, mut written) = (0, None, 0);
    let mut store = None;
    loop {
        // Read first: whatever pauses this process between the two can only make the believed time look shorter, and what is believed later than
        // the deadline would still show.
        let at = clock::now();
        if !lease.is_held() {
            break;
        }
        last = Some(at);
        let new = task.clock.when(lease.deadline());
        if new != deadline {
            deadline = new;
            let (lease, holder, token) = (name.clone(), lease.holder().to_owned(), lease.token());
            task.journal.record_at(at, What::Believe(Belief { belief, lease, holder, token, deadline })).ok();
        }
        if clock::since(begun) >= how_long || task.is_ending() {
            break;
        }
        tokio::time::sleep(every).await;
        // On purpose without looking again: that is what tokens are for.
        if clock::since(written) > Duration::from_millis(50) {
            written = clock::now();
            write(task, &mut store, &format!("{name} {} {}\n", lease.holder(), lease.token())).await;
        }
    }
    if let Some(last) = last {
        task.journal.record_at(last + 1, What::Doubt { belief }).ok();
    }
}

/// One line to the store, and its answer; it is near and answers at once, or is gone.
async fn write(task: &Task, store: &mut Option<BufReader<TcpStream>>, line: &str) {
    let attempt = async {
        if store.is_none() {
            *store = Some(BufReader::new(TcpStream::connect(&task.orders.store).await?));
        }
        let Some(open) = store.as_mut() else { return Ok(()) };
        open.get_mut().write_all(line.as_bytes()).await?;
        open.read_line(&mut String::new()).await.map(drop)
    };
    if !matches!(tokio::time::timeout(Duration::from_millis(500), attempt).await, Ok(Ok(()))) {
        *store = None;
    }
}
