//! `tenured serve`: one replica on the machine's sockets and clock, until SIGTERM or SIGINT.

use std::{future::Future, sync::Arc, thread};

use anyhow::Context as _;
use rand::TryRngCore as _;
use tenure_server::{
    Surroundings,
    clock::SystemClock,
    config::{Addresses, Settings},
    descriptors::Descriptors,
    disk::SystemDisk,
    net::{Listeners, TcpConnector, accept},
};
use tokio::{net::TcpListener, runtime::Handle, sync::oneshot};

use super::{args::Serve, private};

pub(crate) fn run(args: &Serve) -> anyhow::Result<()> {
    let Settings { mut config, listen, log } = Settings::load(&args.config)?;
    args.logging.start(log)?;
    if let Some(data_dir) = &args.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    private::warn_if_wider(&config.data_dir);
    if config.host_name.is_empty() {
        config.host_name = host_name();
    }
    let sockets = Sockets::bind(&listen, |key| format!("listen.{key} in {}", args.config.display()))?;
    let seed = seed()?;
    let clients = ClientThread::start("clients", tracing::Span::none())?;
    runtime()?.block_on(async {
        let surroundings = sockets.surroundings(seed, Descriptors::raised(), clients.handle())?;
        let stop = stop_signal()?;
        tenure_server::run(config, surroundings, stop).await
    })
}

/// A runtime for one thread. A replica has two of them, one for Raft and one for its clients, which beats a pool (docs/decisions/0005 and 0012).
/// Disks have threads of their own.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// The thread that reads what clients send and writes what they are answered, so that no number of clients keeps Raft from its heartbeats. Dropping it
/// ends the thread, and whatever is still served there.
pub(crate) struct ClientThread {
    handle: Handle,
    /// Both are taken only to end the thread.
    going_on: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ClientThread {
    /// Starts the thread. `span` marks all its log lines.
    pub(crate) fn start(name: impl Into<String>, span: tracing::Span) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        let (going_on, ended) = oneshot::channel();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let _span = span.entered();
            // An error is what ends it: the sender was dropped.
            let _ = runtime.block_on(ended);
        });
        let thread = thread.context("cannot start the thread for clients")?;
        Ok(Self { handle, going_on: Some(going_on), thread: Some(thread) })
    }

    /// Where to serve clients.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for ClientThread {
    fn drop(&mut self) {
        self.going_on = None;
        if let Some(Err(_)) = self.thread.take().map(thread::JoinHandle::join) {
            tracing::error!("the thread for clients has panicked");
        }
    }
}

/// As the kernel has it; a configuration may say otherwise.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The one place where a process gets its randomness from; what follows is derived.
pub(crate) fn seed() -> anyhow::Result<u64> {
    rand::rngs::OsRng.try_next_u64().context("the machine has no randomness")
}

/// Resolves at the first SIGTERM or SIGINT. A second one ends the process at once: whoever asks twice does not want to wait.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        let name = next().await;
        tracing::info!("{name}: going down");
        // Nobody listens any more only when the replica has stopped by itself.
        let _ = tell.send(());
        let name = next().await;
        tracing::warn!("{name} again: leaving at once");
        std::process::exit(130);
    });
    Ok(async move {
        let _ = told.await;
    })
}

/// Bound, but not yet part of any runtime.
pub(crate) struct Sockets {
    client: std::net::TcpListener,
    peer: std::net::TcpListener,
    http: std::net::TcpListener,
}

impl Sockets {
    /// `source` says where an address came from, given its key, so that an error tells what to change.
    pub(crate) fn bind(addresses: &Addresses, source: impl Fn(&str) -> String) -> anyhow::Result<Self> {
        let bind = |key: &str, addr: &str| {
            // The standard library sets SO_REUSEADDR: a restart does not wait for old connections to be forgotten.
            let listener = std::net::TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr} ({})", source(key)))?;
            listener.set_nonblocking(true)?;
            anyhow::Ok(listener)
        };
        Ok(Self { client: bind("client", &addresses.client)?, peer: bind("peer", &addresses.peer)?, http: bind("http", &addresses.http)? })
    }

    /// These sockets, and the machine's for all the rest. Within the runtime that Raft runs on; `clients` is another one's.
    pub(crate) fn surroundings(self, seed: u64, descriptors: Descriptors, clients: Handle) -> anyhow::Result<Surroundings> {
        let client = {
            let _entered = clients.enter();
            accept(TcpListener::from_std(self.client)?)
        };
        let listeners = Listeners { client, peer: accept(TcpListener::from_std(self.peer)?), http: accept(TcpListener::from_std(self.http)?) };
        let (clock, disk) = (SystemClock::shared(), SystemDisk::shared());
        Ok(Surroundings { listeners, clients: Some(clients), connector: Arc::new(TcpConnector), clock, disk, descriptors, seed, observer: None })
    }
}
