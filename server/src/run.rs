//! Puts one replica together, runs it, and takes it apart in the order that hurts nobody.
//!
//! Nothing here decides anything about leases. What ends the replica: a request from outside, or a failure that makes it useless.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tenure_lease::SessionId;
use tokio::{runtime::Handle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Port, Shares},
    clock::Clock,
    config::Config,
    consensus::{self, Consensus},
    descriptors::Descriptors,
    disk::{SharedDisk, offloaded},
    history::History,
    http,
    identity::Identity,
    members::{self, Members},
    metrics,
    net::{Listeners, SharedConnector},
    peer::{self, PeerService, Peers},
    read::Reads,
    readiness::Readiness,
    replica::{Applications, Observer, OnApplied},
    server_identity::ServerIdentity,
    service::{self, Parts},
    waiting::Waiting,
    watch::WatchHub,
    write::{Proposer, Router},
};

/// How long a raft leader that goes down may look for a successor. Without one it goes all the same: the others elect one.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long calls under way may take to finish; the client port itself gives them a second less (service/transport.rs).
const DRAIN: Duration = Duration::from_secs(6);
/// How long the replica's own tasks may take to end after they were told to.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// Everything environmental: a replica has no other way out. The machine's, or a simulation's.
pub struct Surroundings {
    /// Its three ports.
    pub listeners: Listeners,
    /// The runtime that serves the client port, on another thread than the one that runs the replica. `None`: the replica's own.
    pub clients: Option<Handle>,
    /// To reach the others.
    pub connector: SharedConnector,
    /// The only time.
    pub clock: Arc<dyn Clock>,
    /// The only disk, but for history.
    pub disk: SharedDisk,
    /// File descriptors: they bound how many connections the ports take.
    pub descriptors: Descriptors,
    /// All the randomness there is: identities, session and request ids and jitter follow from it.
    pub seed: u64,
    /// Told of all that is applied.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Runs one replica until `shutdown` resolves and everything acknowledged is on disk.
///
/// # Errors
/// The data directory cannot be used, the replica may not take part in its cluster, or its storage failed while it ran.
pub async fn run(config: Config, surroundings: Surroundings, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let Surroundings { listeners, clients, connector, clock, disk, descriptors, seed, observer } = surroundings;
    let mut rng = StdRng::seed_from_u64(seed);
    let [fresh_replica_id, fresh_cluster_id] = [uuid(&mut rng), uuid(&mut rng)];
    tracing::info!(node = config.node_id, version = env!("CARGO_PKG_VERSION"), data_dir = %config.data_dir.display(), "starting");
    let ports = Ports::share_out(&config, descriptors)?;

    // From the disk: who this is, what it knew, what it had promised.
    let directory = Directory::open(&config, &disk, fresh_replica_id).await?;
    let watches = WatchHub::new(config.limits.watch_queue);
    let waiting = Waiting::new(SessionId(rng.random()));
    let Directory { identity, history, table, progress, recovered, log } = directory;
    let mut told: Vec<Box<dyn OnApplied>> = vec![Box::new(watches.clone()), Box::new(waiting.clone())];
    told.extend(history.clone().map(|history| Box::new(history) as Box<dyn OnApplied>));
    for listener in &told {
        listener.replaced(&table);
    }
    if let Some(observer) = &observer {
        observer.replaced(progress.index, &table);
    }
    let applications = Applications::new(table, progress, told, observer);

    // The parts.
    let peers = Peers::new(connector, identity.clone());
    let consensus = Consensus::start(&config, identity.clone(), peers.clone(), Arc::clone(&applications) as _, recovered, log).await?;
    let proposer = Proposer::new(consensus.clone(), Arc::clone(&applications), Arc::clone(&clock), &config.limits, clients.clone());
    let router = Router::new(consensus.clone(), proposer.clone(), peers.clone(), &config.limits, clients.clone(), rng.random());
    let reads = Reads::new(consensus.clone(), Arc::clone(&applications), peers.clone());
    let members = Members::new(&config, identity.clone(), consensus.clone(), peers.clone());
    let readiness = Readiness::new();
    // `stopping` ends streams; `closing` ends what calls under way still need.
    let (stopping, closing) = (CancellationToken::new(), CancellationToken::new());

    // What runs beside the calls.
    let inner = TaskTracker::new();
    inner.spawn({
        let (proposer, closing) = (proposer.clone(), closing.clone());
        async move { proposer.run(closing).await }
    });
    inner.spawn({
        let (router, closing) = (router.clone(), closing.clone());
        async move { router.run(closing).await }
    });
    let serving = clients.unwrap_or_else(Handle::current);
    inner.spawn_on(
        {
            let (reads, closing) = (reads.clone(), closing.clone());
            async move { reads.run(closing).await }
        },
        &serving,
    );
    inner.spawn({
        let (members, closing) = (members.clone(), closing.clone());
        async move { members.keep_addresses_current(closing).await }
    });
    inner.spawn_on(
        {
            let (watches, closing) = (watches.clone(), closing.clone());
            async move { watches.run(closing).await }
        },
        &serving,
    );
    let outer = TaskTracker::new();
    outer.spawn({
        let (waiting, router, applications, stopping) = (waiting.clone(), router.clone(), Arc::clone(&applications), stopping.clone());
        async move { waiting.run(router, applications, stopping).await }
    });

    #[cfg(feature = "bug_expiry_without_term")]
    inner.spawn(crate::bugs::revoke_what_has_expired(router.clone(), consensus.clone(), Arc::clone(&applications), Arc::clone(&clock), closing.clone()));

    // The ports.
    let peer_service = PeerService::new(identity.clone(), consensus.clone(), proposer.clone(), members.clone(), config.advertise.clone());
    let peer_port = inner.spawn(peer::serve(listeners.peer, Arc::clone(&ports.peer), peer_service, closing.clone().cancelled_owned()));
    let sources = metrics::Sources {
        applications: Arc::clone(&applications),
        consensus: consensus.clone(),
        watches: watches.clone(),
        ports: [&ports.client, &ports.peer, &ports.http].map(Arc::clone),
        open_files: descriptors.open,
        queue_depth: Box::new({
            let proposer = proposer.clone();
            move || proposer.queued()
        }),
    };
    let pages = http::Pages { readiness: readiness.clone(), metrics: Box::new(move |ready| sources.text(ready)) };
    inner.spawn(http::serve(listeners.http, Arc::clone(&ports.http), pages, closing.clone()));
    if let Some(server_identity) = ServerIdentity::of(&config, &identity) {
        let (router, leadership, stopping) = (router.clone(), consensus.leadership(), stopping.clone());
        outer.spawn(server_identity.publish(router, leadership, StdRng::from_rng(&mut rng), stopping));
    }
    let applied = Arc::clone(&applications);
    let parts = Parts {
        config: config.clone(),
        identity: identity.clone(),
        applications,
        consensus: consensus.clone(),
        router,
        reads,
        members,
        watches,
        waiting,
        history: history.clone(),
        readiness: readiness.clone(),
        clock,
        disk: Arc::clone(&disk),
        seed: rng.random(),
        stopping: stopping.clone(),
    };
    let client_port = outer.spawn_on(service::serve_clients(listeners.client, ports.client, Arc::new(parts), stopping.clone().cancelled_owned()), &serving);

    // Part of a cluster, recovered, and then ready whenever there is a raft leader.
    let taking_part = async {
        members::found_or_join(&config, &identity, &consensus, &peers, fresh_cluster_id, &stopping).await?;
        consensus.recovered().await.context("recovering")?;
        tracing::info!(node = config.node_id, "recovered");
        say_which_limits_stay(&config, applied.table.read().limits());
        readiness.follow(consensus.leadership()).await;
        std::future::pending().await
    };
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        why = consensus.failed() => Err(anyhow::anyhow!("{why}")),
        failed = taking_part => failed,
        ended = client_port => Err(ended_early("client", ended)),
        ended = peer_port => Err(ended_early("peer", ended)),
    };

