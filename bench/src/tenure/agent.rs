//! An agent that keeps many leases: one message for each batch of them, one every so often, on one stream; somewhere else when its replica is gone.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use hdrhistogram::Histogram;

use super::renew::Renewals;
use crate::{
    clock::{self, Moment},
    connect,
    load::{histogram, nanos},
};

/// For an answer, before another replica is asked.
const WITHIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// What all agents share.
#[derive(Debug)]
pub(crate) struct Round {
    begun: Moment,
    /// Of each batch.
    every: Duration,
    latency: RefCell<Histogram<u64>>,
    renewed: Cell<u64>,
    retried: Cell<u64>,
    over: Cell<bool>,
}

/// Since the last time that somebody asked.
#[derive(Debug)]
pub(crate) struct Lap {
    /// Of each message, from when it was due.
    pub(crate) latency: Histogram<u64>,
    /// Leases.
    pub(crate) renewed: u64,
    /// Messages that were sent again, most likely elsewhere.
    pub(crate) retried: u64,
}

impl Round {
    pub(crate) fn new(every: Duration) -> anyhow::Result<Rc<Self>> {
        let latency = RefCell::new(histogram()?);
        Ok(Rc::new(Self { begun: clock::now(), every, latency, renewed: Cell::new(0), retried: Cell::new(0), over: Cell::new(false) }))
    }

    pub(crate) fn lap(&self) -> anyhow::Result<Lap> {
        Ok(Lap { latency: self.latency.replace(histogram()?), renewed: self.renewed.take(), retried: self.retried.take() })
    }

    pub(crate) fn end(&self) {
        self.over.set(true);
    }
}

/// Keeps its batches of tokens until the round is over. `share` of 0 to 1: which part of the time between two messages it lets pass first.
pub(crate) async fn keep(endpoints: Vec<String>, mut at: usize, batches: Vec<Vec<u64>>, share: f64, round: Rc<Round>) -> anyhow::Result<()> {
    let pause = round.every / u32::try_from(batches.len())?;
    let mut due = round.begun.passed() + pause.mul_f64(share);
    let mut stream: Option<Renewals> = None;
    for batch in batches.iter().cycle() {
        tokio::time::sleep(due.saturating_sub(round.begun.passed())).await;
        if round.over.get() {
            break;
        }
        loop {
            match tokio::time::timeout(WITHIN, send(&endpoints[at % endpoints.len()], &mut stream, batch)).await {
                Ok(Ok(())) => break,
                // Refused, or the connection is gone. A lease that is lost is another matter.
                Ok(Err(error)) if !is_transient(&error) => return Err(error),
                _ => {
                    round.retried.set(round.retried.get() + 1);
                    (stream, at) = (None, at + 1);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        round.latency.borrow_mut().record(nanos(round.begun.passed().saturating_sub(due))?)?;
        round.renewed.set(round.renewed.get() + batch.len() as u64);
        due += pause;
    }
    Ok(())
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.is::<tonic::Status>() || error.is::<tonic::transport::Error>() || error.is::<super::renew::Ended>()
}

async fn send(address: &str, stream: &mut Option<Renewals>, tokens: &[u64]) -> anyhow::Result<()> {
    match stream {
        Some(open) => open.renew(tokens).await,
        None => {
            // It renews them on the way.
            *stream = Some(Renewals::open(connect::channel(address).await?, tokens).await?);
            Ok(())
        }
    }
}
