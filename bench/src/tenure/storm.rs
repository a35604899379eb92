//! Many leases acquired as fast as they are granted.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use hdrhistogram::Histogram;
use tenure_proto::v1::AcquireRequest;
use tokio::task::JoinSet;

use super::{Client, granted};
use crate::{
    clock, connect,
    load::{histogram, nanos},
};

const CONNECTIONS: usize = 16;
/// Acquires under way at once.
pub(crate) const TOGETHER: usize = 256;
const TELL_EVERY: usize = 100_000;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Storm {
    /// In the order of the names.
    pub(crate) tokens: Vec<u64>,
    pub(crate) latency: Histogram<u64>,
    pub(crate) time: Duration,
}

struct Shared<F> {
    request: F,
    next: Cell<usize>,
    count: usize,
    tokens: RefCell<Vec<u64>>,
    latency: RefCell<Histogram<u64>>,
}

/// Acquires what `request` says, for each number from 0 to `count`; all of it must be granted.
pub(crate) async fn acquire(endpoints: &[String], count: usize, request: impl Fn(usize) -> anyhow::Result<AcquireRequest> + 'static) -> anyhow::Result<Storm> {
    let channels = connect::channels(endpoints, CONNECTIONS).await?;
    let shared = Shared { request, next: Cell::new(0), count, tokens: RefCell::new(vec![0; count]), latency: RefCell::new(histogram()?) };
    let (shared, begun, mut workers) = (Rc::new(shared), clock::now(), JoinSet::new());
    for n in 0..TOGETHER.min(count) {
        let client = Client::new(channels[n % channels.len()].clone());
        workers.spawn_local(work(client, Rc::clone(&shared)));
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let time = begun.passed();
    Ok(Storm { tokens: shared.tokens.take(), latency: shared.latency.replace(histogram()?), time })
}

async fn work<F: Fn(usize) -> anyhow::Result<AcquireRequest>>(mut client: Client, shared: Rc<Shared<F>>) -> anyhow::Result<()> {
    loop {
        let n = shared.next.get();
        if n == shared.count {
            return Ok(());
        }
        shared.next.set(n + 1);
        let request = (shared.request)(n)?;
        let sent = clock::now();
        let token = granted(&mut client, request).await?;
        shared.latency.borrow_mut().record(nanos(sent.passed())?)?;
        shared.tokens.borrow_mut()[n] = token;
        if (n + 1).is_multiple_of(TELL_EVERY) {
            eprintln!("  {} leases", n + 1);
        }
    }
}
