//! One run of one scenario: before, meanwhile, after; then everything ends in good order, and is judged.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tenure_checker::history::{Bounds, Meta, What};

use super::{
    Disks, Scenario, Setup, Stage,
    stage::{Observers, host},
    store::Store,
    traffic::{Traffic, User},
    user::NAMESPACE,
};
use crate::{
    Cluster, Settings, api, binaries,
    clock::{self, Rng},
    disk::{self, Mount},
    faketime::Faketime,
    history::History,
    netns::{Net, Place},
    proxy::Proxy,
    replica::PATIENCE,
    watcher::Watcher,
};

/// Operations a second that three users get served by a cluster at peace, at the very least; usual are hundreds.
const PEACE: u64 = 20;
/// How long peace may take to bring that many.
const LONGEST_PEACE: Duration = Duration::from_secs(60);

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What happens.
    pub scenario: &'static Scenario,
    /// Repeats the choices of the harness and the users; the machine has its own.
    pub seed: u64,
    /// How long things go wrong.
    pub seconds: u64,
    /// Replicas.
    pub replicas: u64,
    /// Of the hosts; `None`: there are none, all is on loopback.
    pub owner: Option<u32>,
}

impl Plan {
    /// What repeats it.
    #[must_use]
    pub fn command(&self) -> String {
        let Self { scenario, seed, seconds, replicas, .. } = self;
        format!("cargo run -p tenure-tests --bin chaos -- run {} --seed {seed} --seconds {seconds} --replicas {replicas}", scenario.name)
    }
}

/// What came of a run, in a line for people and programs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// In the history, those of which nobody knows what came among them.
    pub operations: usize,
    /// Nobody knows.
    pub unknown: usize,
    /// Served a second: before, meanwhile, after.
    pub rates: [u64; 3],
    /// That were recorded.
    pub faults: usize,
    /// Of raft leader.
    pub elections: usize,
    /// Keepers that lost their lease.
    pub losses: usize,
    /// Of any property.
    pub checks: u64,
    /// Of any property.
    pub violations: u64,
    /// What else is wrong: then the run has failed.
    pub wrong: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, unknown, rates: [before, meanwhile, after], faults, elections, losses, checks, violations, wrong } = self;
        write!(
            f,
            "operations={operations} unknown={unknown} before={before}/s meanwhile={meanwhile}/s after={after}/s faults={faults} elections={elections} \
             lost={losses} checks={checks} violations={violations}"
        )?;
        if !wrong.is_empty() {
            write!(f, " wrong={}", wrong.len())?;
        }
        write!(f, " {}", if self.passed() { "PASSED" } else { "FAILED" })
    }
}

impl Summary {
    /// Nothing was violated, and the run shows something.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations == 0 && self.wrong.is_empty()
    }
}

/// Runs it. What is wrong with the cluster is in the summary; an error is what kept the run from being judged, and that is wrong as well.
pub async fn run(plan: Plan) -> Summary {
    let mut summary = Summary::default();
    let mut setup = Setup::usual(plan.replicas);
    (plan.scenario.prepare)(&mut setup);
    let history = Arc::new(History::about(meta(&plan, &setup)));
    if let Err(error) = attempt(plan, setup, &history, &mut summary).await {
        summary.wrong.push(format!("{error:#}"));
    }
    // Also of a run that came to no good end: it may show why.
    match history.verdict(!summary.wrong.is_empty()) {
        Ok(report) => {
            (summary.operations, summary.unknown, summary.faults) = (report.operations, report.unknown, report.faults);
            (summary.checks, summary.violations) = (report.checked(), report.violations());
            summary.wrong.extend(report.told().take(3).map(|(id, violation)| format!("{id} {}: {}", violation.lease, violation.text)));
        }
        Err(error) => summary.wrong.push(format!("{error:#}")),
    }
    std::fs::remove_dir_all(disks(std::process::id())).ok();
    summary
}

const DISKS: &str = "chaos-disks-";

/// Where the disks of a harness are.
fn disks(owner: u32) -> PathBuf {
    binaries::scratch().join(format!("{DISKS}{owner}"))
}

