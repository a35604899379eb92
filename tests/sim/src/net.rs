//! turmoil's TCP as the server and the SDK want it. Every write goes into the trace: order and content of the whole network.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tenure_server::net::{Conn, Connector, Incoming, Listeners};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint};
use turmoil::net::{TcpListener, TcpStream};

use crate::{clock::now, trace::Trace};

pub(crate) const CLIENT_PORT: u16 = 7400;
pub(crate) const PEER_PORT: u16 = 7401;
const HTTP_PORT: u16 = 7402;

/// A stream whose writes are traced.
struct Traced {
    stream: TcpStream,
    label: String,
    trace: Arc<Trace>,
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(length)) = &written {
            let sum = crc32c::crc32c(&buf[..*length]);
            self.trace.line(now(), format_args!("net {} {length} {sum:08x}", self.label));
        }
        written
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn incoming(node: &str, port: u16, trace: &Arc<Trace>) -> io::Result<Incoming> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let (node, trace) = (node.to_owned(), Arc::clone(trace));
    Ok(Box::pin(futures::stream::unfold((listener, node, trace), move |(listener, node, trace)| async move {
        let conn = match listener.accept().await {
            Ok((stream, peer)) => {
                let label = format!("{node}:{port}>{peer}");
                Ok(Conn::new(Traced { stream, label, trace: Arc::clone(&trace) }, peer.to_string()))
            }
            Err(error) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(error)
            }
        };
        Some((conn, (listener, node, trace)))
    })))
}

/// The three ports of a simulated replica. On its host.
pub(crate) async fn listeners(node: &str, trace: &Arc<Trace>) -> io::Result<Listeners> {
    Ok(Listeners {
        client: incoming(node, CLIENT_PORT, trace).await?,
        peer: incoming(node, PEER_PORT, trace).await?,
        http: incoming(node, HTTP_PORT, trace).await?,
    })
}

/// `host:port` of a replica.
pub(crate) fn address(node: &str, port: u16) -> String {
    format!("{node}:{port}")
}

/// As `tenured` advertises it.
pub(crate) fn addresses(node: &str) -> tenure_server::config::Addresses {
    let at = |port| address(node, port);
    tenure_server::config::Addresses { client: at(CLIENT_PORT), peer: at(PEER_PORT), http: at(HTTP_PORT) }
}

/// How one simulated host reaches others.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) node: String,
    pub(crate) trace: Arc<Trace>,
}

impl Dialer {
    async fn open(self, to: String) -> io::Result<Traced> {
        let stream = TcpStream::connect(to.as_str()).await?;
        let label = format!("{}>{to}", self.node);
        Ok(Traced { stream, label, trace: self.trace })
    }

    /// For the SDK.
    pub(crate) fn channel(&self, endpoint: &Endpoint) -> Channel {
        let dialer = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: http::Uri| {
            let (dialer, to) = (dialer.clone(), uri.authority().map(ToString::to_string).unwrap_or_default());
            async move { dialer.open(to).await.map(TokioIo::new) }
        }))
    }
}

impl Connector for Dialer {
    fn connect(&self, addr: String) -> BoxFuture<'static, io::Result<Conn>> {
        let dialer = self.clone();
        Box::pin(async move { dialer.open(addr.clone()).await.map(|io| Conn::new(io, addr)) })
    }
}
