//! Load with two books: everything goes into a [`History`] that `tenure-checker` judges, and into a [`Ledger`] that says, lease by lease, what was
//! acknowledged last. A worker never waits for a replica that is gone: it leaves the lease of which it does not know what came, and takes another.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tenure_checker::history::{Call, Outcome};
use tokio::task::JoinSet;

use crate::{
    Api, History, api,
    clock::{self, Rng},
    history::{released, state},
    replica::PATIENCE,
    v1,
};

/// For one answer.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// Longer than any test. Each renewal asks for a millisecond more, so that it can be told from the one before.
const HOLD_MS: u64 = 6 * 3_600_000;

/// A lease as the last acknowledgement left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// Nobody was told anything.
    #[default]
    Nothing,
    Held {
        token: u64,
        duration_ms: u64,
    },
    /// The hold with this token was released.
    Free {
        token: u64,
    },
}

impl Known {
    fn token(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Held { token, .. } | Self::Free { token } => token,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    known: Known,
    /// Of which nobody knows what came: what it would have made of it.
    open: Option<Known>,
}

/// What was acknowledged, lease by lease.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    leases: BTreeMap<String, Entry>,
    /// Calls that were acknowledged.
    pub acknowledged: u64,
    /// The largest that was seen.
    revision: u64,
}

impl Ledger {
    fn begin(&mut self, lease: &str, would_be: Known) {
        self.leases.entry(lease.to_owned()).or_default().open = Some(would_be);
    }

    fn end(&mut self, lease: &str, known: Known, revision: u64) {
        self.leases.insert(lease.to_owned(), Entry { known, open: None });
        self.acknowledged += 1;
        self.revision = self.revision.max(revision);
    }

    /// Adds what another knows, of other leases.
    pub fn merge(&mut self, other: Self) {
        self.leases.extend(other.leases);
        self.acknowledged += other.acknowledged;
        self.revision = self.revision.max(other.revision);
    }

    /// Nothing that was acknowledged is missing from what is there.
    pub fn verify(&self, there: &[v1::Lease], revision: u64) -> anyhow::Result<()> {
        let there: BTreeMap<&str, &v1::Lease> = there.iter().map(|lease| (lease.name.as_str(), lease)).collect();
        ensure!(revision >= self.revision, "it is at change {revision}, and {} was acknowledged", self.revision);
        for (name, entry) in &self.leases {
            let seen = there.get(name.as_str());
            let fits = |known: &Known| match (*known, seen) {
                (Known::Nothing, None) => true,
                (Known::Nothing, Some(lease)) => lease.token == 0,
                (_, None) => false,
                // A grant that nobody saw: it may have been given back since, or run out. Not an older one.
                (Known::Held { token: 0, .. }, Some(lease)) => lease.token > entry.known.token(),
                (Known::Held { token, duration_ms }, Some(lease)) => {
                    lease.state() == v1::lease::State::Held && lease.token == token && api::to_millis(lease.duration.as_ref()) == duration_ms
                }
                (Known::Free { token }, Some(lease)) => lease.state() == v1::lease::State::Free && lease.token == token,
            };
            ensure!(
                fits(&entry.known) || entry.open.as_ref().is_some_and(fits),
                "{name}: {entry:?} was acknowledged, and this is there: {:?}",
                seen.map(|lease| (lease.state(), lease.token, api::to_millis(lease.duration.as_ref())))
            );
        }
        Ok(())
    }

    /// As [`Self::verify`], of what a replica shows linearizably.
    pub async fn verify_at(&self, api: &Api, namespace: &str) -> anyhow::Result<()> {
        let leases = settled(|| api.list(namespace, "")).await.with_context(|| format!("list at {}", api.addr))?;
        let status = settled(|| api.status()).await?;
        self.verify(&leases, status.header.map_or(0, |header| header.revision)).with_context(|| format!("replica at {}", api.addr))
    }
}

/// Asks until there is an answer: a raft leader may just be changing.
pub async fn settled<T, F: Future<Output = Result<T, tonic::Status>>>(ask: impl Fn() -> F) -> anyhow::Result<T> {
    let begun = clock::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(5), ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) if !api::may_retry(&status) => return Err(status.into()),
            other => ensure!(clock::since(begun) < PATIENCE, "no answer: {:?}", other.map(|answer| answer.map(|_| ()))),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Workers that go on until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    workers: JoinSet<Ledger>,
}

