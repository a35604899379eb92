//! Very many live leases: what each costs in memory, what a renewal costs among them, agents that renew all of them every so often while snapshots are
//! taken and members die, and a restart.
//!
//! A lease that is lost is an error.

use std::{rc::Rc, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_proto::v1::AcquireRequest;
use tokio::task::JoinSet;

use super::restart;
use crate::{
    clock,
    cluster::{Cluster, MEMBERS},
    connect,
    load::{self, Plan, Running},
    report::Figure,
    tenure::{
        self,
        agent::{self, Round},
        renew::{Cycle, Renewals},
        storm,
    },
};

/// Longer than anything here takes before the agents begin, so that creating them slowly loses none.
const LEASE: Duration = Duration::from_secs(900);
/// Of the cost of a renewal: so many leases in the small table, and so many a message, on so many streams.
const FEW: usize = 1_000;
const COST_BATCH: usize = 50;
const COST_STREAMS: usize = 16;
/// Of an agent.
const BATCH: usize = 1_000;
const BATCHES: usize = 10;
const PROBE_RATE: f64 = 600.0;
/// Streams of probes at each member: one alone would be busy still when its next renewal is due, and count how far it is behind instead of a stall.
const PROBES: usize = 8;
/// How much longer the steady part may take for every member to have taken a snapshot.
const FOR_SNAPSHOTS: Duration = Duration::from_secs(180);
const DEAD_FOR: Duration = Duration::from_secs(3);

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    pub(crate) leases: usize,
    /// Each is renewed once in it.
    pub(crate) every: Duration,
    /// At least.
    pub(crate) steady: Duration,
    /// Goes on for longer if not every member has taken a snapshot by then.
    pub(crate) until_snapshots: bool,
}

pub(super) fn request(n: usize) -> anyhow::Result<AcquireRequest> {
    let (namespace, name) = (tenure::NAMESPACE.to_owned(), format!("node-{n:07}"));
    Ok(AcquireRequest { namespace, holder: name.clone(), name, duration: tenure::duration(LEASE)?, reclaim: true, ..Default::default() })
}

pub(super) async fn run(what: String, cluster: &mut Cluster, size: Size, plan: Plan) -> anyhow::Result<Figure> {
    ensure!(cluster.is_ours(), "this needs a cluster that may be measured and hurt (--start)");
    let endpoints = cluster.endpoints();
    let Grown { tokens, steps, acquired } = grow(cluster, size.leases, plan).await?;
    let (first, last) = (steps.first().context("a step")?, steps.last().context("a step")?);
    let more = last.leases.saturating_sub(first.leases).max(1) as f64;
    let rss = first.rss.iter().zip(&last.rss).map(|(few, many)| many.saturating_sub(*few) as f64 / more).fold(0.0, f64::max);
    eprintln!("  memory: {rss:.0} bytes a lease");

    let (round, mut agents) = (Round::new(size.every)?, JoinSet::new());
    let held: Vec<Vec<Vec<u64>>> = tokens.chunks(BATCH * BATCHES).map(|held| held.chunks(BATCH).map(<[u64]>::to_vec).collect()).collect();
    let count = held.len();
    for (at, batches) in held.into_iter().enumerate() {
        agents.spawn_local(agent::keep(endpoints.clone(), at, batches, at as f64 / count as f64, Rc::clone(&round)));
    }
    let steady = steady(cluster, size, &round, &mut agents).await?;
    let faults = faults(cluster, size, &round, &mut agents).await?;
    round.end();
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    let restart = restart::all(cluster, &tokens).await?;

    // The latency of the messages of the steady part, from when each was due.
    let mut figure = Figure::of_times(what, cluster.target, steady.latency);
    let ms = |nanos: u64| nanos as f64 / 1e6;
    figure.values.extend([
        ("rss_bytes_per_lease", rss),
        ("acquired_per_second", acquired),
        ("cost_ratio", last.cost / first.cost),
        ("renewed_per_second", steady.renewed_per_second),
        ("stall_ms", steady.stall_ms),
        ("snapshots", steady.snapshots as f64),
        ("elections", steady.elections as f64),
        ("retried", steady.retried as f64),
        ("seconds", steady.time.as_secs_f64()),
        ("faults_p99_ms", ms(faults.latency.value_at_quantile(0.99))),
        ("faults_max_ms", ms(faults.latency.max())),
        ("faults_retried", faults.retried as f64),
        ("restart_s", restart.all_ready.as_secs_f64()),
        ("restart_first_s", restart.first.as_secs_f64()),
    ]);
    figure.lists.push(("rss_bytes", last.rss.iter().map(|bytes| *bytes as f64).collect()));
    figure.lists.push(("table_leases", steps.iter().map(|step| step.leases as f64).collect()));
    figure.lists.push(("table_cost_us", steps.iter().map(|step| step.cost).collect()));
    Ok(figure)
}

/// What it is like with so many.
struct Step {
    leases: usize,
    /// Of each member.
    rss: Vec<u64>,
    /// CPU of all members for a renewal, in µs.
    cost: f64,
}

struct Grown {
    tokens: Vec<u64>,
    steps: Vec<Step>,
    /// A second.
    acquired: f64,
}

