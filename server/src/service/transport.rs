//! The client port: which services are on it, and every limit of its connections.
//!
//! tonic hands hyper `None` for guards that hyper has defaults for, so each is set here. Nothing that one connection sends may disturb another.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, future};
use tenure_proto::v1::{self, cluster_service_server::ClusterServiceServer, lease_service_server::LeaseServiceServer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tonic::{
    service::Routes,
    transport::{Server, server::Connected},
};

use super::{Parts, Service, cluster::Cluster, health, lease::Leases};
use crate::net::{Conn, Incoming};

/// Of a request; longer ones are refused with OUT_OF_RANGE, and the connection lives on.
const REQUEST_BYTES: usize = 1 << 20;
/// Of an answer; pages and batches end well before.
const ANSWER_BYTES: usize = 8 << 20;
/// Calls at a time on one connection. A client with more opens another connection (or waits: it is HTTP/2's own limit).
const STREAMS: u32 = 1_024;
/// Calls that a client cancelled before they were looked at. hyper's 20 would end the connection of a client that gives up on all its calls at once.
const CANCELLED_STREAMS: usize = 1_024;
/// Calls that were reset because the client broke the protocol in them.
const BROKEN_STREAMS: usize = 1_024;
const HEADER_BYTES: u32 = 16 << 10;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(5);
/// For the first bytes of HTTP/2: who connects and says nothing costs a descriptor only so long.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);
const PREFACE_BYTES: usize = 24;
/// At a time. More are closed at once, so that those that are open keep their leases.
const CONNECTIONS: usize = 10_000;
/// After the shutdown, for calls that are being answered.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// The services of the client port, and the work that goes with them for as long as they are served.
async fn client_router(parts: Arc<Parts>) -> (Routes, impl Future<Output = ()> + Send + 'static) {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    health::begin(&reporter, &parts.readiness).await;
    let service = Service::new(parts.clone());
    let leases = LeaseServiceServer::new(Leases(service.clone())).max_decoding_message_size(REQUEST_BYTES).max_encoding_message_size(ANSWER_BYTES);
    let cluster = ClusterServiceServer::new(Cluster(service.clone())).max_decoding_message_size(REQUEST_BYTES).max_encoding_message_size(ANSWER_BYTES);
    let reflected = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(leases)
        .add_service(cluster)
        .add_service(health_service)
        .add_service(reflected().build_v1().expect("the build has checked our own descriptors"))
        .add_service(reflected().build_v1alpha().expect("the build has checked our own descriptors"));
    let work = async move {
        let forgetting = service.pages.forget_idle();
        let health = health::follow(reporter, parts.readiness.clone(), parts.stopping.clone());
        let _ = future::join(forgetting, health).await;
    };
    (routes, work)
}

/// Serves clients until `shutdown`, and then until what is being answered is, or a few seconds have passed. Cancel [`Parts::stopping`] first: streams
/// do not end by themselves.
pub(crate) async fn serve_clients(incoming: Incoming, parts: Arc<Parts>, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
    let (routes, work) = client_router(parts).await;
    let going_down = tokio_util::sync::CancellationToken::new();
    let served = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_pending_accept_reset_streams(Some(CANCELLED_STREAMS))
        .http2_max_local_error_reset_streams(Some(BROKEN_STREAMS))
        .http2_max_header_list_size(HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_routes(routes)
        .serve_with_incoming_shutdown(guarded(incoming, CONNECTIONS), going_down.clone().cancelled_owned());
    let deadline = async {
        shutdown.await;
        going_down.cancel();
        tokio::time::sleep(DRAIN_WITHIN).await;
        tracing::warn!("some calls were still being answered when the time for that was over");
    };
    tokio::select! {
        served = served => served?,
        () = deadline => {}
        () = work => unreachable!("forgets for ever"),
    }
    Ok(())
}

/// Connections as they come, only so many, each with a deadline for its first bytes.
fn guarded(incoming: Incoming, limit: usize) -> impl Stream<Item = io::Result<Guarded>> + Send + Unpin {
    let slots = Arc::new(Semaphore::new(limit));
    incoming.filter_map(move |conn| {
        let slot = slots.clone().try_acquire_owned();
        future::ready(match (conn, slot) {
            (Ok(conn), Ok(slot)) => Some(Ok(Guarded { conn, _slot: slot, expected: Some((PREFACE_BYTES, Box::pin(tokio::time::sleep(PREFACE_WITHIN)))) })),
            (Ok(conn), Err(_)) => {
                tracing::warn!(?conn, limit, "closed: as many connections as there may be");
                None
            }
            (Err(error), _) => Some(Err(error)),
        })
    })
}

/// A connection that must speak up, and that counts.
struct Guarded {
    conn: Conn,
    _slot: OwnedSemaphorePermit,
    /// Bytes to come before the deadline; `None`: they came.
    expected: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Connected for Guarded {
    type ConnectInfo = <Conn as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.conn.connect_info()
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.conn).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if let Some((missing, deadline)) = &mut self.expected {
            *missing = missing.saturating_sub(read);
            if *missing == 0 {
                self.expected = None;
            } else if polled.is_pending() && deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 within the time for it")));
            }
        }
        polled
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.conn).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(cx)
    }
    /// It could, but then h2 writes each answer of 256 bytes or more by itself, and what follows it, be it only the trailers, in another write. So
    /// it copies what is below 1 KiB, and writes once for all that is ready.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn connections(n: usize) -> (Vec<tokio::io::DuplexStream>, Incoming) {
        let (near, far): (Vec<_>, Vec<_>) = (0..n).map(|_| tokio::io::duplex(64)).unzip();
        let incoming = futures::stream::iter(far.into_iter().map(|io| Ok(Conn::new(io, "test"))));
        (near, Box::pin(incoming))
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connection_is_closed_and_one_that_speaks_is_not() {
        let (mut near, incoming) = connections(2);
        let mut guarded: Vec<Guarded> = guarded(incoming, 2).map(|conn| conn.expect("accepted")).collect().await;
        near[1].write_all(&[b'P'; PREFACE_BYTES]).await.unwrap();
        let mut speaking = guarded.pop().unwrap();
        speaking.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let silent = guarded[0].read(&mut [0; 8]).await;
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let quiet = tokio::time::timeout(PREFACE_WITHIN * 3, speaking.read(&mut [0; 8])).await;
        assert!(quiet.is_err(), "after its first bytes only the keep-alive judges it");
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed_until_one_ends() {
        let (mut near, incoming) = connections(3);
        let mut guarded = guarded(incoming, 1);
        let first = guarded.next().await.unwrap().unwrap();
        drop(first);
        let _second = guarded.next().await.unwrap().unwrap();
        assert!(guarded.next().await.is_none(), "the third found no room");
        assert_eq!(near[2].read(&mut [0; 1]).await.unwrap(), 0);
    }
}