    // Going down: no new callers, no office, no streams, no calls, no Raft.
    readiness.going_down();
    if outcome.is_ok() {
        hand_over(&consensus).await;
    }
    stopping.cancel();
    outer.close();
    if timeout(DRAIN, outer.wait()).await.is_err() {
        tracing::warn!("calls were still under way after {DRAIN:?}: giving them up");
    }
    closing.cancel();
    inner.close();
    if timeout(LAST_TASKS, inner.wait()).await.is_err() {
        tracing::debug!("some connections did not end within {LAST_TASKS:?}");
    }
    consensus.shutdown().await;
    if let Some(history) = history {
        offloaded(&*disk, move || history.close()).await.context("closing the history")?;
    }
    tracing::info!(node = config.node_id, "stopped");
    outcome
}

/// Who is let in where.
struct Ports {
    client: Arc<Port>,
    peer: Arc<Port>,
    http: Arc<Port>,
}

impl Ports {
    fn share_out(config: &Config, descriptors: Descriptors) -> anyhow::Result<Self> {
        let shares = Shares::of(descriptors.limit)?;
        let ports = Self {
            client: Port::new(service::rules(shares.clients, config.limits.connections_per_source)),
            peer: Port::new(peer::rules(shares.peers)),
            http: Port::new(http::rules(shares.http)),
        };
        let (clients, per_source) = (ports.client.rules.connections, ports.client.rules.per_source);
        tracing::info!(descriptors = descriptors.limit, clients, per_source, peers = shares.peers, http = shares.http, "connections taken at a time");
        Ok(ports)
    }
}

