//! Replicas in one process, on real loopback sockets and real directories.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tempfile::TempDir;
use tenure_lease::RaftLeaderId;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
};
use uuid::Uuid;

use super::Tape;
use crate::{
    config::{Addresses, Config, RaftTiming, ServiceLimits},
    consensus::{Consensus, Leadership, Node, Recovered, open_log},
    disk::SystemDisk,
    identity::Identity,
    net::{self, Conn, Connector, TcpConnector},
    peer::{self, PeerService, Peers},
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What does not pass on connections to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Neither way.
    Both,
    /// What it says.
    Its,
    /// What is said to it.
    Ours,
}

/// TCP that counts, and that can fall silent.
#[derive(Clone, Debug, Default)]
pub(super) struct Counting {
    dialed: Arc<AtomicU64>,
    silent: Arc<Mutex<BTreeMap<String, Silence>>>,
}

impl Counting {
    pub(super) fn dialed(&self) -> u64 {
        self.dialed.load(Ordering::Relaxed)
    }

    /// From now on this does not pass on connections to this address, which stay open; `None`: everything does.
    pub(super) fn silence(&self, addr: &str, silence: impl Into<Option<Silence>>) {
        let mut silent = self.silent.lock();
        match silence.into() {
            Some(silence) => silent.insert(addr.to_owned(), silence),
            None => silent.remove(addr),
        };
    }
}

impl Connector for Counting {
    fn connect(&self, addr: String) -> BoxFuture<'static, io::Result<Conn>> {
        self.dialed.fetch_add(1, Ordering::Relaxed);
        let silent = Arc::clone(&self.silent);
        Box::pin(async move {
            let conn = TcpConnector.connect(addr.clone()).await?;
            Ok(Conn::new(Line { conn, addr: addr.clone(), silent, heard_again: None, said_again: None }, addr))
        })
    }
}

/// One connection of it.
struct Line {
    conn: Conn,
    addr: String,
    silent: Arc<Mutex<BTreeMap<String, Silence>>>,
    /// When to look again whether anything passes, each way.
    heard_again: Again,
    said_again: Again,
}

type Again = Option<Pin<Box<tokio::time::Sleep>>>;

impl Line {
    fn may_hear(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        may_pass(&self.silent, &self.addr, Silence::Ours, &mut self.heard_again, cx)
    }

    fn may_say(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        may_pass(&self.silent, &self.addr, Silence::Its, &mut self.said_again, cx)
    }
}

/// Unless it is silent in another way than `other`.
fn may_pass(silent: &Mutex<BTreeMap<String, Silence>>, addr: &str, other: Silence, again: &mut Again, cx: &mut Context<'_>) -> Poll<()> {
    while silent.lock().get(addr).is_some_and(|silence| *silence != other) {
        let waiting = again.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(10))));
        std::task::ready!(waiting.as_mut().poll(cx));
        *again = None;
    }
    Poll::Ready(())
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.may_hear(cx));
        Pin::new(&mut self.conn).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.may_say(cx));
        Pin::new(&mut self.conn).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(cx)
    }
}

/// One replica, running.
pub(super) struct Running {
    pub(super) consensus: Consensus,
    pub(super) identity: Identity,
    pub(super) peers: Peers,
    pub(super) tape: Arc<Tape>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// One replica's place.
pub(super) struct Replica {
    pub(super) id: u64,
    pub(super) node: Node,
    pub(super) connector: Counting,
    dir: TempDir,
    listener: Option<std::net::TcpListener>,
    snapshot_log_bytes: u64,
    running: Option<Running>,
}

impl Replica {
    pub(super) fn new(id: u64, snapshot_log_bytes: u64) -> Self {
        // Bound once and cloned for every start, so that a restarted replica has its old port.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        let peer_addr = listener.local_addr().expect("bound").to_string();
        let node = Node { peer_addr, client_addr: String::new(), http_addr: String::new(), replica_id: replica_id(id).to_string() };
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { id, node, connector: Counting::default(), dir, listener: Some(listener), snapshot_log_bytes, running: None }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().into()
    }

    fn config(&self) -> Config {
        Config {
            node_id: self.id,
            data_dir: self.path(),
            advertise: Addresses { peer: self.node.peer_addr.clone(), ..Addresses::default() },
            initial_members: Vec::new(),
            bootstrap: false,
            // Wider than the default: these tests share two cores with others.
            raft: RaftTiming { heartbeat: Duration::from_millis(50), election_min: Duration::from_millis(300), election_max: Duration::from_millis(600) },
            limits: ServiceLimits::default(),
            snapshot_log_bytes: self.snapshot_log_bytes,
            history: false,
            server_identity: None,
            host_name: String::new(),
        }
    }

    pub(super) fn run(&self) -> &Running {
        self.running.as_ref().expect("this replica runs")
    }

    pub(super) async fn start(&mut self) {
        self.try_start().await.expect("a replica starts");
    }

