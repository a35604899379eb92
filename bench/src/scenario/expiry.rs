//! How late leases end, on a cluster that has nothing else to do: from when a lease should have ended, counted from before it was asked for, to the
//! news of its end at a watch. So what a grant and a delivery take is in it, and the truth is a little better.
//!
//! A lease that ends before its time is an error.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use tenure_proto::v1::event::Type;
use tokio::{sync::oneshot, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    clock::{self, Moment},
    cluster::{Cluster, Target},
    connect,
    etcd::{self, pb::event::EventType},
    load::{histogram, nanos},
    report::Figure,
    tenure,
};

/// Leases at a time.
const TOGETHER: usize = 40;
const PATIENCE: Duration = Duration::from_secs(30);
const PREFIX: &str = "tenure-bench/expires-";
/// Tenure counts milliseconds of its own, which begin somewhere within ours.
const ROUNDING: Duration = Duration::from_millis(2);

struct Shared {
    target: Target,
    /// Who wants to know of which end.
    waiting: RefCell<HashMap<String, oneshot::Sender<Moment>>>,
    lateness: RefCell<Histogram<u64>>,
    begun: Cell<usize>,
    times: usize,
}

pub(super) async fn run(what: String, cluster: &Cluster, times: usize) -> anyhow::Result<Figure> {
    let channels = connect::channels(&cluster.endpoints(), 3).await?;
    let lateness = RefCell::new(histogram()?);
    let shared = Rc::new(Shared { target: cluster.target, waiting: RefCell::default(), lateness, begun: Cell::new(0), times });
    let (mut tasks, mut holders) = (JoinSet::new(), JoinSet::new());
    match cluster.target {
        Target::Tenure => tasks.spawn_local(watch_tenure(tenure::watch::Watch::open(channels[1].clone(), Some(tenure::NAMESPACE)).await?, Rc::clone(&shared))),
        Target::Etcd => tasks.spawn_local(watch_etcd(etcd::watch::Watch::open(channels[1].clone(), PREFIX).await?, Rc::clone(&shared))),
    };
    for n in 0..TOGETHER.min(times) {
        holders.spawn_local(hold(channels[n % channels.len()].clone(), n, Rc::clone(&shared)));
    }
    while !holders.is_empty() {
        tokio::select! {
            Some(ended) = holders.join_next() => ended??,
            Some(ended) = tasks.join_next() => ended??,
        }
    }
    let lateness = shared.lateness.replace(histogram()?);
    Ok(Figure::of_times(what, cluster.target, lateness))
}

/// One lease after the other, none of them renewed.
async fn hold(channel: Channel, who: usize, shared: Rc<Shared>) -> anyhow::Result<()> {
    loop {
        let n = shared.begun.get();
        if n == shared.times {
            return Ok(());
        }
        shared.begun.set(n + 1);
        // Spread, so that they do not end together; etcd knows whole seconds, two at the least.
        let spread = Duration::from_millis((n as u64 * 37) % 1000);
        let name = format!("expires-{who}-{n}");
        let (tell, over) = oneshot::channel();
        shared.waiting.borrow_mut().insert(name.clone(), tell);
        let (sent, length) = match shared.target {
            Target::Tenure => {
                let (sent, length) = (clock::now(), Duration::from_secs(1) + spread);
                tenure::acquire(&mut tenure::Client::new(channel.clone()), &name, length).await?;
                (sent, length)
            }
            Target::Etcd => {
                tokio::time::sleep(spread).await;
                let (sent, length) = (clock::now(), Duration::from_secs(2));
                let lease = etcd::grant(&channel, length).await?;
                etcd::put(&channel, format!("tenure-bench/{name}"), lease).await?;
                (sent, length)
            }
        };
        let ended = tokio::time::timeout(PATIENCE, over).await.with_context(|| format!("{name} did not end within {PATIENCE:?}"))??;
        let lasted = sent.until(ended);
        ensure!(lasted + ROUNDING >= length, "{name} ended after {lasted:?} of {length:?}");
        shared.lateness.borrow_mut().record(nanos(lasted.saturating_sub(length))?)?;
    }
}

impl Shared {
    fn ended(&self, name: &str) {
        if let Some(tell) = self.waiting.borrow_mut().remove(name) {
            tell.send(clock::now()).ok();
        }
    }
}

async fn watch_tenure(mut watch: tenure::watch::Watch, shared: Rc<Shared>) -> anyhow::Result<()> {
    loop {
        for event in watch.next().await? {
            match (event.r#type(), &event.lease) {
                (Type::Expired, Some(lease)) => shared.ended(&lease.name),
                (Type::Created | Type::Acquired | Type::Deleted, _) => {}
                (other, _) => bail!("nobody asked for this: {other:?} of {:?}", event.lease),
            }
        }
    }
}

async fn watch_etcd(mut watch: etcd::watch::Watch, shared: Rc<Shared>) -> anyhow::Result<()> {
    loop {
        for event in watch.next().await? {
            let key = &event.kv.as_ref().context("an event of a key")?.key;
            if event.r#type() == EventType::Delete {
                shared.ended(std::str::from_utf8(key)?.strip_prefix("tenure-bench/").context("a key of ours")?);
            }
        }
    }
}
