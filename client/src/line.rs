//! A connection as one attempt at a call uses it, which knows afterwards whether the call may have left.
//!
//! A call whose message was never taken to be written has reached nobody: there was no connection yet, or no time. Whoever gives up on it need not
//! wonder what it has done.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use tonic::{
    Status,
    body::Body,
    codegen::{Bytes, Service, http},
    transport::{self, Channel},
};

/// Whether a message was taken to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<AtomicBool>);

impl Sent {
    pub(crate) fn may_be(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn note(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    channel: Channel,
    sent: Sent,
}

impl Line {
    pub(crate) fn new(channel: Channel, sent: Sent) -> Self {
        Self { channel, sent }
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = transport::Error;
    type Future = transport::channel::ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let sent = self.sent.clone();
        self.channel.call(request.map(|body| Body::new(Watched { body, sent })))
    }
}

/// Messages, asked for by a connection that is there.
struct Watched {
    body: Body,
    sent: Sent,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.sent.note();
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
