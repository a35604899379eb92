//! Who may connect to a port, how many, and for how long: one mechanism for all three ports.
//!
//! A [`Port`] counts connections, in all and by source address. When there is no room, the newcomer takes the place of the connection that has
//! been idle longest, of the source that has most of them; only when nothing is idle is the newcomer closed. So neither a crowd that connects and does
//! nothing nor one host with many connections keeps others out, and what is being answered is never disturbed.
//!
//! Requests are bounded as well ([`CallsLayer`]): the length of a message, the time it may take to arrive, and the bytes of unfinished ones, of a
//! connection, a source and the port.
//!
//! An [`Admitted`] connection ends by itself when its first bytes, or the reader at its other end, take too long, or when it has been idle for long.

mod body;
mod calls;
mod connection;
mod port;
mod seldom;
mod shares;
mod source;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use body::BodyRule;
pub(crate) use calls::CallsLayer;
pub(crate) use connection::Admitted;
pub(crate) use port::{Caller, Port};
pub(crate) use seldom::Seldom;
pub(crate) use shares::Shares;
pub(crate) use source::Source;

/// What holds for the connections of one port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// For messages and metrics.
    pub(crate) port: &'static str,
    /// At a time.
    pub(crate) connections: usize,
    /// At a time from one source address.
    pub(crate) per_source: usize,
    /// So many bytes must come within so long after the connection was accepted.
    pub(crate) first_bytes: (usize, Duration),
    /// For the other side to take something of what is written to it.
    pub(crate) write_within: Duration,
    /// A connection without a call is closed after this time, or at most twice as long.
    pub(crate) idle: Option<Duration>,
    /// What keeps a connection from being idle.
    pub(crate) busy: Busy,
    /// For requests of which a part has arrived.
    pub(crate) unfinished: Budget,
}

/// Bytes of request messages that have not arrived whole, at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Of one connection.
    pub(crate) connection: usize,
    /// Of one source address.
    pub(crate) source: usize,
    /// Of the port.
    pub(crate) port: usize,
}

/// What keeps a connection from being idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Calls under way, as [`Caller::begin_call`] counts them. Keep-alives do not count.
    WithCalls,
    /// Nothing does, but bytes that move make it the last to be taken for idle: for a port where no answer takes long.
    WithBytes,
}

/// The start of every HTTP/2 connection.
pub(crate) const HTTP2_PREFACE_BYTES: usize = 24;
