//! Streams that stay: waiters, watches, renewal streams; read or not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{
    Orders, Told,
    line::{From, Line, Windows, connect, drain, framed, send_all},
};
use crate::{
    api::{self, seconds},
    v1,
};

const WATCH: &str = "/tenure.v1.LeaseService/Watch";
const ACQUIRE: &str = "/tenure.v1.LeaseService/Acquire";
const RENEW: &str = "/tenure.v1.LeaseService/Renew";
/// After a stream or a connection has ended before the attack has.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Below what a connection of the client port may have, so that none waits for another's end.
const STREAMS: usize = 1_000;

/// Many streams of one kind.
struct Held {
    addrs: Vec<String>,
    streams: usize,
    windows: Windows,
    path: &'static str,
}

#[derive(Debug, Default)]
struct Seen {
    begun: AtomicU64,
    ended: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

impl Seen {
    fn told(&self, what: &str) -> Told {
        let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let mib = number(&self.bytes) >> 20;
        Told::of(format!("{} {what} begun, {} of them refused, {} ended, {mib} MiB read", number(&self.begun), number(&self.refused), number(&self.ended)))
    }
}

impl Held {
    /// Begins them all and keeps them until the attack is over, or until the connections are cut; begins anew what ends before.
    async fn hold(self, orders: &Orders, cut_after: Option<Duration>, make: impl Fn(usize) -> Bytes + Send + Sync + 'static) -> Arc<Seen> {
        let (seen, make) = (Arc::<Seen>::default(), Arc::new(make));
        let mut tasks = JoinSet::new();
        for first in (0..self.streams).step_by(STREAMS) {
            let (addr, windows, path) = (self.addrs[first / STREAMS % self.addrs.len()].clone(), self.windows, self.path);
            let numbers = first..self.streams.min(first + STREAMS);
            let (seen, make) = (Arc::clone(&seen), Arc::clone(&make));
            tasks.spawn(async move {
                loop {
                    if let Ok(stream) = connect(&addr, From::OneHost).await
                        && let Ok(line) = Line::with(stream, windows).await
                    {
                        on(&line, path, numbers.clone(), &seen, &make).await;
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            });
        }
        match cut_after {
            Some(after) => {
                tokio::time::sleep(after.min(orders.left())).await;
                tasks.shutdown().await;
                orders.end().await;
            }
            None => orders.end().await,
        }
        seen
    }
}

/// All streams of one connection, until it ends.
async fn on<M: Fn(usize) -> Bytes + Send + Sync + 'static>(line: &Line, path: &'static str, numbers: std::ops::Range<usize>, seen: &Arc<Seen>, make: &Arc<M>) {
    let mut tasks = JoinSet::new();
    for number in numbers {
        let (line, seen, make) = (line.clone(), Arc::clone(seen), Arc::clone(make));
        tasks.spawn(async move {
            while !line.ended() {
                if let Ok((response, mut body)) = line.begin(path, &[], false).await {
                    seen.begun.fetch_add(1, Ordering::Relaxed);
                    if body.send_data(make(number), true).is_ok()
                        && let Ok((bytes, code)) = drain(response).await
                    {
                        seen.bytes.fetch_add(bytes, Ordering::Relaxed);
                        if code != 0 {
                            seen.refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    seen.ended.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Watches that want the whole list first, on one connection that takes nothing of any answer.
pub(crate) async fn watches_unread(orders: Orders) -> anyhow::Result<Told> {
    let held = Held { addrs: vec![orders.leader_client().to_owned()], streams: 100, windows: Windows::NONE, path: WATCH };
    let request = v1::WatchRequest { namespace: orders.filled.clone(), send_initial: true, ..Default::default() };
    let message = framed(&request);
    Ok(held.hold(&orders, None, move |_| message.clone()).await.told("watches"))
}

/// 32,768 watches of everything, renewals too, by one client that reads them.
pub(crate) async fn watches_of_renewals(orders: Orders) -> anyhow::Result<Told> {
    let held = Held { addrs: vec![orders.leader_client().to_owned()], streams: 32_768, windows: Windows::USUAL, path: WATCH };
    let message = framed(&v1::WatchRequest { all_namespaces: true, include_renewals: true, ..Default::default() });
    Ok(held.hold(&orders, None, move |_| message.clone()).await.told("watches"))
}

/// Waiters of one client: so many, over so many leases that somebody else holds.
async fn waiters(orders: &Orders, waiters: usize, leases: usize, cut_after: Option<Duration>) -> anyhow::Result<Told> {
    let line = Line::open(orders.leader_client()).await?;
    for lease in 0..leases {
        let request = api::acquire("waited-for", &format!("lease-{lease}"), "holder", 600_000);
        line.ask::<v1::AcquireResponse>(ACQUIRE, &request).await?;
    }
    let held = Held { addrs: vec![orders.leader_client().to_owned()], streams: waiters, windows: Windows::USUAL, path: ACQUIRE };
    let make = move |number: usize| {
        let name = format!("lease-{}", number % leases);
        framed(&v1::AcquireRequest { wait_for: seconds(3_600), ..api::acquire("waited-for", &name, &format!("waiter-{number}"), 60_000) })
    };
    Ok(held.hold(orders, cut_after, make).await.told("waiters"))
}

/// 10,000 waiters on one lease.
pub(crate) async fn waiters_on_one_lease(orders: Orders) -> anyhow::Result<Told> {
    waiters(&orders, 10_000, 1, None).await
}

/// 20,000 waiters over 2,000 leases.
pub(crate) async fn waiters_on_many_leases(orders: Orders) -> anyhow::Result<Told> {
    waiters(&orders, 20_000, 2_000, None).await
}

/// 10,000 waiters whose connections are cut in the middle of the attack.
pub(crate) async fn waiters_cut(orders: Orders) -> anyhow::Result<Told> {
    let half = orders.left() / 2;
    waiters(&orders, 10_000, 1, Some(half)).await
}

/// 8,000 renewal streams at a follower, each with 266 messages of tokens that nobody was ever given; and again, as long as the attack lasts.
pub(crate) async fn renewals_of_unknown_tokens(orders: Orders) -> anyhow::Result<Told> {
    const MESSAGES: usize = 266;
    let seen = Arc::<Seen>::default();
    let follower = orders.followers(&orders.client)[0].clone();
    // Such tokens are far below those that this cluster gives.
    let message = framed(&v1::RenewRequest { items: (1..=8).map(api::renewal).collect() });
    let all = Bytes::from(message.repeat(MESSAGES));
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (follower, seen, all) = (follower.clone(), Arc::clone(&seen), all.clone());
        tasks.spawn(async move {
            loop {
                if let Ok(line) = Line::open(&follower).await {
                    let mut streams = JoinSet::new();
                    for _ in 0..STREAMS {
                        streams.spawn(renewing(line.clone(), all.clone(), Arc::clone(&seen)));
                    }
                    while streams.join_next().await.is_some() {}
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        });
    }
    orders.end().await;
    drop(tasks);
    Ok(seen.told("renewal streams"))
}

async fn renewing(line: Line, all: Bytes, seen: Arc<Seen>) {
    while !line.ended() {
        let Ok((response, mut body)) = line.begin(RENEW, &[], false).await else { return };
        seen.begun.fetch_add(1, Ordering::Relaxed);
        let (_, answered) = tokio::join!(send_all(&mut body, all.clone(), true), drain(response));
        if let Ok((bytes, code)) = answered {
            seen.bytes.fetch_add(bytes, Ordering::Relaxed);
            if code != 0 {
                seen.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        seen.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn framed_message_is_read_back() {
        let request = v1::GetRequest { namespace: "n".into(), name: "lease".into(), ..Default::default() };
        let bytes = framed(&request);
        assert_eq!(usize::try_from(u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]])).expect("small"), bytes.len() - 5);
        assert_eq!(v1::GetRequest::decode(&bytes[5..]).expect("a message"), request);
    }
}
