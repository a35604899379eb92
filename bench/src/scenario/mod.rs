//! What is measured: each case on a cluster of either kind, ending in figures.

mod expiry;
mod failover;
mod fanout;
mod mass;
mod million;
mod reads;
mod restart;
mod steady;
mod storm;

use std::time::Duration;

use anyhow::bail;

pub(crate) use self::{fanout::Fanout, million::Size};
use crate::{
    cluster::{Cluster, Target},
    etcd,
    load::Plan,
    report::Figure,
    tenure,
};

/// What is measured, and of how much.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Case {
    /// Durable renewals on streams of their own; in etcd, transactions of so many records.
    Renew { streams: usize, connections: usize, leases: usize },
    /// Likewise, each on a stream of its own.
    RenewUnary { clients: usize, connections: usize },
    /// Of etcd only: not durable.
    KeepAlive { streams: usize, connections: usize },
    /// Acquire and release; lock and unlock.
    Pair { clients: usize, connections: usize },
    /// One lease that all but one wait for.
    Contend { waiters: usize, connections: usize, claim: bool },
    /// `kill -9` of the raft leader.
    Failover { times: usize },
    /// Raft leadership is handed over as planned.
    Transfer { times: usize },
    /// How late leases end when there is nothing else to do.
    Expiry { times: usize },
    /// So many leases whose time is over at once.
    Mass { leases: usize },
    /// So many leases acquired as fast as may be.
    Storm { leases: usize },
    /// So many live leases.
    Million(Size),
    /// `kill -9` of all members that have so many leases.
    Restart { leases: usize },
    /// Many watchers.
    Fanout(Fanout),
    /// Reads of one, of a label, of all, among so many.
    Reads { leases: usize },
}

impl Case {
    /// Whether there is such a thing there.
    pub(crate) fn is_for(&self, target: Target) -> bool {
        match self {
            Self::KeepAlive { .. } => target == Target::Etcd,
            // As many operations as etcd takes in a transaction at its defaults.
            Self::Renew { leases, .. } => target == Target::Tenure || *leases <= 128,
            Self::RenewUnary { .. } | Self::Million(_) | Self::Restart { .. } => target == Target::Tenure,
            Self::Contend { claim, .. } => target == Target::Tenure || *claim,
            _ => true,
        }
    }

    /// What it is, there.
    pub(crate) fn what(&self, target: Target) -> String {
        let tenure = target == Target::Tenure;
        // No more connections than clients.
        let on = |clients: usize, connections: usize| match connections.min(clients) {
            1 => "1 connection".to_owned(),
            several => format!("{several} connections"),
        };
        match self {
            Self::Renew { streams, connections, leases } if tenure => {
                format!("renew, streams: {streams} on {}, leases a message: {leases}", on(*streams, *connections))
            }
            Self::Renew { streams, connections, leases } => {
                format!("compare + put, clients: {streams} on {}, records a transaction: {leases}", on(*streams, *connections))
            }
            Self::RenewUnary { clients, connections } => format!("renew, a stream for each renewal, clients: {clients} on {}", on(*clients, *connections)),
            Self::KeepAlive { streams, connections } => format!("LeaseKeepAlive (not durable), streams: {streams} on {}", on(*streams, *connections)),
            Self::Pair { clients, connections } => {
                format!("{}, clients: {clients} on {}", if tenure { "acquire + release" } else { "lock + unlock" }, on(*clients, *connections))
            }
            Self::Contend { waiters, connections, claim } => {
                let how = match (tenure, claim) {
                    (true, true) => "release to the next one's claim",
                    (true, false) => "release to the next one's grant",
                    (false, _) => "unlock to the next one's lock",
                };
                format!("{how}, waiting: {waiters}, on {}", on(waiters + 1, *connections))
            }
            Self::Failover { times } => format!("kill -9 of the raft leader to the next write, {times} times"),
            Self::Transfer { times } => format!("planned transfer of raft leadership: time without a write, {times} times"),
            Self::Expiry { times } => format!("end of a lease, counted from before it was asked for, to the news of it, {times} times"),
            Self::Mass { leases } => format!("{leases} leases that end in one moment; latency is of the renewals of others meanwhile"),
            Self::Storm { leases } if tenure => format!("{leases} leases acquired, {} at a time", tenure::storm::TOGETHER),
            Self::Storm { leases } => format!("{leases} leases granted and records put with them, {} at a time", etcd::storm::TOGETHER),
            Self::Million(size) => format!(
                "{} live leases, each renewed every {:.0} s for {:.0} s; latency is of their messages",
                size.leases,
                size.every.as_secs_f64(),
                size.steady.as_secs_f64()
            ),
            Self::Restart { leases } => format!("kill -9 of all members, with {leases} leases, and a start"),
            Self::Fanout(Fanout { watchers, of_everything, rate }) => {
                format!("{watchers} watchers of a namespace each, {of_everything} of all, {rate} changes a second; latency is of the news")
            }
            Self::Reads { leases } => format!("get, 64 clients on 16 connections, among {leases} leases; select and list are whole lists in pages of 1,000"),
        }
    }

    /// Measures it.
    pub(crate) async fn run(&self, cluster: &mut Cluster, plan: Plan) -> anyhow::Result<Figure> {
        let target = cluster.target;
        if !self.is_for(target) {
            bail!("{target} has no such thing: {}", self.what(Target::Tenure));
        }
        let (what, before) = (self.what(target), if self.elects() { None } else { cluster.term().await? });
        let mut figure = self.figure(what, cluster, plan).await?;
        if let Some(before) = before {
            // Nobody asked for any.
            figure.values.extend(cluster.term().await?.map(|now| ("elections", (now - before) as f64)));
        }
        Ok(figure)
    }

    /// Whether elections are a part of it.
    fn elects(&self) -> bool {
        matches!(self, Self::Failover { .. } | Self::Transfer { .. } | Self::Million(_) | Self::Restart { .. })
    }

    async fn figure(&self, what: String, cluster: &mut Cluster, plan: Plan) -> anyhow::Result<Figure> {
        let target = cluster.target;
        match *self {
            Self::Renew { .. } | Self::RenewUnary { .. } | Self::KeepAlive { .. } | Self::Pair { .. } | Self::Contend { .. } => {
                let loaded = steady::run(self, cluster, plan).await?;
                let each = if let Self::Renew { leases, .. } = self { *leases as u64 } else { 1 };
                Ok(Figure::of_load(what, target, &loaded, each))
            }
            Self::Failover { times } => failover::run(what, cluster, times, failover::Fault::Kill).await,
            Self::Transfer { times } => failover::run(what, cluster, times, failover::Fault::Transfer).await,
            Self::Expiry { times } => expiry::run(what, cluster, times).await,
            Self::Mass { leases } => mass::run(what, cluster, leases).await,
            Self::Storm { leases } => storm::run(what, cluster, leases).await,
            Self::Million(size) => million::run(what, cluster, size, plan).await,
            Self::Restart { leases } => restart::run(what, cluster, leases).await,
            Self::Fanout(size) => fanout::run(what, cluster, size, plan).await,
            Self::Reads { leases } => reads::run(what, cluster, leases, plan).await,
        }
    }
}

/// Of leases that must not run out while they are used.
const LONG: Duration = Duration::from_secs(3600);
