//! The raft leader goes: how long no write is acknowledged, as clients of the other members see it.
//!
//! On each of the others a client writes all the time, gives up a write that is not answered within [`WITHIN`], and tries the next. The gap is the longest
//! time without an acknowledgement at any of them.

use std::{cell::RefCell, rc::Rc, time::Duration};

use anyhow::{bail, ensure};
use tokio::task::JoinSet;

use super::LONG;
use crate::{
    clock::{self, Moment},
    cluster::{Cluster, Target},
    connect, etcd,
    load::{Op, histogram, nanos},
    report::Figure,
    tenure,
};

const WITHIN: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(1);
const STEADY: Duration = Duration::from_millis(500);
/// In a row, of each client: more than can have been under way.
const AGAIN: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to the raft leader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    Kill,
    Transfer,
}

/// When writes were acknowledged.
type Acknowledged = Rc<RefCell<Vec<Moment>>>;

pub(super) async fn run(what: String, cluster: &mut Cluster, times: usize, fault: Fault) -> anyhow::Result<Figure> {
    ensure!(cluster.is_ours(), "this needs a cluster that may be hurt (--start)");
    let (mut gaps, mut timeline) = (histogram()?, Vec::new());
    for turn in 0..times {
        let (gap, around) = once(cluster, fault).await?;
        gaps.record(nanos(gap)?)?;
        eprintln!("  {} of {times}: {:.0} ms without a write", turn + 1, gap.as_secs_f64() * 1000.0);
        if turn == 0 {
            timeline = around;
        }
    }
    let mut figure = Figure::of_times(what, cluster.target, gaps);
    figure.lists.push(("timeline_s", timeline));
    Ok(figure)
}

async fn once(cluster: &mut Cluster, fault: Fault) -> anyhow::Result<(Duration, Vec<f64>)> {
    let leader = cluster.raft_leader().await?;
    let (mut clients, mut acknowledged): (JoinSet<anyhow::Result<()>>, Vec<Acknowledged>) = (JoinSet::new(), Vec::new());
    for (at, address) in cluster.endpoints().iter().enumerate().filter(|(at, _)| *at != leader) {
        let (mine, channel) = (Acknowledged::default(), connect::channel(address).await?);
        acknowledged.push(Rc::clone(&mine));
        match cluster.target {
            Target::Tenure => {
                let mut client = tenure::Client::new(channel);
                let token = tenure::acquire(&mut client, &format!("writes-{at}"), LONG).await?;
                clients.spawn_local(write(tenure::renew::Unary { client, token }, mine));
            }
            Target::Etcd => {
                let client = etcd::pb::kv_client::KvClient::new(channel);
                clients.spawn_local(write(etcd::renew::Put { client, key: format!("tenure-bench/writes-{at}").into() }, mine));
            }
        }
    }
    let begun = clock::now();
    wait(&mut clients, STEADY).await?;
    let struck = clock::now();
    match fault {
        Fault::Kill => cluster.kill(leader)?,
        Fault::Transfer => cluster.transfer().await?,
    }
    let since = |all: &Acknowledged| all.borrow().iter().filter(|at| struck < **at).count();
    while !acknowledged.iter().all(|all| since(all) >= AGAIN) {
        ensure!(struck.passed() < PATIENCE, "no writes for {PATIENCE:?} after the raft leader was gone");
        wait(&mut clients, Duration::from_millis(10)).await?;
    }
    wait(&mut clients, STEADY).await?;
    clients.shutdown().await;
    if fault == Fault::Kill {
        cluster.restart(leader)?;
        cluster.ready().await?;
    }
    let mut all: Vec<Duration> = acknowledged.iter().flat_map(|all| all.borrow().iter().map(|at| begun.until(*at)).collect::<Vec<_>>()).collect();
    all.sort_unstable();
    let struck = begun.until(struck);
    // A gap that was over before it happened is none of its doing.
    let gap = all.windows(2).filter(|pair| pair[1] > struck).map(|pair| pair[1] - pair[0]).max();
    let timeline = all.iter().map(|at| at.as_secs_f64() - struck.as_secs_f64()).collect();
    match gap {
        Some(gap) => Ok((gap, timeline)),
        None => bail!("no writes"),
    }
}

async fn write<O: Op>(mut op: O, acknowledged: Acknowledged) -> anyhow::Result<()> {
    loop {
        match tokio::time::timeout(WITHIN, op.once()).await {
            Ok(Ok(_)) => acknowledged.borrow_mut().push(clock::now()),
            // Refused, or the connection is gone: to be expected. A wrong answer is not.
            Ok(Err(error)) if !error.is::<tonic::Status>() => return Err(error),
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Unless a client has had a wrong answer.
async fn wait(clients: &mut JoinSet<anyhow::Result<()>>, time: Duration) -> anyhow::Result<()> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        Some(ended) = clients.join_next() => ended?,
    }
}
