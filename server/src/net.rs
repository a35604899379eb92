//! Sockets as seams: who listens and who dials comes in from outside, so that the same replica runs in a simulator.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{future::BoxFuture, stream::BoxStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::admission::Seldom;

/// A byte stream of any kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// One connection.
pub struct Conn {
    io: Box<dyn Io>,
    /// Who is at the other end, for messages.
    pub peer: String,
}

impl Conn {
    /// Wraps a stream.
    pub fn new(io: impl Io, peer: impl Into<String>) -> Self {
        Self { io: Box::new(io), peer: peer.into() }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({})", self.peer)
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Connections as they come. An error of one accept does not end the stream.
pub type Incoming = BoxStream<'static, io::Result<Conn>>;

/// The three ports of a replica.
pub struct Listeners {
    /// Client gRPC.
    pub client: Incoming,
    /// Peers.
    pub peer: Incoming,
    /// HTTP: health and metrics.
    pub http: Incoming,
}

/// How to reach another replica.
pub trait Connector: Send + Sync + fmt::Debug + 'static {
    /// Opens a connection to `host:port`.
    fn connect(&self, addr: String) -> BoxFuture<'static, io::Result<Conn>>;
}

/// As `run` wants it.
pub type SharedConnector = Arc<dyn Connector>;

/// The machine's TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    fn connect(&self, addr: String) -> BoxFuture<'static, io::Result<Conn>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(&addr).await?;
            stream.set_nodelay(true)?;
            Ok(Conn::new(stream, addr))
        })
    }
}

/// Accepts for ever; survives running out of file descriptors.
pub fn accept(listener: tokio::net::TcpListener) -> Incoming {
    Box::pin(futures::stream::unfold((listener, Seldom::default()), |(listener, failures)| async move {
        let conn = match listener.accept().await {
            Ok((stream, peer)) => stream.set_nodelay(true).map(|()| Conn::new(stream, peer.to_string())),
            Err(error) => {
                if let Some(times) = failures.now() {
                    tracing::warn!(%error, times, addr = ?listener.local_addr(), "cannot accept connections");
                }
                // EMFILE stays readable: without a pause this would spin.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Err(error)
            }
        };
        Some((conn, (listener, failures)))
    }))
}
