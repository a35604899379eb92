//! A simulated process that uses the SDK: it holds leases, asks by hand, reads and watches, all at once, and may be killed at any moment.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tenure_checker::history::{Belief, WatchEnd, WatchOpen, What};
use tenure_client::{Client, Error, LeaderElection, Lease, Step, v1};
use tokio::time::sleep;

use crate::{
    asking,
    clock::{MachineClock, now},
    convert, direct,
    net::{self, CLIENT_PORT, Dialer},
    reading, replica,
    world::World,
};

/// Of every lease in a simulation.
pub(crate) const NAMESPACE: &str = "sim";

/// A machine with such a process on it.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) clock: MachineClock,
    boots: Rc<Cell<u64>>,
    world: Arc<World>,
    endpoints: Vec<String>,
}

/// What a task of the process works with.
pub(crate) struct Task {
    pub(crate) world: Arc<World>,
    pub(crate) client: Client,
    pub(crate) dialer: Dialer,
    pub(crate) clock: MachineClock,
    /// Machine, task and boot: nobody else has it.
    pub(crate) name: String,
    pub(crate) machine: String,
    pub(crate) rng: StdRng,
}

impl User {
    pub(crate) fn new(name: String, world: &Arc<World>, replicas: &[String]) -> Self {
        let mut rng = world.plan.rng(&name);
        let clock = MachineClock::new(replica::drifts(&world.plan, &mut rng), rng.random_range(0..1 << 40), 0);
        let endpoints = replicas.iter().map(|replica| net::address(replica, CLIENT_PORT)).collect();
        Self { name, clock, boots: Rc::default(), world: Arc::clone(world), endpoints }
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    fn dialer(&self) -> Dialer {
        Dialer { node: self.name.clone(), trace: Arc::clone(&self.world.trace) }
    }

    /// A client of this machine's, as its n-th process has it.
    pub(crate) fn client(&self, seed: u64) -> turmoil::Result<Client> {
        let dialer = self.dialer();
        let builder = Client::builder().endpoints(&self.endpoints).seed(seed).clock(Arc::new(self.clock.clone()));
        Ok(builder.attempt_timeout(Duration::from_secs(1)).request_timeout(Duration::from_secs(4)).dial(move |endpoint| dialer.channel(endpoint)).build()?)
    }

    fn task(&self, client: &Client, what: &str, boot: u64) -> Task {
        let name = format!("{}.{boot}-{what}", self.name);
        let rng = StdRng::seed_from_u64(self.world.plan.derived(&name));
        let (world, client, dialer) = (Arc::clone(&self.world), client.clone(), self.dialer());
        Task { world, client, dialer, clock: self.clock.clone(), name, machine: self.name.clone(), rng }
    }

    /// The process, until it is killed or the run winds down.
    pub(crate) async fn run(self) -> turmoil::Result {
        let boot = self.boots.get() + 1;
        self.boots.set(boot);
        let client = self.client(self.world.plan.derived(&format!("{} boot {boot}", self.name)))?;
        let tasks = [
            tokio::task::spawn_local(hold(self.task(&client, "hold", boot))),
            tokio::task::spawn_local(hold(self.task(&client, "more", boot))),
            tokio::task::spawn_local(elect(self.task(&client, "elect", boot))),
            tokio::task::spawn_local(asking::ask(self.task(&client, "ask", boot))),
            tokio::task::spawn_local(reading::read(self.task(&client, "read", boot))),
            tokio::task::spawn_local(direct::edit(self.task(&client, "edit", boot))),
            tokio::task::spawn_local(direct::turn(self.task(&client, "turn", boot))),
            tokio::task::spawn_local(watch(self.task(&client, "watch", boot))),
        ];
        for task in tasks {
            task.await?;
        }
        Ok(())
    }
}

impl Task {
    /// Between two lengths, in milliseconds.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(least..most))
    }

    pub(crate) fn lease(&mut self) -> String {
        format!("l{}", self.rng.random_range(0..self.world.plan.leases))
    }

    pub(crate) fn duration(&mut self) -> Duration {
        Duration::from_millis([250, 500, 1_000, 2_500][self.rng.random_range(0..4)])
    }

    pub(crate) fn fresh(&mut self) -> String {
        format!("{}-{:08x}", self.name, self.rng.random::<u32>())
    }
}

/// Leases as most programs use them: asked for, kept alive by the SDK, released or dropped.
async fn hold(mut task: Task) {
    while !task.world.is_winding_down() {
        let pause = task.between(1, 400);
        sleep(pause).await;
        let (name, duration) = (task.lease(), task.duration());
        let mut asked = task.client.lease(name).namespace(NAMESPACE).duration(duration).holder(task.fresh());
        if task.rng.random_bool(0.7) {
            asked = asked.wait_for(task.between(100, 4_000));
        }
        let Ok(mut asking) = asked.ask() else { continue };
        let patience = task.between(200, 6_000);
        let gone = tokio::time::timeout(patience, async {
            loop {
                match asking.next().await {
                    Ok(Step::Held(lease)) => return Some(lease),
                    Ok(Step::Queued { .. }) => {}
                    Ok(Step::Denied(_)) | Err(_) => return None,
                }
            }
        });
        // Dropped in the middle: the SDK gives the place, or the grant, back.
        let Ok(Some(lease)) = gone.await else { continue };
        let how_long = task.between(1, 5_000);
        let release = task.rng.random_bool(0.7);
        keep(&task, lease, how_long, release).await;
    }
}