/// More and more leases, ten times as many with each step.
async fn grow(cluster: &Cluster, leases: usize, plan: Plan) -> anyhow::Result<Grown> {
    let (mut tokens, mut steps, mut time) = (Vec::with_capacity(leases), Vec::new(), Duration::ZERO);
    let mut next = FEW.min(leases);
    loop {
        let begun = tokens.len();
        let storm = storm::acquire(&cluster.endpoints(), next - begun, move |n| request(begun + n)).await?;
        tokens.extend(storm.tokens);
        time += storm.time;
        let (before, cost) = (cluster.rss()?, cost(cluster, &tokens, plan).await?);
        // The first time it renews, a replica fills caches that are no lease's: they must not count as the first leases' memory, nor as the last ones'.
        let rss = if steps.is_empty() { cluster.rss()? } else { before };
        eprintln!("  {next} leases; {cost:.2} µs of CPU a renewal");
        steps.push(Step { leases: next, rss, cost });
        if next == leases {
            let acquired = leases as f64 / time.as_secs_f64();
            return Ok(Grown { tokens, steps, acquired });
        }
        next = (next * 10).min(leases);
    }
}

/// CPU of all members for the renewal of one of these, in µs; leases that are neighbours in a message are none in the table.
async fn cost(cluster: &Cluster, tokens: &[u64], plan: Plan) -> anyhow::Result<f64> {
    let (channels, mut ops) = (connect::channels(&cluster.endpoints(), COST_STREAMS).await?, Vec::new());
    let (per_stream, batch) = (tokens.len().div_ceil(COST_STREAMS), COST_BATCH.min(tokens.len() / COST_STREAMS).max(1));
    for (channel, mine) in channels.into_iter().zip(tokens.chunks(per_stream)) {
        let messages = mine.len() / batch;
        let nth = |n: usize| (0..batch).map(|at| mine[at * messages + n]).collect::<Vec<_>>();
        ops.push(Cycle::open(channel, (0..messages).map(nth).collect()).await?);
    }
    let loaded = load::run(ops, plan, cluster).await?;
    let usage = loaded.usage.context("processes of ours")?;
    Ok(usage.cpu().as_secs_f64() * 1e6 / (loaded.latency.len() * batch as u64) as f64)
}

struct Steady {
    latency: hdrhistogram::Histogram<u64>,
    renewed_per_second: f64,
    stall_ms: f64,
    snapshots: usize,
    elections: u64,
    /// Messages that were not answered within a second.
    retried: u64,
    time: Duration,
}

type Agents = JoinSet<anyhow::Result<()>>;

/// Nothing happens but renewals and snapshots. Small renewals at every member show whether something stalls.
async fn steady(cluster: &Cluster, size: Size, round: &Round, agents: &mut Agents) -> anyhow::Result<Steady> {
    // Until every lease has been renewed once.
    on_for(agents, size.every).await?;
    let mut probes = Vec::new();
    let channels = connect::channels(&cluster.endpoints(), MEMBERS).await?;
    for at in 0..MEMBERS * PROBES {
        let channel = channels[at % MEMBERS].clone();
        let token = tenure::acquire(&mut tenure::Client::new(channel.clone()), &format!("probe-{at}"), super::LONG).await?;
        probes.push(Renewals::open(channel, &[token]).await?);
    }
    let mut probes = Running::start(probes, Some(PROBE_RATE))?;
    let (mut indexes, mut snapshots) = (cluster.snapshots().await?, vec![0_usize; MEMBERS]);
    let term = cluster.term().await?.context("a term")?;
    round.lap()?;
    let begun = probes.begin();
    while begun.passed() < size.steady || (size.until_snapshots && snapshots.contains(&0) && begun.passed() < size.steady + FOR_SNAPSHOTS) {
        probes.on_until(on_for(agents, Duration::from_secs(1))).await??;
        for (at, index) in cluster.snapshots().await?.into_iter().enumerate() {
            if std::mem::replace(&mut indexes[at], index) != index {
                snapshots[at] += 1;
                eprintln!("  {:.0} s: a snapshot", begun.passed().as_secs_f64());
            }
        }
    }
    let (lap, time, probed) = (round.lap()?, begun.passed(), probes.take()?);
    probes.end().await?;
    let renewed_per_second = lap.renewed as f64 / time.as_secs_f64();
    let (p99, stall_ms) = (lap.latency.value_at_quantile(0.99) as f64 / 1e6, probed.max() as f64 / 1e6);
    eprintln!("  {renewed_per_second:.0} renewals a second for {:.0} s: p99 {p99:.1} ms; longest wait of a small one {stall_ms:.1} ms", time.as_secs_f64());
    let elections = cluster.term().await?.context("a term")? - term;
    Ok(Steady { latency: lap.latency, renewed_per_second, stall_ms, snapshots: snapshots.iter().sum(), elections, retried: lap.retried, time })
}

/// A follower dies and comes back; then the raft leader does.
async fn faults(cluster: &mut Cluster, size: Size, round: &Round, agents: &mut Agents) -> anyhow::Result<agent::Lap> {
    for of_leader in [false, true] {
        let leader = cluster.raft_leader().await?;
        let dies = if of_leader { leader } else { (leader + 1) % MEMBERS };
        eprintln!("  kill -9 of {}", if of_leader { "the raft leader" } else { "a follower" });
        cluster.kill(dies)?;
        on_for(agents, DEAD_FOR).await?;
        cluster.restart(dies)?;
        let begun = clock::now();
        cluster.ready().await?;
        eprintln!("  back after {:.1} s", begun.passed().as_secs_f64());
        // Until every lease has been renewed once more.
        on_for(agents, size.every).await?;
    }
    round.lap()
}

async fn on_for(agents: &mut Agents, time: Duration) -> anyhow::Result<()> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        Some(ended) = agents.join_next() => {
            ended??;
            anyhow::bail!("an agent ended before its time")
        }
    }
}
