//! A connection that was let in: it counts, it must speak up and be read from, and it can be told to go.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::{
    Busy,
    port::{Caller, Pass},
};
use crate::net::Conn;

/// See the module.
pub(crate) struct Admitted {
    conn: Conn,
    pass: Pass,
    waits_for: Waits,
    /// Runs while the other side takes nothing.
    unread: Option<Pin<Box<Sleep>>>,
}

/// What a connection on which nothing arrives is waited for.
enum Waits {
    /// So many bytes, before the time is over.
    FirstBytes(usize, Pin<Box<Sleep>>),
    /// A call, before the time is over twice with the same event as the last by which it was busy.
    Call(u64, Duration, Pin<Box<Sleep>>),
    /// Nothing: the keep-alive judges it, or its protocol.
    Nothing,
}

impl Admitted {
    pub(super) fn new(conn: Conn, pass: Pass) -> Self {
        let rules = pass.caller.port.rules;
        let (bytes, within) = rules.first_bytes;
        Self { conn, pass, waits_for: Waits::FirstBytes(bytes, Box::pin(sleep(within))), unread: None }
    }

    /// Who is at the other end, for messages.
    pub(crate) fn peer(&self) -> &str {
        &self.conn.peer
    }

    fn arrived(&mut self, bytes: usize) {
        let Caller { port, place } = &self.pass.caller;
        if bytes > 0 && port.rules.busy == Busy::WithBytes {
            port.is_busy(place);
        }
        if let Waits::FirstBytes(missing, _) = &mut self.waits_for {
            *missing = missing.saturating_sub(bytes);
            if *missing == 0 {
                let idle = port.rules.idle.map(|idle| Waits::Call(0, idle, Box::pin(sleep(idle))));
                self.waits_for = idle.unwrap_or(Waits::Nothing);
            }
        }
    }

    /// Whether the time for what is waited for is over. `Ok`: it may end as if the other side had ended it.
    fn is_over(&mut self, cx: &mut Context<'_>) -> Option<io::Result<()>> {
        match &mut self.waits_for {
            Waits::FirstBytes(_, deadline) => {
                let over = deadline.as_mut().poll(cx).is_ready();
                over.then(|| Err(io::Error::new(io::ErrorKind::TimedOut, "its first bytes did not come in time")))
            }
            Waits::Call(seen, idle, timer) => {
                while timer.as_mut().poll(cx).is_ready() {
                    let place = &self.pass.caller.place;
                    let last = place.last_busy.load(Ordering::Relaxed);
                    if !place.has_calls() && last == *seen {
                        return Some(Ok(()));
                    }
                    *seen = last;
                    *timer = Box::pin(sleep(*idle));
                }
                None
            }
            Waits::Nothing => None,
        }
    }

    fn evicted(&self) -> io::Result<()> {
        if self.pass.caller.place.is_evicted() { Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it had to go")) } else { Ok(()) }
    }

    /// Bounds how long the other side may take nothing.
    fn written(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.unread = None;
            if matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
                let Caller { port, place } = &self.pass.caller;
                if port.rules.busy == Busy::WithBytes {
                    port.is_busy(place);
                }
            }
            return polled;
        }
        let within = self.pass.caller.port.rules.write_within;
        let deadline = self.unread.get_or_insert_with(|| Box::pin(sleep(within)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "its other side does not read")));
        }
        if self.pass.caller.place.is_evicted_or_wakes(cx.waker()) { Poll::Ready(self.evicted().map(|()| 0)) } else { Poll::Pending }
    }
}

impl Connected for Admitted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.pass.caller.clone()
    }
}

impl AsyncRead for Admitted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.evicted()?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.conn).poll_read(cx, buf);
        self.arrived(buf.filled().len() - before);
        if polled.is_pending() {
            if let Some(over) = self.is_over(cx) {
                return Poll::Ready(over);
            }
            if self.pass.caller.place.is_evicted_or_wakes(cx.waker()) {
                return Poll::Ready(self.evicted());
            }
        }
        polled
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.evicted()?;
        let polled = Pin::new(&mut self.conn).poll_write(cx, buf);
        self.written(polled, cx)
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
