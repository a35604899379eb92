//! Many watchers, most of whom care for little of what happens: how far behind they are, and what they cost those who renew.
//!
//! Behind is counted from before a change was asked for to its news at the watcher. Every watcher must get every change of its namespace, once, in order.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tenure_proto::v1::{AcquireRequest, ReleaseRequest, release_response::Outcome};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::LONG;
use crate::{
    clock::{self, Moment},
    cluster::{Cluster, Target},
    connect, etcd,
    load::{Op, Plan, Running, histogram, nanos},
    report::Figure,
    tenure,
};

const NAMESPACES: usize = 1_000;
const NAME: &str = "watched";
const CONNECTIONS: usize = 16;
/// Who change something.
const CHANGERS: usize = 50;
const RENEWERS: usize = 64;
/// Watches that are being opened at a time.
const OPENING: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fanout {
    /// Each of one namespace in a thousand.
    pub(crate) watchers: usize,
    /// Of all of them.
    pub(crate) of_everything: usize,
    /// Changes a second.
    pub(crate) rate: u32,
}

#[derive(Default)]
struct Shared {
    /// When each change was asked for, by its revision.
    changes: RefCell<HashMap<u64, Moment>>,
    /// So many in each namespace.
    counts: RefCell<Vec<u64>>,
    /// What watchers heard of, and when.
    news: RefCell<Vec<(u64, Moment)>>,
    heard: Cell<u64>,
}

pub(super) async fn run(what: String, cluster: &Cluster, size: Fanout, plan: Plan) -> anyhow::Result<Figure> {
    let channels = connect::channels(&cluster.endpoints(), CONNECTIONS).await?;
    let shared = Rc::new(Shared { counts: RefCell::new(vec![0; NAMESPACES]), ..Default::default() });
    let mut changers = changers(cluster.target, &channels, &shared);
    // Create what will be watched, so that afterwards one call is one change.
    for changer in &mut changers {
        for _ in 0..2 * NAMESPACES / CHANGERS {
            changer.once().await?;
        }
    }
    let without = phase(cluster, &channels, changers, size, plan).await?;
    shared.changes.take();
    shared.counts.replace(vec![0; NAMESPACES]);
    let mut watchers = watchers(cluster.target, &channels, size, &shared).await?;
    eprintln!("  {} watchers; {:.0} renewals a second without them", watchers.len(), without.renewals_per_second);
    let changers = self::changers(cluster.target, &channels, &shared);
    let with = tokio::select! {
        with = phase(cluster, &channels, changers, size, plan) => with?,
        Some(ended) = watchers.join_next() => anyhow::bail!("a watch has ended: {ended:?}"),
    };
    let expected = {
        let counts = shared.counts.borrow();
        let all: u64 = counts.iter().sum();
        (0..size.watchers).map(|n| counts[n % NAMESPACES]).sum::<u64>() + all * size.of_everything as u64
    };
    let begun = clock::now();
    while shared.heard.get() < expected {
        ensure!(begun.passed() < PATIENCE, "watchers heard of {} changes of {expected}", shared.heard.get());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    watchers.shutdown().await;
    ensure!(shared.heard.get() == expected, "watchers heard of {} changes of {expected}", shared.heard.get());
    let (changes, mut behind) = (shared.changes.borrow(), histogram()?);
    for (revision, heard) in shared.news.borrow().iter() {
        let asked = changes.get(revision).with_context(|| format!("nobody made change {revision}"))?;
        behind.record(nanos(asked.until(*heard))?)?;
    }
    // The latency is that of the news.
    let mut figure = Figure::of_times(what, cluster.target, behind);
    figure.values.extend([
        ("changes_per_second", with.changes_per_second),
        ("news_per_second", expected as f64 / with.time.as_secs_f64()),
        ("renewals_per_second_without", without.renewals_per_second),
        ("renewals_per_second_with", with.renewals_per_second),
        ("renewals_kept", with.renewals_per_second / without.renewals_per_second),
    ]);
    Ok(figure)
}

struct Phase {
    time: Duration,
    changes_per_second: f64,
    renewals_per_second: f64,
}

/// Changes at their rate, and renewals as fast as they are answered.
async fn phase(cluster: &Cluster, channels: &[Channel], changers: Vec<Changer>, size: Fanout, plan: Plan) -> anyhow::Result<Phase> {
    let mut renewals = renewals(cluster.target, channels).await?;
    let mut changes = Running::start(changers, Some(f64::from(size.rate)))?;
    let begun = changes.begin();
    renewals.on_until(changes.on_for(plan.warm_up)).await??;
    let counting = renewals.begin();
    renewals.on_until(changes.on_for(plan.time)).await??;
    let renewals_per_second = renewals.take()?.len() as f64 / counting.passed().as_secs_f64();
    let (time, changed) = (begun.passed(), changes.take()?.len());
    changes.end().await?;
    renewals.end().await?;
    Ok(Phase { time, changes_per_second: changed as f64 / time.as_secs_f64(), renewals_per_second })
}

async fn renewals(target: Target, channels: &[Channel]) -> anyhow::Result<Running> {
    match target {
        Target::Tenure => {
            let mut ops = Vec::new();
            for (channel, tokens) in tenure::renew::tokens(channels, RENEWERS, 1, LONG).await? {
                ops.push(tenure::renew::Renewals::open(channel, &tokens).await?);
            }
            Running::start(ops, None)
        }
        Target::Etcd => {
            let mut ops = Vec::new();
            for n in 0..RENEWERS {
                ops.push(etcd::renew::Durable::new(channels[n % channels.len()].clone(), n, 1).await?);
            }
            Running::start(ops, None)
        }
    }
}

/// Changes one thing after the other in the namespaces that are its own.
struct Changer {
    target: Target,
    channel: Channel,
    shared: Rc<Shared>,
    namespaces: Vec<usize>,
    next: usize,
    /// Held now, of each.
    tokens: Vec<Option<u64>>,
}

fn changers(target: Target, channels: &[Channel], shared: &Rc<Shared>) -> Vec<Changer> {
    let changer = |n: usize| {
        let namespaces: Vec<usize> = (n..NAMESPACES).step_by(CHANGERS).collect();
        let tokens = vec![None; namespaces.len()];
        Changer { target, channel: channels[n % channels.len()].clone(), shared: Rc::clone(shared), namespaces, next: 0, tokens }
    };
    (0..CHANGERS).map(changer).collect()
}

fn name_of(namespace: usize) -> String {
    format!("fan-{namespace:03}")
}

impl Changer {
    /// Acquires or releases; the revision of that.
    async fn on_tenure(&mut self, at: usize) -> anyhow::Result<u64> {
        let (mut client, namespace) = (tenure::Client::new(self.channel.clone()), name_of(self.namespaces[at]));
        if let Some(token) = self.tokens[at].take() {
            let request = ReleaseRequest { namespace, name: NAME.to_owned(), token, ..Default::default() };
            let released = client.release(request).await?.into_inner();
            ensure!(released.outcome() == Outcome::Released, "not released: {released:?}");
            return Ok(released.lease.context("a lease")?.revision);
        }
        let holder = tenure::HOLDER.to_owned();
        let request = AcquireRequest { namespace, name: NAME.to_owned(), holder, duration: tenure::duration(LONG)?, reclaim: true, ..Default::default() };
        let token = tenure::granted(&mut client, request).await?;
        self.tokens[at] = Some(token);
        Ok(token)
    }

    async fn on_etcd(&self, at: usize) -> anyhow::Result<u64> {
        etcd::put(&self.channel, format!("{}/{NAME}", name_of(self.namespaces[at])), 0).await
    }
}

impl Op for Changer {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        let at = self.next;
        self.next = (at + 1) % self.namespaces.len();
        let asked = clock::now();
        let revision = match self.target {
            Target::Tenure => self.on_tenure(at).await?,
            Target::Etcd => self.on_etcd(at).await?,
        };
        self.shared.changes.borrow_mut().insert(revision, asked);
        self.shared.counts.borrow_mut()[self.namespaces[at]] += 1;
        Ok(None)
    }
}

