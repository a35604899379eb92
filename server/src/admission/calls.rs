//! What every call of a port passes through: it keeps its connection from being idle, its request is held to a rule, and its errors have reasons.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{BodyRule, Caller, body::Metered, port::CallUnderWay};

/// For the services of a port that [`super::Port::guard`] guards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallsLayer {
    /// What holds for the requests of a path.
    pub(crate) rule: fn(&str) -> BodyRule,
    /// What an error without a reason becomes; `None` where only peers hear it.
    pub(crate) reasoned: Option<fn(Status) -> Status>,
}

/// See [`CallsLayer`].
#[derive(Clone, Debug)]
pub(crate) struct Calls<S> {
    inner: S,
    layer: CallsLayer,
}

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner, layer: *self }
    }
}

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let CallsLayer { rule, reasoned } = self.layer;
        let caller = request.extensions().get::<Caller>().cloned();
        let call = caller.as_ref().map(Caller::begin_call);
        let rule = rule(request.uri().path());
        let answering = self.inner.call(request.map(|body| Body::new(Metered::new(body, rule, caller))));
        Box::pin(async move {
            let mut answer = answering.await?;
            if let Some(reasoned) = reasoned {
                give_reason(answer.headers_mut(), reasoned);
            }
            Ok(answer.map(|body| Body::new(Answer { body, reasoned, _call: call })))
        })
    }
}

/// Replaces an error that does not say its reason.
fn give_reason(headers: &mut HeaderMap, reasoned: fn(Status) -> Status) {
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return;
    }
    let Some(error) = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) else { return };
    let given = reasoned(error).into_http::<()>();
    for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS] {
        if let Some(value) = given.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
}

/// An answer; the call is under way until all of it was taken, or given up.
struct Answer {
    body: Body,
    reasoned: Option<fn(Status) -> Status>,
    _call: Option<CallUnderWay>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(reasoned)) = (&mut polled, self.reasoned)
            && let Some(trailers) = frame.trailers_mut()
        {
            give_reason(trailers, reasoned);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