    pub(super) async fn try_start(&mut self) -> anyhow::Result<()> {
        let config = self.config();
        let identity = Identity::open(SystemDisk::shared(), &config.data_dir, self.id, replica_id(self.id))?;
        let recovered = Recovered::open(&SystemDisk::shared(), &config.data_dir)?;
        let tape = Arc::new(match recovered.newest() {
            Some(file) => Tape::restore(&mut file.body()?)?,
            None => Tape::default(),
        });
        let log = open_log(&SystemDisk::shared(), &config.data_dir, &identity, &recovered, config.snapshot_log_bytes)?;
        let peers = Peers::new(Arc::new(self.connector.clone()), identity.clone());
        let consensus = Consensus::start(&config, identity.clone(), peers.clone(), Arc::clone(&tape) as _, recovered, log).await?;
        let service = PeerService::raft_only(identity.clone(), consensus.clone(), config.advertise.clone());
        let listener = match &self.listener {
            Some(listener) => listener.try_clone()?,
            None => std::net::TcpListener::bind(&self.node.peer_addr)?,
        };
        listener.set_nonblocking(true)?;
        let incoming = net::accept(TcpListener::from_std(listener)?);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let served = peer::serve(incoming, crate::admission::Port::new(peer::rules(64)), service, async move { drop(stopped.await) }).await;
            served.expect("the peer port is served");
        });
        self.running = Some(Running { consensus, identity, peers, tape, stop, server });
        Ok(())
    }

    pub(super) async fn stop(&mut self) {
        let running = self.running.take().expect("this replica runs");
        drop(running.stop);
        running.server.await.expect("the server ends");
        running.consensus.shutdown().await;
    }

    /// As [`Self::stop`], and nobody listens on its port any more.
    pub(super) async fn vanish(&mut self) {
        self.stop().await;
        self.listener = None;
    }

    /// As [`Self::stop`], to be started elsewhere.
    pub(super) async fn move_away(&mut self) {
        self.stop().await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        self.node.peer_addr = listener.local_addr().expect("bound").to_string();
        self.listener = Some(listener);
    }

    /// An empty directory in the place of the old one.
    pub(super) fn wipe(&mut self) {
        self.dir = tempfile::tempdir().expect("a temporary directory");
    }
}

fn replica_id(id: u64) -> Uuid {
    Uuid::from_u128(u128::from(id) << 64 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Every directory gets another one, as in production.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Several of them.
pub(super) struct Cluster {
    pub(super) replicas: Vec<Replica>,
}

impl Cluster {
    /// Started and founded.
    pub(super) async fn founded(count: u64, snapshot_log_bytes: u64) -> Self {
        // RUST_LOG shows what happens; a second test finds it done already.
        drop(tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init());
        let mut cluster = Self { replicas: (1..=count).map(|id| Replica::new(id, snapshot_log_bytes)).collect() };
        for replica in &mut cluster.replicas {
            replica.start().await;
            replica.node.replica_id = replica.run().identity.replica_id().to_owned();
        }
        let members: BTreeMap<u64, Node> = cluster.replicas.iter().map(|replica| (replica.id, replica.node.clone())).collect();
        let first = cluster.replicas[0].run();
        first.identity.join("test-cluster").await.expect("joined");
        first.consensus.initialize(members).await.expect("founded");
        cluster
    }

    pub(super) fn replica(&mut self, id: u64) -> &mut Replica {
        self.replicas.iter_mut().find(|replica| replica.id == id).expect("a replica of that id")
    }

    /// Whoever may propose, and under which id.
    pub(super) async fn raft_leader(&self) -> (u64, RaftLeaderId) {
        let running: Vec<_> = self.replicas.iter().filter(|replica| replica.running.is_some()).collect();
        let searches = running.iter().map(|replica| {
            Box::pin(async move {
                let mut leadership = replica.run().consensus.leadership();
                let known = leadership.wait_for(|known| known.leading.is_some()).await.expect("it runs");
                (replica.id, known.leading.expect("just seen"))
            })
        });
        tokio::time::timeout(PATIENCE, futures::future::select_all(searches)).await.expect("somebody leads").0
    }

    /// Through whoever leads.
    pub(super) async fn write(&self, entry: &str) {
        let deadline = PATIENCE;
        let attempt = async {
            loop {
                let (id, leading) = self.raft_leader().await;
                let replica = self.replicas.iter().find(|replica| replica.id == id).expect("it runs");
                if replica.run().consensus.propose(leading, Bytes::copy_from_slice(entry.as_bytes())).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(deadline, attempt).await.expect("the entry is committed");
    }

    /// Every running replica has exactly these entries, in this order.
    pub(super) async fn agree_on(&self, entries: &[String]) {
        for replica in self.replicas.iter().filter(|replica| replica.running.is_some()) {
            let agreed = async {
                while replica.run().tape.entries() != entries {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            if tokio::time::timeout(PATIENCE, agreed).await.is_err() {
                let has = replica.run().tape.entries();
                panic!("replica {} has {} entries of {}: {:?}", replica.id, has.len(), entries.len(), has.last());
            }
        }
    }

    pub(super) async fn stop(&mut self) {
        for replica in &mut self.replicas {
            if replica.running.is_some() {
                replica.stop().await;
            }
        }
    }
}

/// Waits until a replica sees it so.
pub(super) async fn seen(running: &Running, what: &str, so: impl FnMut(&Leadership) -> bool) {
    let mut leadership = running.consensus.leadership();
    tokio::time::timeout(PATIENCE, leadership.wait_for(so)).await.unwrap_or_else(|_| panic!("{what}")).expect("it runs");
}
