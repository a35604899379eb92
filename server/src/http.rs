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
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    net::{Conn, Incoming},
    readiness::Readiness,
};

const MAX_CONNECTIONS: usize = 256;
const HEAD_WITHIN: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 16 << 10;
/// A prober that keeps its connection comes back; one that reads a byte an hour does not keep a slot.
const MAX_AGE: Duration = Duration::from_secs(120);

/// What the pages show.
pub(crate) struct Pages {
    pub(crate) readiness: Readiness,
    /// The metrics page, given whether this replica is ready.
    pub(crate) metrics: Box<dyn Fn(bool) -> String + Send + Sync>,
}

/// Serves until `closing` is cancelled; then every connection ends after its present answer.
pub(crate) async fn serve(mut incoming: Incoming, pages: Pages, closing: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "here are /healthz, /readyz and /metrics\n"))
        .with_state(Arc::new(pages));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::debug!(peer = conn.peer, "too many HTTP connections");
            continue;
        };
        let (router, closing) = (router.clone(), closing.clone());
        connections.spawn(async move {
            let _slot = slot;
            if timeout(MAX_AGE, converse(conn, router, closing)).await.is_err() {
                tracing::debug!("closed an old HTTP connection");
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn converse(conn: Conn, router: Router, closing: CancellationToken) {
    let peer = conn.peer.clone();
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

async fn readyz(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    match pages.readiness.why_not() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (pages.metrics)(pages.readiness.is_ready()))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
