//! Clients that do the same again and again.

use anyhow::{bail, ensure};

use super::{Case, LONG};
use crate::{
    cluster::{Cluster, Target},
    connect, etcd,
    exclusive::Exclusive,
    load::{self, Loaded, Plan},
    tenure,
};

pub(super) async fn run(case: &Case, cluster: &Cluster, plan: Plan) -> anyhow::Result<Loaded> {
    match cluster.target {
        Target::Tenure => on_tenure(case, cluster, plan).await,
        Target::Etcd => on_etcd(case, cluster, plan).await,
    }
}

async fn on_tenure(case: &Case, cluster: &Cluster, plan: Plan) -> anyhow::Result<Loaded> {
    let endpoints = cluster.endpoints();
    match *case {
        Case::Renew { streams, connections, leases } => {
            let channels = connect::channels(&endpoints, connections.min(streams)).await?;
            let mut ops = Vec::new();
            for (channel, tokens) in tenure::renew::tokens(&channels, streams, leases, LONG).await? {
                ops.push(tenure::renew::Renewals::open(channel, &tokens).await?);
            }
            load::run(ops, plan, cluster).await
        }
        Case::RenewUnary { clients, connections } => {
            let channels = connect::channels(&endpoints, connections.min(clients)).await?;
            let holders = tenure::renew::tokens(&channels, clients, 1, LONG).await?;
            let unary = |(channel, tokens): (_, Vec<u64>)| tenure::renew::Unary { client: tenure::Client::new(channel), token: tokens[0] };
            load::run(holders.into_iter().map(unary).collect(), plan, cluster).await
        }
        Case::Pair { clients, connections } => {
            let channels = connect::channels(&endpoints, connections.min(clients)).await?;
            let pair = |n: usize| tenure::pair::Pair { client: tenure::Client::new(channels[n % channels.len()].clone()), name: format!("pair-{n}") };
            load::run((0..clients).map(pair).collect(), plan, cluster).await
        }
        Case::Contend { waiters, connections, claim } => {
            let channels = connect::channels(&endpoints, connections.min(waiters + 1)).await?;
            let (lease, mut ops) = (Exclusive::default(), Vec::new());
            for n in 0..=waiters {
                ops.push(tenure::contend::Contender::new(channels[n % channels.len()].clone(), &lease, n, claim).await?);
            }
            load::run(ops, plan, cluster).await
        }
        _ => bail!("not a steady load: {case:?}"),
    }
}

async fn on_etcd(case: &Case, cluster: &Cluster, plan: Plan) -> anyhow::Result<Loaded> {
    let endpoints = cluster.endpoints();
    match *case {
        Case::Renew { streams, connections, leases } => {
            let channels = connect::channels(&endpoints, connections.min(streams)).await?;
            let mut ops = Vec::new();
            for n in 0..streams {
                ops.push(etcd::renew::Durable::new(channels[n % channels.len()].clone(), n, leases).await?);
            }
            load::run(ops, plan, cluster).await
        }
        Case::KeepAlive { streams, connections } => {
            let channels = connect::channels(&endpoints, connections.min(streams)).await?;
            let mut ops = Vec::new();
            for n in 0..streams {
                ops.push(etcd::renew::KeepAlive::open(channels[n % channels.len()].clone(), LONG).await?);
            }
            load::run(ops, plan, cluster).await
        }
        Case::Pair { clients, connections } => {
            let channels = connect::channels(&endpoints, connections.min(clients)).await?;
            let mut ops = Vec::new();
            for n in 0..clients {
                ops.push(etcd::lock::Locker::alone(channels[n % channels.len()].clone(), &format!("tenure-bench/pair-{n}")).await?);
            }
            load::run(ops, plan, cluster).await
        }
        Case::Contend { waiters, connections, claim } => {
            ensure!(claim, "etcd's locks need no claim");
            let channels = connect::channels(&endpoints, connections.min(waiters + 1)).await?;
            let (lock, mut ops) = (Exclusive::default(), Vec::new());
            for n in 0..=waiters {
                ops.push(etcd::lock::Locker::contending(channels[n % channels.len()].clone(), &lock, n).await?);
            }
            load::run(ops, plan, cluster).await
        }
        _ => bail!("not a steady load: {case:?}"),
    }
}