/// Unmounts and removes the disks of harnesses that are gone.
pub(super) fn sweep() {
    for entry in std::fs::read_dir(binaries::scratch()).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.strip_prefix(DISKS).is_some_and(|owner| std::fs::metadata(format!("/proc/{owner}")).is_err()) {
            disk::unmount_all(&entry.path());
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

async fn attempt(plan: Plan, setup: Setup, history: &Arc<History>, summary: &mut Summary) -> anyhow::Result<()> {
    let (mut stage, _store) = build(plan, setup, history).await?;
    let start = stage.cluster.api().grant(api::acquire(NAMESPACE, "first", "harness", 1_000)).await?.revision;
    let mut watchers: Vec<Watcher> = (0..2).map(|at| Watcher::recorded(&stage.cluster.apis(), at, NAMESPACE, start, history)).collect();
    stage.traffic.start()?;
    summary.rates[0] = peace(&mut stage, Duration::from_secs(2)).await.context("before")?;

    let begun = clock::now();
    stage.until = begun + clock::nanos(Duration::from_secs(plan.seconds));
    (plan.scenario.act)(&mut stage).await.with_context(|| format!("while {}", plan.scenario.what))?;
    stage.traffic.read()?;
    let (passed, served) = (clock::since(begun).as_secs().max(1), stage.traffic.served(begun, u64::MAX) as u64);
    summary.rates[1] = served / passed;
    if served < plan.scenario.floor * plan.seconds {
        summary.wrong.push(format!("{served} operations were served while {}: too few to show anything", plan.scenario.what));
    }

    heal(&mut stage).await.context("healing")?;
    stage.history.record(What::Calm);
    summary.rates[2] = peace(&mut stage, Duration::from_secs(3)).await.context("after")?;

    stage.traffic.stop().await?;
    summary.elections = stage.observers.changes();
    summary.losses = stage.traffic.losses.len();
    if plan.scenario.keeps && summary.losses > 0 {
        summary.wrong.push(format!("{} keepers lost their leases, the first: {}", summary.losses, stage.traffic.losses[0].1));
    }
    history.replicas(&stage.cluster.settled().await?);
    let at = usize::try_from(stage.rng.below(stage.cluster.replicas.len() as u64))?;
    let reader = stage.cluster.replicas[at].api.clone();
    history.read_all(&reader, NAMESPACE).await?;
    let end = history.witness(&reader, NAMESPACE, start).await?;
    for watcher in &mut watchers {
        watcher.reached(end).await?;
    }
    for watcher in watchers {
        watcher.stop().await?;
    }
    stage.observers = Observers::default();
    farewell(&mut stage, summary).await?;
    let Stage { cluster, traffic, .. } = stage;
    drop(traffic);
    cluster.passed()
}

fn meta(plan: &Plan, setup: &Setup) -> Meta {
    // Far beyond what is ever seen: a busy machine may be slow, and a bound says never.
    let bounds = Bounds {
        first_write: Some(20_000),
        expiry: Some(6_000),
        expiry_per_disturbance: Some(5_000),
        hand_over: Some(6_000),
        mass_expiry: Some(20_000),
        ..Bounds::default()
    };
    Meta {
        name: format!("chaos-{}-{}", plan.scenario.name, plan.replicas),
        seed: plan.seed,
        clocks_within_promise: setup.clocks_within_promise,
        doubt_lag_ms: 1,
        bounds,
        ..Meta::default()
    }
}

async fn build(plan: Plan, setup: Setup, history: &Arc<History>) -> anyhow::Result<(Stage, Store)> {
    let mut rng = Rng::of(plan.seed);
    let ids = 1..=setup.replicas + setup.spares;
    let mut hosts: Vec<(String, u8)> = ids.clone().map(|id| (host(id), u8::try_from(id).unwrap_or(0))).collect();
    hosts.extend((1..=setup.users).map(|number| (format!("u{number}"), 100 + u8::try_from(number).unwrap_or(0))));
    let net = plan.owner.map(|owner| Net::new(owner, &hosts)).transpose()?;
    let place = |name: &str| net.as_ref().map_or_else(|| Ok(Place::default()), |net| net.place(name));
    let own_ip = net.as_ref().map_or(Place::default().ip, Net::own_ip);

    let places = ids.map(|id| place(&host(id))).collect::<anyhow::Result<Vec<_>>>()?;
    let mut peer_proxies = Vec::new();
    if setup.peer_proxies {
        ensure!(net.is_some(), "proxies between replicas need hosts, whose addresses are known beforehand");
        for place in places.iter().take(usize::try_from(setup.replicas)?) {
            peer_proxies.push(Proxy::start_at(own_ip, &format!("{}:7401", place.ip)).await?);
        }
    }
    let name = format!("chaos-{}", plan.scenario.name);
    let mounts = mounts(&setup)?;
    let settings = Settings {
        replicas: setup.replicas,
        min_duration: "100ms",
        snapshot_log_bytes: setup.snapshot_log_bytes,
        data_dirs: mounts.iter().map(|mount| mount.path.join("data")).collect(),
        places,
        peers: peer_proxies.iter().map(|proxy| proxy.addr.clone()).collect(),
        ..Settings::default()
    };
    let mut cluster = Cluster::prepare(&name, settings)?;
    let (mut faketimes, dir) = (Vec::new(), cluster.dir().to_owned());
    if let Some(jumps) = setup.faketime {
        for replica in &mut cluster.replicas {
            let faketime = Faketime::new(&dir, &host(replica.id))?;
            if let Some(rate) = setup.rates.get(faketimes.len() % setup.rates.len().max(1)) {
                faketime.rate(*rate)?;
            }
            replica.env = faketime.env(jumps);
            faketimes.push(faketime);
        }
    }
    cluster.start_all().await?;

    let store = Store::start(own_ip, history).await?;
    let mut client_proxies = Vec::new();
    if setup.client_proxies {
        for replica in &cluster.replicas {
            client_proxies.push(Proxy::start_at(own_ip, &replica.client.addr()).await?);
        }
    }
    let direct = cluster.replicas.iter().map(|replica| replica.client.addr());
    let endpoints: Vec<String> = if setup.client_proxies { client_proxies.iter().map(|proxy| proxy.addr.clone()).collect() } else { direct.collect() };
    let mut users = Vec::new();
    for number in 1..=setup.users {
        let orders = setup.orders(usize::try_from(number - 1)?, rng.bits(), endpoints.clone(), store.addr.clone());
        let mut user = User::new(number, place(&format!("u{number}"))?, &dir, orders);
        if let Some(jumps) = setup.faketime {
            let faketime = Faketime::new(&dir, &user.name)?;
            user.env = faketime.env(jumps);
            faketimes.push(faketime);
        }
        users.push(user);
    }
    let mut observers = Observers::default();
    for replica in &cluster.replicas {
        observers.watch(replica.id, replica.api.clone(), history);
    }
    let traffic = Traffic::new(history, users);
    let history = Arc::clone(history);
    let stage = Stage { plan, setup, cluster, traffic, net, peer_proxies, client_proxies, faketimes, mounts, history, rng, until: u64::MAX, observers };
    Ok((stage, store))
}

fn mounts(setup: &Setup) -> anyhow::Result<Vec<Mount>> {
    let folder = disks(std::process::id());
    let names: Vec<String> = (1..=setup.replicas).map(|id| format!("disk-{id}")).collect();
    match setup.disks {
        Disks::Folders => Ok(Vec::new()),
        Disks::Small(mib) => names.iter().map(|name| Mount::tmpfs(&folder, name, mib)).collect(),
        Disks::Own(mib) => {
            std::fs::create_dir_all(&folder)?;
            names.iter().map(|name| Mount::ext4(&folder, name, mib)).collect()
        }
    }
}

/// Waits until enough was served to say that all works; how much a second that was.
async fn peace(stage: &mut Stage, least: Duration) -> anyhow::Result<u64> {
    let begun = clock::now();
    stage.pass(least).await?;
    loop {
        let served = stage.traffic.served(begun, u64::MAX) as u64;
        if served >= PEACE * least.as_secs() {
            return Ok(served * 1_000 / u64::try_from(clock::since(begun).as_millis())?.max(1));
        }
        ensure!(clock::since(begun) < LONGEST_PEACE, "{served} operations were served in {LONGEST_PEACE:?}: too few to show anything");
        stage.pass(Duration::from_millis(200)).await?;
    }
}

/// Whatever a scenario has left: everything works again.
async fn heal(stage: &mut Stage) -> anyhow::Result<()> {
    if let Some(net) = &stage.net {
        net.mend_all()?;
    }
    for proxy in stage.peer_proxies.iter().chain(&stage.client_proxies) {
        proxy.cut(false);
        proxy.cut_answers(false);
        proxy.delay_answers(Duration::ZERO);
        proxy.delay_requests(Duration::ZERO);
    }
    for replica in stage.cluster.replicas.iter().filter(|replica| replica.running()) {
        replica.signal(Signal::CONT)?;
    }
    for user in &stage.traffic.users {
        user.signal(Signal::CONT).ok();
    }
    stage.restart_what_ended().await?;
    stage.cluster.start_all().await?;
    stage.traffic.start()
}

/// All replicas end in good order, and leave sound directories.
async fn farewell(stage: &mut Stage, summary: &mut Summary) -> anyhow::Result<()> {
    for replica in &stage.cluster.replicas {
        replica.signal(Signal::TERM)?;
    }
    for replica in &mut stage.cluster.replicas {
        let status = replica.exited().await?;
        if !status.success() {
            summary.wrong.push(format!("replica {} ended with {status} when it was told to end", replica.id));
        }
    }
    for replica in &stage.cluster.replicas {
        let dir: PathBuf = replica.data_dir.clone();
        let output = tokio::process::Command::new(binaries::tenured()?).args(["check", "--data-dir"]).arg(&dir).output();
        let output = tokio::time::timeout(PATIENCE, output).await.context("tenured check does not end")??;
        if !output.status.success() {
            summary.wrong.push(format!("replica {}: {}", replica.id, String::from_utf8_lossy(&output.stdout)));
        }
    }
    Ok(())
}
