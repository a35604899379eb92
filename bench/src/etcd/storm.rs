//! Many records, with leases or without, as fast as etcd takes them.

use std::{cell::Cell, rc::Rc, time::Duration};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{
    grant,
    pb::{LeaseKeepAliveRequest, lease_client::LeaseClient},
    put,
};
use crate::{
    clock::{self, Moment},
    connect,
    load::{histogram, nanos},
};

const CONNECTIONS: usize = 16;
/// Records under way at once.
pub(crate) const TOGETHER: usize = 256;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Storm {
    /// Of the leases; of each grant and put.
    pub(crate) leases: Vec<i64>,
    pub(crate) latency: Histogram<u64>,
    pub(crate) time: Duration,
}

/// Puts so many records, each with a lease of its own if `ttl` says for how long: then it is two writes, a grant and a put.
pub(crate) async fn put_all(endpoints: &[String], count: usize, ttl: Option<Duration>, key: impl Fn(usize) -> String + 'static) -> anyhow::Result<Storm> {
    let (channels, mut workers, begun) = (connect::channels(endpoints, CONNECTIONS).await?, JoinSet::new(), clock::now());
    let (key, next) = (Rc::new(key), Rc::new(Cell::new(0)));
    for n in 0..TOGETHER.min(count) {
        let (channel, key, next) = (channels[n % channels.len()].clone(), Rc::clone(&key), Rc::clone(&next));
        workers.spawn_local(async move {
            let (mut leases, mut latency) = (Vec::new(), histogram()?);
            while next.get() < count {
                let n = next.replace(next.get() + 1);
                let sent = clock::now();
                let lease = match ttl {
                    Some(ttl) => grant(&channel, ttl).await?,
                    None => 0,
                };
                put(&channel, key(n), lease).await?;
                latency.record(nanos(sent.passed())?)?;
                leases.push(lease);
            }
            anyhow::Ok((leases, latency))
        });
    }
    let (mut leases, mut latency) = (Vec::with_capacity(count), histogram()?);
    while let Some(done) = workers.join_next().await {
        let (some, of_them) = done??;
        leases.extend(some);
        latency.add(of_them)?;
    }
    Ok(Storm { leases, latency, time: begun.passed() })
}

/// Keeps them all alive once, as fast as that goes: from when to when it took.
pub(crate) async fn keep_all(endpoints: &[String], leases: &[i64]) -> anyhow::Result<(Moment, Moment)> {
    let (channels, mut streams, begun) = (connect::channels(endpoints, CONNECTIONS).await?, JoinSet::new(), clock::now());
    for (channel, some) in channels.into_iter().zip(leases.chunks(leases.len().div_ceil(CONNECTIONS))) {
        streams.spawn_local(keep(channel, some.to_vec()));
    }
    while let Some(done) = streams.join_next().await {
        done??;
    }
    Ok((begun, clock::now()))
}

async fn keep(channel: Channel, leases: Vec<i64>) -> anyhow::Result<()> {
    let requests: Vec<_> = leases.iter().map(|id| LeaseKeepAliveRequest { id: *id }).collect();
    let mut answers = LeaseClient::new(channel).lease_keep_alive(tokio_stream::iter(requests)).await?.into_inner();
    for id in leases {
        let answer = answers.message().await?.context("the stream of keep-alives has ended")?;
        ensure!(answer.id == id && answer.ttl > 0, "not kept alive: {answer:?}");
    }
    Ok(())
}
