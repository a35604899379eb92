//! The HTTP port: `/healthz`, `/readyz`, `/metrics`. It decides nothing: it shows what others know.
//!
//! Whoever connects here is not trusted to be a browser or a prober: heads are bounded in size, number and time, connections in number and
//! age, so that garbage and slow senders cost a slot at worst and never another port's service.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures::StreamExt as _;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Admitted, Budget, Busy, Port, Rules},
    net::Incoming,
    readiness::Readiness,
};

/// A prober that connects and says nothing for so long is none.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(5);
/// Whoever takes nothing of its answer for so long gets no more of it.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
const HEAD_WITHIN: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 16 << 10;
/// A prober that keeps its connection comes back; one that reads a byte an hour does not keep a slot.
const MAX_AGE: Duration = Duration::from_secs(120);

/// What holds for connections to the HTTP port. No answer takes long, so a newcomer always finds a place: that of whoever has moved no byte for
/// longest, of the source with most connections. A quarter each leaves room for probers behind one address.
pub(crate) fn rules(connections: usize) -> Rules {
    Rules {
        port: "http",
        connections,
        per_source: connections.div_ceil(4),
        first_bytes: (1, FIRST_BYTE_WITHIN),
        write_within: WRITE_WITHIN,
        idle: None,
        busy: Busy::WithBytes,
        // No page takes a body.
        unfinished: Budget { connection: 0, source: 0, port: 0 },
    }
}

/// What the pages show.
pub(crate) struct Pages {
    pub(crate) readiness: Readiness,
    /// The metrics page, given whether this replica is ready.
    pub(crate) metrics: Box<dyn Fn(bool) -> String + Send + Sync>,
}

/// Serves until `closing` is cancelled; then every connection ends after its present answer.
pub(crate) async fn serve(incoming: Incoming, port: Arc<Port>, pages: Pages, closing: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(async || (CLOSE, "ok\n")))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"))
        .with_state(Arc::new(pages));
    let mut incoming = port.guard(incoming);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            accepted = incoming.next() => accepted,
        };
        let conn = match accepted {
            Some(Ok(conn)) => conn,
            Some(Err(_)) => continue,
            None => break,
        };
        let (router, closing) = (router.clone(), closing.clone());
        connections.spawn(async move {
            if timeout(MAX_AGE, converse(conn, router, closing)).await.is_err() {
                tracing::debug!("closed an old HTTP connection");
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn converse(conn: Admitted, router: Router, closing: CancellationToken) {
    let peer = conn.peer().to_owned();
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(conn), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer, %error, "HTTP connection");
    }
}

/// A probe is one question: its connection is not kept.
const CLOSE: [(header::HeaderName, &str); 1] = [(header::CONNECTION, "close")];

async fn readyz(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    match pages.readiness.why_not() {
        None => (StatusCode::OK, CLOSE, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, CLOSE, format!("{reason}\n")),
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (pages.metrics)(pages.readiness.is_ready()))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