#[derive(Clone)]
struct Shared {
    history: Arc<History>,
    replicas: Vec<Api>,
    namespace: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// `name` must be another for each load on a namespace: leases are named after it.
    #[must_use]
    pub fn spawn(history: &Arc<History>, replicas: &[Api], namespace: &str, name: &str, workers: usize, rng: &mut Rng) -> Self {
        let shared = Shared {
            history: Arc::clone(history),
            replicas: replicas.to_vec(),
            namespace: namespace.to_owned(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            tasks.spawn(shared.clone().work(format!("{name}-{worker}"), rng.fork()));
        }
        Self { stop: shared.stop, acknowledged: shared.acknowledged, workers: tasks }
    }

    /// Calls until now.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for so many more.
    pub async fn goes_on(&self, more: u64) -> anyhow::Result<()> {
        let (begun, from) = (clock::now(), self.acknowledged());
        while self.acknowledged() < from + more {
            ensure!(clock::since(begun) < PATIENCE, "only {} calls were acknowledged in {PATIENCE:?}", self.acknowledged() - from);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends it; what was acknowledged.
    pub async fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for part in self.workers.join_all().await {
            ledger.merge(part);
        }
        ledger
    }
}

impl Shared {
    async fn work(self, name: String, mut rng: Rng) -> Ledger {
        let mut ledger = Ledger::default();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let replica = rng.pick(&self.replicas).clone();
            if self.one_lease(&replica, &name, &format!("{name}-{number}"), &mut ledger, &mut rng).await.is_none() {
                // It may be gone, or have no raft leader.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        ledger
    }

    /// Grants, renewals and releases of one lease until it is enough, or until a call has no answer (`None`).
    async fn one_lease(&self, replica: &Api, client: &str, name: &str, ledger: &mut Ledger, rng: &mut Rng) -> Option<()> {
        let lease = format!("{}/{name}", self.namespace);
        let mut duration_ms = HOLD_MS;
        for turn in 0..1 + rng.below(8) {
            let holder = format!("{name}-{turn}");
            let call = Call::Acquire { lease: lease.clone(), holder: holder.clone(), request_id: String::new(), duration_ms, wait_ms: None, reclaim: false };
            let op = self.history.begin(client, call);
            ledger.begin(name, Known::Held { token: 0, duration_ms });
            let granted = tokio::time::timeout(ATTEMPT, replica.grant(api::acquire(&self.namespace, name, &holder, duration_ms))).await.ok()?.ok()?;
            self.history.end(op, Outcome::Granted { lease: state(&granted), must_renew: false, revision: 0 });
            self.acknowledge(ledger, name, Known::Held { token: granted.token, duration_ms }, granted.revision);
            for _ in 0..rng.below(6) {
                if self.stop.load(Ordering::Relaxed) {
                    return Some(());
                }
                duration_ms += 1;
                let op = self.history.begin(client, Call::Renew { lease: lease.clone(), token: granted.token, duration_ms: Some(duration_ms) });
                ledger.begin(name, Known::Held { token: granted.token, duration_ms });
                let item = v1::RenewItem { duration: api::millis(duration_ms), ..api::renewal(granted.token) };
                let answer = tokio::time::timeout(ATTEMPT, replica.renew(vec![item])).await.ok()?.ok()?;
                let Some(v1::renew_result::Result::Renewed(_)) = answer.results.first().and_then(|result| result.result.as_ref()) else {
                    self.history.refusal(format!("{lease}: {answer:?}"));
                    return None;
                };
                let revision = answer.header.map_or(0, |header| header.revision);
                self.history.end(op, Outcome::Renewed { duration_ms, revision });
                self.acknowledge(ledger, name, Known::Held { token: granted.token, duration_ms }, 0);
            }
            if rng.below(8) == 0 || self.stop.load(Ordering::Relaxed) {
                // Left held.
                return Some(());
            }
            let call = Call::Release { lease: lease.clone(), token: granted.token, holder: String::new(), request_id: String::new() };
            let op = self.history.begin(client, call);
            ledger.begin(name, Known::Free { token: granted.token });
            let answer = tokio::time::timeout(ATTEMPT, replica.release(&self.namespace, name, granted.token)).await.ok()?.ok()?;
            self.history.end(op, released(&answer));
            if answer.outcome() != v1::release_response::Outcome::Released {
                // Sent again inside the cluster, it may find that it is over.
                return None;
            }
            self.acknowledge(ledger, name, Known::Free { token: granted.token }, answer.lease.map_or(0, |lease| lease.revision));
        }
        Some(())
    }

    fn acknowledge(&self, ledger: &mut Ledger, name: &str, known: Known, revision: u64) {
        ledger.end(name, known, revision);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}