enum AnyWatch {
    Tenure(tenure::watch::Watch),
    Etcd(etcd::watch::Watch),
}

impl AnyWatch {
    async fn open(target: Target, channel: Channel, namespace: Option<usize>) -> anyhow::Result<Self> {
        Ok(match (target, namespace) {
            (Target::Tenure, Some(namespace)) => Self::Tenure(tenure::watch::Watch::open(channel, Some(&name_of(namespace))).await?),
            (Target::Tenure, None) => Self::Tenure(tenure::watch::Watch::open(channel, None).await?),
            (Target::Etcd, Some(namespace)) => Self::Etcd(etcd::watch::Watch::open(channel, &format!("{}/", name_of(namespace))).await?),
            (Target::Etcd, None) => Self::Etcd(etcd::watch::Watch::open(channel, "fan-").await?),
        })
    }

    /// Revisions of the next changes in the watched namespaces.
    async fn next(&mut self) -> anyhow::Result<Vec<u64>> {
        Ok(match self {
            Self::Tenure(watch) => {
                let ours = |event: &tenure_proto::v1::Event| event.lease.as_ref().is_some_and(|lease| lease.name == NAME);
                watch.next().await?.iter().filter(|event| ours(event)).map(|event| event.revision).collect()
            }
            Self::Etcd(watch) => watch.next().await?.into_iter().filter_map(|event| u64::try_from(event.kv?.mod_revision).ok()).collect(),
        })
    }
}

/// Opens them all, and lets them listen.
async fn watchers(target: Target, channels: &[Channel], size: Fanout, shared: &Rc<Shared>) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let (mut opening, mut listening) = (JoinSet::new(), JoinSet::new());
    let namespaces = (0..size.watchers).map(|n| Some(n % NAMESPACES)).chain((0..size.of_everything).map(|_| None));
    for (n, namespace) in namespaces.enumerate() {
        if opening.len() >= OPENING {
            listen(opening.join_next().await.context("is being opened")???, shared, &mut listening);
        }
        opening.spawn_local(AnyWatch::open(target, channels[n % channels.len()].clone(), namespace));
    }
    while let Some(opened) = opening.join_next().await {
        listen(opened??, shared, &mut listening);
    }
    Ok(listening)
}

fn listen(mut watch: AnyWatch, shared: &Rc<Shared>, listening: &mut JoinSet<anyhow::Result<()>>) {
    let shared = Rc::clone(shared);
    listening.spawn_local(async move {
        loop {
            let revisions = watch.next().await?;
            let now = clock::now();
            shared.heard.set(shared.heard.get() + revisions.len() as u64);
            shared.news.borrow_mut().extend(revisions.into_iter().map(|revision| (revision, now)));
        }
    });
}