async fn keep(task: &Task, lease: Lease, how_long: Duration, release: bool) {
    believe(task, &lease, how_long).await;
    if release {
        // If nobody answers, it runs out.
        drop(lease.release().await);
    }
}

/// Believes to hold for a while, and writes down from when to when.
async fn believe(task: &Task, lease: &Lease, how_long: Duration) {
    let (world, until) = (&task.world, now() + crate::clock::nanoseconds(how_long));
    let belief = world.recorder.number();
    let mut deadline = 0;
    while lease.is_held() {
        let new = task.clock.when(lease.deadline());
        if new != deadline {
            deadline = new;
            let (name, holder, token) = (format!("{}/{}", lease.namespace(), lease.name()), lease.holder().to_owned(), lease.token());
            world.believes(&task.machine, belief);
            world.record(What::Believe(Belief { belief, lease: name, holder, token, deadline }));
        }
        if now() >= until || world.is_winding_down() {
            break;
        }
        sleep(Duration::from_millis(4)).await;
    }
    if deadline != 0 {
        world.doubts(&task.machine, belief, now());
    }
    if !lease.is_held() {
        world.covered("lease lost by its holder");
    }
}

/// Elections, with a short term of office.
async fn elect(mut task: Task) {
    let election =
        LeaderElection::builder(&task.client, NAMESPACE, "election").identity(task.name.clone()).lease_duration(Duration::from_millis(1_500)).build();
    let Ok(election) = election else { return task.world.violation(now(), "progress", "an election cannot be set up".into()) };
    while !task.world.is_winding_down() {
        let patience = task.between(500, 8_000);
        let Ok(Ok(leadership)) = tokio::time::timeout(patience, election.campaign()).await else { continue };
        let how_long = task.between(100, 3_000);
        believe(&task, leadership.lease(), how_long).await;
        if task.rng.random_bool(0.7) {
            drop(leadership.resign().await);
        } else {
            drop(leadership);
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Watches everything; now and then goes away and comes back where it was.
async fn watch(mut task: Task) {
    let include_renewals = task.rng.random_bool(0.5);
    let (mut seen, mut last) = (0, None);
    while !task.world.is_winding_down() {
        let number = task.world.recorder.number();
        let after_revision = if task.rng.random_bool(0.8) { seen } else { 0 };
        let resumes = if after_revision == 0 { None } else { last };
        let send_initial = after_revision == 0 && task.rng.random_bool(0.3);
        let open = WatchOpen {
            watch: number,
            client: task.name.clone(),
            node: None,
            namespace: Some(NAMESPACE.into()),
            name: None,
            selected: false,
            after_revision,
            send_initial,
            include_renewals,
            resumes,
        };
        task.world.record(What::WatchOpen(open));
        let request = v1::WatchRequest { namespace: NAMESPACE.into(), after_revision, send_initial, include_renewals, ..v1::WatchRequest::default() };
        let end = match task.client.watch(request).await {
            Err(error) => WatchEnd::Failed { error: error.to_string() },
            Ok(watch) => {
                if resumes.is_some() {
                    task.world.covered("watch resumed by hand");
                }
                let how_long = task.between(200, 9_000);
                let mut following = Following { task: &task, number, served_by: 0 };
                following.follow(watch, how_long, &mut seen).await
            }
        };
        if matches!(end, WatchEnd::Compacted { .. }) {
            seen = 0;
        }
        last = Some(number);
        task.world.record(What::WatchEnd { watch: number, end });
        let pause = task.between(1, 500);
        sleep(pause).await;
    }
}

struct Following<'a> {
    task: &'a Task,
    number: u64,
    served_by: u64,
}

impl Following<'_> {
    async fn follow(&mut self, mut watch: tenure_client::Watch, how_long: Duration, seen: &mut u64) -> WatchEnd {
        let (world, until) = (&self.task.world, now() + crate::clock::nanoseconds(how_long));
        while now() < until && !world.is_winding_down() {
            let Ok(next) = tokio::time::timeout(Duration::from_millis(300), watch.next()).await else { continue };
            let answer = match next {
                Ok(answer) => answer,
                Err(Error::Relist(_)) => return WatchEnd::Compacted { floor: 0 },
                Err(error) => return WatchEnd::Failed { error: error.to_string() },
            };
            let served_by = answer.header.as_ref().map_or(0, |header| header.served_by);
            if served_by != 0 && std::mem::replace(&mut self.served_by, served_by) != served_by && *seen != 0 {
                world.covered("watch resumed");
            }
            for event in &answer.events {
                world.record(What::WatchEvent { watch: self.number, change: convert::change(event) });
            }
            if answer.bookmark != 0 {
                world.record(What::WatchBookmark { watch: self.number, revision: answer.bookmark });
            }
            *seen = watch.revision();
        }
        WatchEnd::Closed
    }
}
