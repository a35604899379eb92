//! Messages that never end: all but their last byte arrives, and then nothing more.

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
    line::{Line, prefix, send_all},
};

const AGAIN_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Seen {
    begun: AtomicU64,
    bytes: AtomicU64,
    ended: AtomicU64,
}

/// So many on so many connections; whatever ends before the attack begins anew.
async fn unfinished(orders: &Orders, addr: &str, connections: usize, each: usize, path: &'static str, length: u32) -> Told {
    let seen = Arc::<Seen>::default();
    let block = Bytes::from(vec![b'x'; 1 << 18]);
    let mut tasks: JoinSet<()> = JoinSet::new();
    for _ in 0..connections {
        let (addr, seen, block) = (addr.to_owned(), Arc::clone(&seen), block.clone());
        tasks.spawn(async move {
            loop {
                if let Ok(line) = Line::open(&addr).await {
                    let mut streams = JoinSet::new();
                    for _ in 0..each {
                        streams.spawn(one(line.clone(), path, length, block.clone(), Arc::clone(&seen)));
                    }
                    while streams.join_next().await.is_some() {}
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        });
    }
    orders.end().await;
    drop(tasks);
    let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
    Told::of(format!("{} messages begun, {} MiB sent, {} ended by the replica", number(&seen.begun), number(&seen.bytes) >> 20, number(&seen.ended)))
}

async fn one(line: Line, path: &'static str, length: u32, block: Bytes, seen: Arc<Seen>) {
    while !line.ended() {
        if let Ok((response, mut body)) = line.begin(path, &[], false).await {
            seen.begun.fetch_add(1, Ordering::Relaxed);
            let sending = async {
                send_all(&mut body, Bytes::copy_from_slice(&prefix(length)), false).await?;
                let mut left = length as usize - 1;
                while left > 0 {
                    let part = block.slice(..left.min(block.len()));
                    left -= part.len();
                    seen.bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
                    send_all(&mut body, part, false).await?;
                }
                std::future::pending::<anyhow::Result<()>>().await
            };
            tokio::select! {
                _ = sending => {}
                _ = response => {}
            }
            seen.ended.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Sixteen of 60 MiB at the peer port of a follower, without any metadata.
pub(crate) async fn unfinished_at_the_peer_port(orders: Orders) -> anyhow::Result<Told> {
    let addr = orders.followers(&orders.peer)[0].clone();
    Ok(unfinished(&orders, &addr, 1, 16, "/tenure.peer.v1.PeerService/Vote", 60 << 20).await)
}

/// 1,500 of 1 MiB on three connections to the client port of the raft leader; pings are answered.
pub(crate) async fn unfinished_at_the_client_port(orders: Orders) -> anyhow::Result<Told> {
    let addr = orders.leader_client().to_owned();
    Ok(unfinished(&orders, &addr, 3, 500, "/tenure.v1.LeaseService/Put", 1 << 20).await)
}
