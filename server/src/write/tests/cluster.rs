//! Replicas in one process that found themselves, on real loopback sockets and real directories: everything below the public gRPC face.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;
use tenure_lease::{Lease, LeaseKey};
use tenure_proto::peer::v1::{Acquire, Command, Key, Outcome, Release, Renew, command::Kind, outcome};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::super::{Proposer, Router, SubmitError};
use crate::{
    clock::SystemClock,
    config::{Addresses, Config, RaftTiming, ServiceLimits},
    consensus::{Consensus, open_log, recover},
    disk::SystemDisk,
    identity::Identity,
    members::{self, Members},
    net::{self, TcpConnector},
    peer::{self, PeerService, Peers},
    read::Reads,
    replica::Applications,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What runs of one replica.
pub(super) struct Running {
    pub(super) consensus: Consensus,
    pub(super) applications: Arc<Applications>,
    pub(super) proposer: Proposer,
    pub(super) router: Router,
    pub(super) reads: Reads,
    pub(super) members: Members,
    pub(super) identity: Identity,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

pub(super) struct Replica {
    pub(super) id: u64,
    pub(super) addr: String,
    pub(super) bootstrap: bool,
    pub(super) initial_members: Vec<(u64, String)>,
    listener: std::net::TcpListener,
    dir: TempDir,
    /// Directories that it had before.
    wiped: u64,
    running: Option<Running>,
}

impl Replica {
    pub(super) fn new(id: u64) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        Self { id, addr, bootstrap: false, initial_members: Vec::new(), listener, dir, wiped: 0, running: None }
    }

    pub(super) fn run(&self) -> &Running {
        self.running.as_ref().expect("this replica runs")
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) async fn start(&mut self) {
        let config = Config {
            node_id: self.id,
            data_dir: self.dir.path().into(),
            advertise: Addresses { peer: self.addr.clone(), ..Addresses::default() },
            initial_members: self.initial_members.clone(),
            bootstrap: self.bootstrap,
            // Wider than the default: these tests share their cores with others.
            raft: RaftTiming { heartbeat: Duration::from_millis(50), election_min: Duration::from_millis(300), election_max: Duration::from_millis(600) },
            limits: ServiceLimits::default(),
            snapshot_log_bytes: 1 << 30,
            history: false,
            server_identity: None,
            host_name: String::new(),
        };
        let fresh = Uuid::from_u64_pair(self.id, self.wiped);
        let identity = Identity::open(SystemDisk::shared(), &config.data_dir, self.id, fresh).unwrap();
        let (table, progress, recovered) = recover(&SystemDisk::shared(), &config.data_dir).unwrap();
        let applications = Applications::new(table, progress, Vec::new(), None);
        let log = open_log(&SystemDisk::shared(), &config.data_dir, &identity, &recovered, config.snapshot_log_bytes).unwrap();
        let peers = Peers::new(Arc::new(TcpConnector), identity.clone());
        let state = Arc::clone(&applications) as _;
        let consensus = Consensus::start(&config, identity.clone(), peers.clone(), state, recovered, log).await.unwrap();
        let proposer = Proposer::new(consensus.clone(), Arc::clone(&applications), SystemClock::shared(), &config.limits, None);
        let router = Router::new(consensus.clone(), proposer.clone(), peers.clone(), &config.limits, None, self.id);
        let reads = Reads::new(consensus.clone(), Arc::clone(&applications), peers.clone());
        let members = Members::new(&config, identity.clone(), consensus.clone(), peers.clone());
        let service = PeerService::new(identity.clone(), consensus.clone(), proposer.clone(), members.clone(), config.advertise.clone());
        let incoming = net::accept(TcpListener::from_std(self.listener.try_clone().unwrap()).unwrap());

        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stop = stopping.clone();
        tasks.spawn(async move { peer::serve(incoming, crate::admission::Port::new(peer::rules(64)), service, stop.cancelled_owned()).await.unwrap() });
        let (it, stop) = (proposer.clone(), stopping.clone());
        tasks.spawn(async move { it.run(stop).await });
        let (it, stop) = (router.clone(), stopping.clone());
        tasks.spawn(async move { it.run(stop).await });
        let (it, stop) = (reads.clone(), stopping.clone());
        tasks.spawn(async move { it.run(stop).await });
        let (it, stop) = (members.clone(), stopping.clone());
        tasks.spawn(async move { it.keep_addresses_current(stop).await });
        let (its_identity, its_consensus, stop) = (identity.clone(), consensus.clone(), stopping.clone());
        tasks.spawn(async move {
            members::found_or_join(&config, &its_identity, &its_consensus, &peers, Uuid::from_u128(42), &stop).await.unwrap();
        });
        self.running = Some(Running { consensus, applications, proposer, router, reads, members, identity, stopping, tasks });
    }

    /// At once, without handing over anything.
    pub(super) async fn stop(&mut self) {
        let Running { consensus, stopping, tasks, .. } = self.running.take().expect("this replica runs");
        stopping.cancel();
        consensus.shutdown().await;
        tasks.close();
        tasks.wait().await;
    }

    /// Another, empty directory.
    pub(super) fn wipe(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
        self.wiped += 1;
    }

    /// Another address.
    pub(super) fn move_away(&mut self) {
        let Self { listener, addr, .. } = Self::new(self.id);
        (self.listener, self.addr) = (listener, addr);
    }
}

pub(super) struct Cluster {
    pub(super) replicas: Vec<Replica>,
}

impl Cluster {
    /// Founded by itself, and ready to be written to.
    pub(super) async fn founded(count: u64) -> Self {
        let mut replicas: Vec<_> = (1..=count).map(Replica::new).collect();
        let initial_members: Vec<_> = replicas.iter().map(|replica| (replica.id, replica.addr.clone())).collect();
        for replica in &mut replicas {
            replica.bootstrap = true;
            replica.initial_members.clone_from(&initial_members);
            replica.start().await;
        }
        let cluster = Self { replicas };
        cluster.raft_leader().await;
        cluster
    }

    pub(super) fn replica(&mut self, id: u64) -> &mut Replica {
        self.replicas.iter_mut().find(|replica| replica.id == id).expect("a replica of that id")
    }

    pub(super) fn of(&self, id: u64) -> &Running {
        self.replicas.iter().find(|replica| replica.id == id).expect("a replica of that id").run()
    }

    pub(super) async fn raft_leader(&self) -> u64 {
        let searches = self.replicas.iter().filter(|replica| replica.is_running()).map(|replica| {
            Box::pin(async move {
                let mut leadership = replica.run().consensus.leadership();
                leadership.wait_for(|known| known.leading.is_some()).await.expect("it runs");
                replica.id
            })
        });
        tokio::time::timeout(PATIENCE, futures::future::select_all(searches)).await.expect("somebody leads").0
    }

    /// Some running replica that does not lead.
    pub(super) async fn follower(&self) -> u64 {
        let leader = self.raft_leader().await;
        self.replicas.iter().find(|replica| replica.is_running() && replica.id != leader).expect("a follower").id
    }

    pub(super) async fn stop(&mut self) {
        for replica in self.replicas.iter_mut().filter(|replica| replica.is_running()) {
            replica.stop().await;
        }
    }
}

fn key(name: &str) -> Option<Key> {
    Some(Key { namespace: "default".to_owned(), name: name.to_owned() })
}

pub(super) fn acquire_command(name: &str, holder: &str, duration_ms: u32) -> Command {
    let acquire = Acquire {
        key: key(name),
        holder: holder.to_owned(),
        duration_ms,
        request_id: format!("{holder} wants {name}"),
        retention_ms: 3_600_000,
        ..Acquire::default()
    };
    Command { kind: Some(Kind::Acquire(acquire)) }
}

impl Running {
    pub(super) async fn submit(&self, kind: Kind) -> Result<outcome::Kind, SubmitError> {
        let outcome: Outcome = self.router.submit(Command { kind: Some(kind) }, PATIENCE).await?;
        Ok(outcome.kind.expect("an outcome is of some kind"))
    }

    /// The token; panics if it is not granted.
    pub(super) async fn acquire(&self, name: &str, holder: &str, duration_ms: u32) -> u64 {
        let outcome = self.submit(acquire_command(name, holder, duration_ms).kind.unwrap()).await.unwrap();
        let outcome::Kind::Granted(granted) = outcome else { panic!("{outcome:?}") };
        granted.lease.expect("a grant shows its lease").token
    }

    /// Whether each is kept.
    pub(super) async fn renew(&self, tokens: Vec<u64>) -> Vec<bool> {
        let outcome = self.submit(Kind::Renew(Renew { tokens, ..Renew::default() })).await.unwrap();
        let outcome::Kind::Renewed(renewed) = outcome else { panic!("{outcome:?}") };
        renewed.durations_ms.into_iter().map(|ms| ms != 0).collect()
    }

    pub(super) async fn release(&self, name: &str, token: u64) -> outcome::Kind {
        self.submit(Kind::Release(Release { key: key(name), token, ..Release::default() })).await.unwrap()
    }

    /// After a barrier.
    pub(super) async fn read(&self, name: &str) -> Option<Arc<Lease>> {
        self.reads.barrier(PATIENCE).await.unwrap();
        self.applications.table.read().get(&LeaseKey::trusted("default", name))
    }
}