/// What a data directory holds, read and verified.
struct Directory {
    identity: Identity,
    history: Option<History>,
    table: tenure_lease::LeaseTable,
    progress: crate::replica::Progress,
    recovered: consensus::Recovered,
    log: consensus::DiskLog,
}

impl Directory {
    async fn open(config: &Config, disk: &SharedDisk, fresh_replica_id: uuid::Uuid) -> anyhow::Result<Self> {
        let (data_dir, node_id, keep_history, snapshot_log_bytes): (PathBuf, _, _, _) =
            (config.data_dir.clone(), config.node_id, config.history, config.snapshot_log_bytes);
        let its = Arc::clone(disk);
        let opening = offloaded(&**disk, move || {
            let identity = Identity::open(Arc::clone(&its), &data_dir, node_id, fresh_replica_id)?;
            let (table, progress, recovered) = consensus::recover(&its, &data_dir)?;
            let log = consensus::open_log(&its, &data_dir, &identity, &recovered, snapshot_log_bytes)?;
            let history = keep_history.then(|| History::open(&data_dir)).transpose()?;
            anyhow::Ok(Self { identity, history, table, progress, recovered, log })
        });
        opening.await.context("reading the data directory")?.with_context(|| format!("data directory {}", config.data_dir.display()))
    }
}

/// Some limits are the cluster's since its founding; a configuration that says another number changes nothing, which its author should hear.
fn say_which_limits_stay(config: &Config, limits: tenure_lease::Limits) {
    let of_cluster = [
        ("limits.leases_per_namespace", config.limits.leases_per_namespace, limits.leases_per_namespace),
        ("limits.waiters_per_lease", config.limits.waiters_per_lease.into(), limits.waiters_per_lease.into()),
    ];
    for (key, configured, in_force) in of_cluster {
        if configured != in_force {
            tracing::warn!(key, configured, in_force, "the cluster was founded with another limit, which stays in force: what is configured changes nothing");
        }
    }
}

async fn hand_over(consensus: &Consensus) {
    if consensus.leadership().borrow().raft_leader != Some(consensus.node_id()) {
        return;
    }
    match timeout(HAND_OVER, consensus.transfer_leader(None, HAND_OVER)).await {
        Ok(Ok(to)) => tracing::info!(to, "handed over raft leadership"),
        Ok(Err(error)) => tracing::info!(%error, "raft leadership was not handed over"),
        Err(_) => tracing::info!("raft leadership was not handed over within {HAND_OVER:?}"),
    }
}

fn ended_early<T, E: std::fmt::Display>(port: &str, ended: Result<Result<T, E>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(_)) => anyhow::anyhow!("the {port} port has ended by itself"),
        Ok(Err(error)) => anyhow::anyhow!("the {port} port has failed: {error}"),
        Err(error) => anyhow::anyhow!("the {port} port has failed: {error}"),
    }
}

fn uuid(rng: &mut StdRng) -> uuid::Uuid {
    uuid::Builder::from_random_bytes(rng.random()).into_uuid()
}
