//! Elections that change hands: because the elected leader resigns, and because it is gone without a word.
//!
//! Each candidate has a client, and so a connection, of its own, as processes would.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tenure_client::{Client, LeaderElection, Leadership};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use crate::{
    clock::{self, Moment},
    cluster::Target,
    load::{histogram, nanos},
    report::Figure,
};

const PATIENCE: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "tenure-bench";

/// Somebody leads since then, and goes back into the queue when the last part is used.
type Elected = (Leadership, Moment, oneshot::Sender<()>);

/// Candidates that lead one after the other, until it is dropped.
struct Candidates {
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
    elected: mpsc::UnboundedReceiver<Elected>,
}

impl Candidates {
    fn start(endpoints: &[String], name: &str, lease: Duration, count: usize) -> anyhow::Result<Self> {
        let (tell, elected) = mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for _ in 0..count {
            let client = Client::builder().endpoints(endpoints).build()?;
            let election = LeaderElection::builder(&client, NAMESPACE, name).lease_duration(lease).build()?;
            let tell = tell.clone();
            tasks.push(tokio::spawn(async move {
                loop {
                    let leadership = election.campaign().await?;
                    let since = clock::now();
                    let (over, done) = oneshot::channel();
                    if tell.send((leadership, since, over)).is_err() || done.await.is_err() {
                        return anyhow::Ok(());
                    }
                }
            }));
        }
        Ok(Self { tasks, elected })
    }

    async fn next(&mut self) -> anyhow::Result<Elected> {
        let elected = tokio::time::timeout(PATIENCE, self.elected.recv()).await.with_context(|| format!("nobody was elected within {PATIENCE:?}"))?;
        elected.context("the candidates have ended")
    }
}

impl Drop for Candidates {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// From before `resign` to the next one leading, its claim included.
pub(crate) async fn handovers(endpoints: &[String], waiters: usize, rounds: usize) -> anyhow::Result<Figure> {
    let mut candidates = Candidates::start(endpoints, &format!("handover-{waiters}"), Duration::from_secs(15), waiters + 1)?;
    let (mut latency, mut leading) = (histogram()?, candidates.next().await?);
    // Until all have queued up.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..rounds {
        let (leadership, _, over) = leading;
        let begun = clock::now();
        let resigning = tokio::spawn(async move { (leadership.resign().await, leadership) });
        leading = candidates.next().await?;
        latency.record(nanos(begun.until(leading.1))?)?;
        resigning.await?.0?;
        ensure!(leading.0.is_leader(), "elected, and does not lead");
        over.send(()).ok();
        // For it to queue up again.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Figure::of_times(format!("resign to the next one leading, {waiters} waiting"), Target::Tenure, latency))
}

/// From the end of the lease of an elected leader that is gone without a word (its last renewal, and the lease duration) to the next one leading.
pub(crate) async fn takeovers(endpoints: &[String], lease: Duration, elections: usize, rounds: usize) -> anyhow::Result<Figure> {
    let mut tasks = JoinSet::new();
    for at in 0..elections {
        let mut candidates = Candidates::start(endpoints, &format!("takeover-{at}"), lease, 3)?;
        tasks.spawn(async move {
            let (mut late, mut leading) = (histogram()?, candidates.next().await?);
            for round in 0..rounds {
                let (leadership, _, over) = leading;
                // Anywhere after a renewal was answered, and before the next is sent: one on its way would move the end without a word.
                let share = f64::from(u32::try_from((round * 7 + at * 3) % 16)?) / 32.0;
                let before = leadership.lease().deadline();
                while leadership.lease().deadline() == before {
                    ensure!(leadership.is_leader(), "it does not lead any more: {:?}", leadership.lease().lost_reason());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::time::sleep((lease * 2 / 15).mul_f64(share)).await;
                let deadline = leadership.lease().deadline();
                let (now, read) = (clock::readings(), clock::now());
                // Nobody says goodbye.
                drop(leadership);
                over.send(()).ok();
                leading = candidates.next().await?;
                // What a holder counts on is 0.2 % and 1 ms shorter than what was granted.
                let end = now.until(deadline) + lease * 2 / 1000 + Duration::from_millis(1);
                late.record(nanos(read.until(leading.1).saturating_sub(end))?)?;
            }
            anyhow::Ok(late)
        });
    }
    let mut latency: Histogram<u64> = histogram()?;
    while let Some(one) = tasks.join_next().await {
        latency.add(one??)?;
    }
    let what = format!("end of a silent leader's lease ({lease:?}) to the next one leading, {elections} elections");
    Ok(Figure::of_times(what, Target::Tenure, latency))
}
