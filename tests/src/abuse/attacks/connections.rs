//! Connections that do nothing: of HTTP/2 without a call, without a word, and of HTTP without reading.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    Orders, Told,
    line::{From, Line, Windows, connect},
    writes,
};

/// A client whose connection was closed or refused comes again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Twenty ordinary hosts.
const CROWD: From = From::Hosts(20);

#[derive(Debug, Default)]
struct Seen {
    opened: AtomicU64,
    open: AtomicU64,
    most: AtomicU64,
}

/// Idle HTTP/2 connections to each of these, from many hosts, until the tasks are dropped.
fn idle(addrs: &[String], each: usize, seen: &Arc<Seen>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for addr in addrs {
        for _ in 0..each {
            let (addr, seen) = (addr.clone(), Arc::clone(seen));
            tasks.spawn(async move {
                loop {
                    if let Ok(stream) = connect(&addr, CROWD).await
                        && let Ok(line) = Line::with(stream, Windows::USUAL).await
                    {
                        seen.opened.fetch_add(1, Ordering::Relaxed);
                        seen.most.fetch_max(seen.open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                        while !line.ended() {
                            tokio::time::sleep(Duration::from_millis(500)).await;
                        }
                        seen.open.fetch_sub(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            });
        }
    }
    tasks
}

async fn idle_at(orders: &Orders, addrs: &[String], each: usize, writing: bool) -> anyhow::Result<Told> {
    let seen = Arc::<Seen>::default();
    let tasks = idle(addrs, each, &seen);
    let mut told = Told::default();
    if writing {
        told.acknowledged = writes::write(orders, writes::FAST).await;
    } else {
        orders.end().await;
    }
    drop(tasks);
    let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
    told.counts = format!("{} connections opened, {} at once", number(&seen.opened), number(&seen.most));
    if writing {
        told.counts.push_str(&format!(", {}", writes::counted(&told.acknowledged)));
    }
    Ok(told)
}

/// 400 to the raft leader, beside writes.
pub(crate) async fn idle_at_the_leader(orders: Orders) -> anyhow::Result<Told> {
    idle_at(&orders, &[orders.leader_client().to_owned()], 400, true).await
}

/// 1,200 to each replica and nothing else.
pub(crate) async fn idle_everywhere(orders: Orders) -> anyhow::Result<Told> {
    idle_at(&orders, &orders.client, 1_200, false).await
}

/// The same beside writes.
pub(crate) async fn idle_beside_writes(orders: Orders) -> anyhow::Result<Told> {
    idle_at(&orders, &orders.client, 1_200, true).await
}

/// The same at the followers only.
pub(crate) async fn idle_at_followers(orders: Orders) -> anyhow::Result<Told> {
    let followers: Vec<String> = orders.followers(&orders.client).into_iter().cloned().collect();
    idle_at(&orders, &followers, 1_200, true).await
}

/// A port has this long to close a connection on which nothing was ever said.
const SILENT_AT_MOST: Duration = Duration::from_secs(15);

/// 250 connections to each port of one replica that never say anything.
pub(crate) async fn silent(orders: Orders) -> anyhow::Result<Told> {
    const EACH: usize = 250;
    let long_enough = orders.left() > SILENT_AT_MOST;
    let (mut told, mut counts) = (Told::default(), Vec::new());
    let mut ports = Vec::new();
    for (port, addr) in [("client", &orders.client[orders.leader]), ("peer", &orders.peer[orders.leader]), ("HTTP", &orders.http[orders.leader])] {
        let closed = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..EACH {
            let (addr, closed) = (addr.clone(), Arc::clone(&closed));
            tasks.spawn(async move {
                if let Ok(mut stream) = connect(&addr, From::OneHost).await {
                    // Settings that the server sends first are no end.
                    let mut bytes = [0; 256];
                    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                }
                closed.fetch_add(1, Ordering::Relaxed);
            });
        }
        ports.push((port, closed, tasks));
    }
    orders.end().await;
    for (port, closed, _tasks) in &ports {
        let closed = closed.load(Ordering::Relaxed);
        counts.push(format!("{port} port: {closed} of {EACH} closed"));
        if long_enough && closed < EACH as u64 {
            told.complaints.push(format!("{} of {EACH} silent connections at the {port} port were still open after {SILENT_AT_MOST:?}", EACH as u64 - closed));
        }
    }
    told.counts = counts.join(", ");
    Ok(told)
}

/// 300 connections to the HTTP port of one replica, half of them idle, half asking for the metrics and never reading; beside them a probe of
/// /readyz every 200 ms, on a connection of its own each time, as an orchestrator does it.
pub(crate) async fn http_unread(orders: Orders) -> anyhow::Result<Told> {
    let addr = orders.http[orders.leader].clone();
    let mut tasks: JoinSet<()> = JoinSet::new();
    for number in 0..300 {
        let addr = addr.clone();
        tasks.spawn(async move {
            loop {
                drop(unread(&addr, number % 2 == 0).await);
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        });
    }
    // The crowd first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut probes, mut failed) = (0_u64, 0_u64);
    while !orders.is_over() {
        probes += 1;
        if !tokio::time::timeout(Duration::from_secs(1), ready(&addr)).await.is_ok_and(|answered| answered.is_ok()) {
            failed += 1;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut told = Told::of(format!("{probes} probes of /readyz, {failed} failed"));
    if failed > 0 {
        told.complaints.push(format!("/readyz failed {failed} of {probes} times"));
    }
    Ok(told)
}

async fn unread(addr: &str, asks: bool) -> anyhow::Result<()> {
    let mut stream = connect(addr, From::OneHost).await?;
    if asks {
        for _ in 0..64 {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: tenure\r\n\r\n").await?;
        }
    }
    // Until the other side has closed it, without taking a byte from it.
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut byte = [0];
        match stream.try_read(&mut byte) {
            Ok(0) => return Ok(()),
            Ok(_) if asks => std::future::pending::<()>().await,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Ok(()),
            _ => {}
        }
    }
}

async fn ready(addr: &str) -> anyhow::Result<()> {
    // A probe comes from the replica's own machine or from its orchestrator: not from where the crowd is.
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: tenure\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "not ready");
    Ok(())
}
