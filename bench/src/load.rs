//! Load: many clients, each with one round trip under way; in a closed loop, or at a rate that the answers do not slow down.
//!
//! At a rate, a round trip counts from when it was due, not from when it was sent: a stall shows in every round trip that it held up. Timers have a
//! resolution of 1 ms, so latencies at a rate are up to that too long, and never too short.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use anyhow::bail;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::{
    clock::{self, Moment},
    cluster::{Cluster, Usage},
};

/// What a client does again and again.
pub(crate) trait Op: 'static {
    /// One round trip, with its answer checked. How long it took, where that is not from begin to end.
    fn once(&mut self) -> impl Future<Output = anyhow::Result<Option<Duration>>>;
}

/// How to load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
    /// Round trips a second of all clients together; none: as fast as the answers come.
    pub(crate) rate: Option<f64>,
}

/// Of the time after warming up.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Nanoseconds of each round trip that ended in it.
    pub(crate) latency: Histogram<u64>,
    pub(crate) time: Duration,
    /// None if the cluster's processes are not ours.
    pub(crate) usage: Option<Usage>,
}

struct Shared {
    latency: RefCell<Histogram<u64>>,
    measuring: Cell<bool>,
    over: Cell<bool>,
    begun: Moment,
}

/// When a client's round trips are due.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    first: Duration,
    every: Duration,
}

/// Runs them all. The first answer that is not as it should be ends it.
pub(crate) async fn run<O: Op>(ops: Vec<O>, plan: Plan, cluster: &Cluster) -> anyhow::Result<Loaded> {
    let running = Running::start(ops, plan.rate)?;
    running.measure(plan, cluster).await
}

/// Load that goes on while something else happens.
pub(crate) struct Running {
    shared: Rc<Shared>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Running {
    pub(crate) fn start<O: Op>(ops: Vec<O>, rate: Option<f64>) -> anyhow::Result<Self> {
        let latency = RefCell::new(histogram()?);
        let shared = Rc::new(Shared { latency, measuring: Cell::new(false), over: Cell::new(false), begun: clock::now() });
        let (mut tasks, count) = (JoinSet::new(), u32::try_from(ops.len())?);
        let every = rate.map(|rate| Duration::from_secs_f64(f64::from(count) / rate));
        for (at, op) in (0..).zip(ops) {
            let schedule = every.map(|every| Schedule { first: every * at / count, every });
            tasks.spawn_local(client(op, Rc::clone(&shared), schedule));
        }
        Ok(Self { shared, tasks })
    }

    /// Warms up, measures, and ends it.
    pub(crate) async fn measure(mut self, plan: Plan, cluster: &Cluster) -> anyhow::Result<Loaded> {
        self.on_for(plan.warm_up).await?;
        let before = cluster.reading().await?;
        let begun = self.begin();
        self.on_for(plan.time).await?;
        let (latency, time) = (self.take()?, begun.passed());
        let usage = match before {
            Some(before) => Some(cluster.used_since(&before).await?),
            None => None,
        };
        self.end().await?;
        Ok(Loaded { latency, time, usage })
    }

    /// Counts from now on.
    pub(crate) fn begin(&self) -> Moment {
        self.shared.measuring.set(true);
        clock::now()
    }

    /// What was counted; counts no more.
    pub(crate) fn take(&self) -> anyhow::Result<Histogram<u64>> {
        self.shared.measuring.set(false);
        Ok(self.shared.latency.replace(histogram()?))
    }

    /// Lets it go on, unless something is not as it should be.
    pub(crate) async fn on_for(&mut self, time: Duration) -> anyhow::Result<()> {
        self.on_until(tokio::time::sleep(time)).await
    }

    /// Likewise, until something else has happened.
    pub(crate) async fn on_until<T>(&mut self, event: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::select! {
            done = event => Ok(done),
            Some(ended) = self.tasks.join_next() => {
                ended??;
                bail!("a client ended before its time")
            }
        }
    }

    /// Lets every client finish its last round trip.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.shared.over.set(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn client<O: Op>(mut op: O, shared: Rc<Shared>, schedule: Option<Schedule>) -> anyhow::Result<()> {
    let mut due = schedule.map(|schedule| schedule.first);
    while !shared.over.get() {
        let mut late = Duration::ZERO;
        if let (Some(at), Some(schedule)) = (&mut due, schedule) {
            let now = shared.begun.passed();
            match at.checked_sub(now) {
                Some(early) => {
                    tokio::time::sleep(early).await;
                    late = shared.begun.passed().saturating_sub(*at);
                }
                None => late = now - *at,
            }
            *at += schedule.every;
        }
        let sent = clock::now();
        let took = match op.once().await? {
            Some(took) => took,
            None => sent.passed() + late,
        };
        if shared.measuring.get() {
            shared.latency.borrow_mut().record(nanos(took)?)?;
        }
    }
    Ok(())
}

/// With three significant digits.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

pub(crate) fn nanos(length: Duration) -> anyhow::Result<u64> {
    Ok(u64::try_from(length.as_nanos())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as long as it is told.
    struct Sleeps(Duration);

    impl Op for Sleeps {
        async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
            tokio::time::sleep(self.0).await;
            self.0 = Duration::from_millis(1);
            Ok(None)
        }
    }

    fn at_rate(first: Duration, rate: Option<f64>) -> Histogram<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let mut running = Running::start(vec![Sleeps(first)], rate).expect("starts");
            running.begin();
            running.on_for(Duration::from_millis(500)).await.expect("goes on");
            let latency = running.take().expect("a histogram");
            running.end().await.expect("ends");
            latency
        })
    }

    #[test]
    fn a_stall_counts_once_in_a_closed_loop_and_in_all_that_were_due_at_a_rate() {
        let (stall, over) = (Duration::from_millis(200), 50_000_000);
        let slow = |latency: &Histogram<u64>| latency.count_between(over, u64::MAX);
        assert_eq!(slow(&at_rate(stall, None)), 1);
        // Due every 5 ms: 30 of those of the first 200 ms were due more than 50 ms before they were sent.
        assert!(slow(&at_rate(stall, Some(200.0))) >= 20);
    }

    #[test]
    fn an_error_ends_the_load() {
        struct Fails;
        impl Op for Fails {
            async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
                bail!("not as it should be")
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let ended = tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut running = Running::start(vec![Fails], None).expect("starts");
            running.on_for(Duration::from_secs(60)).await
        });
        assert_eq!(ended.expect_err("it fails").to_string(), "not as it should be");
    }
}
