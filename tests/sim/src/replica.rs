//! A simulated machine with a replica on it: its disk and clock outlive the process.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use rand::Rng as _;
use tenure_checker::history::What;
use tenure_server::{
    Surroundings,
    config::{Config, RaftTiming, ServiceLimits},
};
use tokio::sync::watch;

use crate::{
    clock::MachineClock,
    disk::SimDisk,
    net::{self, Dialer, PEER_PORT},
    observer::{Ledger, Watchman},
    plan::{Clocks, Plan},
    world::World,
};

/// See the module.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) disk: SimDisk,
    pub(crate) clock: MachineClock,
    /// Begins as a member, or is added later.
    initial: bool,
    boots: Rc<Cell<u64>>,
    stop: Rc<watch::Sender<bool>>,
    world: Arc<World>,
    ledger: Arc<Ledger>,
}

/// Drifts of a machine's two clocks, in parts per billion.
pub(crate) fn drifts(plan: &Plan, rng: &mut impl rand::Rng) -> [i64; 2] {
    let most = if plan.clocks == Clocks::Wild { 50_000_000 } else { 480_000 };
    [rng.random_range(-most..=most), rng.random_range(-most..=most)]
}

impl Machine {
    pub(crate) fn new(id: u64, initial: bool, world: &Arc<World>, ledger: &Arc<Ledger>) -> Self {
        let name = format!("n{id}");
        let mut rng = world.plan.rng(&name);
        let clock = MachineClock::new(drifts(&world.plan, &mut rng), rng.random_range(0..1 << 40), rng.random_range(-100_000..100_000));
        let disk = SimDisk::new(id, rng.random(), world.plan.slowest_sync);
        Self {
            id,
            name,
            disk,
            clock,
            initial,
            boots: Rc::default(),
            stop: Rc::new(watch::Sender::new(false)),
            world: Arc::clone(world),
            ledger: Arc::clone(ledger),
        }
    }

    fn config(&self) -> Config {
        let plan = &self.world.plan;
        Config {
            node_id: self.id,
            data_dir: format!("/{}/data", self.name).into(),
            advertise: net::addresses(&self.name),
            initial_members: if self.initial { (1..=plan.replicas).map(|id| (id, net::address(&format!("n{id}"), PEER_PORT))).collect() } else { Vec::new() },
            bootstrap: self.initial,
            raft: RaftTiming::default(),
            limits: ServiceLimits { min_duration: Duration::from_millis(100), watch_queue: plan.watch_queue, ..ServiceLimits::default() },
            snapshot_log_bytes: plan.snapshot_log_bytes,
            history: false,
            server_identity: None,
            host_name: self.name.clone(),
        }
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Asks the process to go down in an orderly way.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// The process, from its start to its end. What ends it is noted: the machine goes on.
    pub(crate) async fn run(self) -> turmoil::Result {
        let boot = self.boots.get() + 1;
        self.boots.set(boot);
        self.stop.send_replace(false);
        let listeners = net::listeners(&self.name, &self.world.trace).await?;
        let observer = Watchman { node: self.name.clone(), ledger: Arc::clone(&self.ledger), started: AtomicBool::new(false) };
        let surroundings = Surroundings {
            listeners,
            clients: None,
            connector: Arc::new(Dialer { node: self.name.clone(), trace: Arc::clone(&self.world.trace) }),
            clock: Arc::new(self.clock.clone()),
            disk: Arc::new(self.disk.clone()),
            descriptors: tenure_server::descriptors::Descriptors::boundless(),
            seed: self.world.plan.derived(&format!("{} boot {boot}", self.name)),
            observer: Some(Arc::new(observer)),
        };
        self.world.record(What::Boot { node: self.name.clone() });
        let mut stop = self.stop.subscribe();
        let stopped = async move {
            // The sender lives as long as the machine.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let ended = tenure_server::run(self.config(), surroundings, stopped).await;
        // Not `Debug`: where RUST_BACKTRACE is set that has a backtrace, which differs from build to build.
        let how = ended.map_or_else(|error| format!("{error:#}"), |()| "well".to_owned());
        self.world.trace.line(crate::clock::now(), format_args!("ended {} {how}", self.name));
        Ok(())
    }
}
