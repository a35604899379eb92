//! What goes wrong in a run, and when: one fault of a kind at a time, several kinds at once, each healed after a while.

use std::{sync::Arc, time::Duration};

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tenure_checker::history::What;
use turmoil::Sim;

use crate::{
    client::User,
    clock::nanoseconds,
    observer::Ledger,
    plan::Clocks,
    replica::{self, Machine},
    world::World,
};

/// All that can be disturbed.
pub(crate) struct Chaos {
    world: Arc<World>,
    ledger: Arc<Ledger>,
    rng: StdRng,
    machines: Vec<Machine>,
    users: Vec<User>,
    /// By kind of fault: what is under way, or when the next comes.
    slots: [Slot; 5],
    /// Faults that have begun.
    pub(crate) count: u64,
}

struct Slot {
    kind: Kind,
    active: Option<Active>,
    next: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Network,
    Replica,
    Disk,
    User,
    Clock,
}

struct Active {
    fault: u64,
    until: u64,
    undo: Undo,
}

enum Undo {
    /// Links work again, and deliver what they held.
    Links(Vec<(String, String)>),
    Latency,
    /// These machines start again.
    Start(Vec<usize>),
    Unstick(usize),
    StartUser(usize),
    Nothing,
}

impl Chaos {
    pub(crate) fn new(world: &Arc<World>, ledger: &Arc<Ledger>, machines: &[Machine], users: &[User]) -> Self {
        let mut rng = world.plan.rng("faults");
        // The cluster is founded first.
        let slots = [Kind::Network, Kind::Replica, Kind::Disk, Kind::User, Kind::Clock].map(|kind| Slot {
            kind,
            active: None,
            next: 2_000_000_000 + rng.random_range(0..4_000_000_000),
        });
        Self { world: Arc::clone(world), ledger: Arc::clone(ledger), rng, machines: machines.to_vec(), users: users.to_vec(), slots, count: 0 }
    }

    /// Whether anything is disturbed now.
    pub(crate) fn is_at_work(&self) -> bool {
        self.slots.iter().any(|slot| slot.active.is_some())
    }

    /// Heals what is due, and begins what is due unless it is held off.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, hold_off: bool) {
        let now = nanoseconds(sim.elapsed());
        for at in 0..self.slots.len() {
            match &self.slots[at].active {
                Some(active) if now >= active.until => self.heal(sim, at, now),
                None if now >= self.slots[at].next && !hold_off => self.begin(sim, at, now),
                _ => {}
            }
        }
        self.restart_failed(sim, now);
    }

    /// Ends every fault, for good.
    pub(crate) fn heal_all(&mut self, sim: &mut Sim<'_>) {
        let now = nanoseconds(sim.elapsed());
        for at in 0..self.slots.len() {
            self.heal(sim, at, now);
            self.slots[at].next = u64::MAX;
        }
    }

    /// Replicas whose process has ended by itself (a disk that failed) are started again, as a service manager does.
    pub(crate) fn restart_failed(&mut self, sim: &mut Sim<'_>, now: u64) {
        let down: Vec<usize> = self
            .slots
            .iter()
            .filter_map(|slot| slot.active.as_ref())
            .flat_map(|active| if let Undo::Start(down) = &active.undo { down.clone() } else { Vec::new() })
            .collect();
        for at in 0..self.machines.len() {
            if !down.contains(&at) && !sim.is_host_running(self.machines[at].name.as_str()) {
                self.crash_disk(at, now);
                sim.bounce(self.machines[at].name.as_str());
            }
        }
    }

    fn crash_disk(&self, at: usize, now: u64) {
        let loss = self.machines[at].disk.crash();
        if loss.records > 0 {
            self.world.covered("records lost in a crash");
        }
        self.world.trace.line(now, format_args!("disk {} {loss:?}", self.machines[at].name));
    }

    /// The raft leader often, any other replica else.
    fn target(&mut self) -> usize {
        let leader = self.ledger.leader();
        if self.rng.random_bool(0.6)
            && let Some(at) = self.machines.iter().position(|machine| machine.id == leader)
        {
            return at;
        }
        self.rng.random_range(0..self.machines.len())
    }

    fn begin(&mut self, sim: &mut Sim<'_>, at: usize, now: u64) {
        let kind = self.slots[at].kind;
        let (what, nodes, length, undo) = match kind {
            Kind::Network => self.network(sim),
            Kind::Replica => self.replica(sim, now),
            Kind::Disk => self.disk(),
            Kind::User => self.user(sim, now),
            Kind::Clock => self.clock(now),
        };
        self.count += 1;
        let fault = self.world.recorder.number();
        self.world.record_at(now, What::Fault { fault, kind: what.to_owned(), nodes });
        self.slots[at].active = Some(Active { fault, until: now + nanoseconds(length), undo });
    }

    fn heal(&mut self, sim: &mut Sim<'_>, at: usize, now: u64) {
        let Some(active) = self.slots[at].active.take() else { return };
        match active.undo {
            Undo::Links(links) => links.iter().for_each(|(a, b)| sim.release(a.as_str(), b.as_str())),
            Undo::Latency => sim.set_max_message_latency(self.world.plan.latency.1),
            Undo::Start(machines) => machines.iter().for_each(|at| sim.bounce(self.machines[*at].name.as_str())),
            Undo::Unstick(machine) => self.machines[machine].disk.stick(false),
            Undo::StartUser(user) => sim.bounce(self.users[user].name.as_str()),
            Undo::Nothing => {}
        }
        self.world.record_at(now, What::Healed { fault: active.fault });
        let (least, most) = self.world.plan.quiet;
        let pause = self.rng.random_range(least..most) * if self.slots[at].kind == Kind::Network { 1 } else { 3 };
        self.slots[at].next = now + pause * 1_000_000;
    }

    fn length(&mut self, least: u64, most: u64) -> Duration {
        // Short ones often, long ones at times.
        let most = if self.rng.random_bool(0.7) { (least + most) / 3 + least } else { most };
        Duration::from_millis(self.rng.random_range(least..most.max(least + 1)))
    }

    fn network(&mut self, sim: &mut Sim<'_>) -> (&'static str, Vec<String>, Duration, Undo) {
        let at = self.target();
        let (one, length) = (self.machines[at].name.clone(), self.length(50, 6_000));
        let others: Vec<String> = self.machines.iter().map(|machine| machine.name.clone()).filter(|name| *name != one).collect();
        let users: Vec<String> = self.users.iter().map(|user| user.name.clone()).collect();
        let links = |to: &[String]| to.iter().map(|to| (one.clone(), to.clone())).collect::<Vec<_>>();
        match self.rng.random_range(0..9) {
            0 => {
                sim.set_max_message_latency(Duration::from_millis(self.rng.random_range(50..250)));
                ("slow network", Vec::new(), length, Undo::Latency)
            }
            1 | 2 => {
                let cut = links(&others);
                cut.iter().for_each(|(a, b)| sim.partition(a.as_str(), b.as_str()));
                ("partition", vec![one], length, Undo::Links(cut))
            }
            3 => {
                let cut = links(&[others, users].concat());
                cut.iter().for_each(|(a, b)| sim.partition(a.as_str(), b.as_str()));
                ("isolation", vec![one], length, Undo::Links(cut))
            }
            4 => {
                let cut = links(&users);
                cut.iter().for_each(|(a, b)| sim.partition(a.as_str(), b.as_str()));
                ("cut from clients", vec![one], length, Undo::Links(cut))
            }
            5 => {
                let cut = links(&others);
                let outgoing = self.rng.random_bool(0.5);
                for (a, b) in &cut {
                    let (from, to) = if outgoing { (a, b) } else { (b, a) };
                    sim.partition_oneway(from.as_str(), to.as_str());
                }
                (if outgoing { "speaks to nobody" } else { "hears nobody" }, vec![one], length, Undo::Links(cut))
            }
            6 => {
                let other = others.choose(&mut self.rng).cloned().unwrap_or_default();
                sim.partition(one.as_str(), other.as_str());
                ("partial partition", vec![one.clone(), other.clone()], length, Undo::Links(vec![(one, other)]))
            }
            7 => {
                // As a process that is stopped, for all others: nothing is lost, everything is late.
                let cut = links(&[others, users].concat());
                cut.iter().for_each(|(a, b)| sim.hold(a.as_str(), b.as_str()));
                ("pause", vec![one], length, Undo::Links(cut))
            }
            _ => {
                let user = users.choose(&mut self.rng).cloned().unwrap_or_default();
                let cut: Vec<_> = self.machines.iter().map(|machine| (machine.name.clone(), user.clone())).collect();
                cut.iter().for_each(|(a, b)| sim.partition(a.as_str(), b.as_str()));
                ("client cut off", vec![user], length, Undo::Links(cut))
            }
        }
    }

    fn replica(&mut self, sim: &mut Sim<'_>, now: u64) -> (&'static str, Vec<String>, Duration, Undo) {
        let (at, length) = (self.target(), self.length(20, 5_000));
        let one = self.machines[at].name.clone();
        match self.rng.random_range(0..8) {
            0 => {
                for at in 0..self.machines.len() {
                    sim.crash(self.machines[at].name.as_str());
                    self.crash_disk(at, now);
                }
                ("power loss of all", Vec::new(), length, Undo::Start((0..self.machines.len()).collect()))
            }
            1 | 2 => {
                self.machines[at].stop();
                // Longer than an orderly end takes.
                ("orderly stop", vec![one], Duration::from_secs(11), Undo::Start(vec![at]))
            }
            _ => {
                sim.crash(one.as_str());
                self.crash_disk(at, now);
                ("crash", vec![one], length, Undo::Start(vec![at]))
            }
        }
    }

    fn disk(&mut self) -> (&'static str, Vec<String>, Duration, Undo) {
        let (at, length) = (self.target(), self.length(20, 4_000));
        let machine = &self.machines[at];
        if self.rng.random_bool(0.25) {
            machine.disk.fail_next_sync();
            return ("failed sync", vec![machine.name.clone()], Duration::from_millis(100), Undo::Nothing);
        }
        machine.disk.stick(true);
        ("stuck disk", vec![machine.name.clone()], length, Undo::Unstick(at))
    }

    fn user(&mut self, sim: &mut Sim<'_>, now: u64) -> (&'static str, Vec<String>, Duration, Undo) {
        let at = self.rng.random_range(0..self.users.len());
        let name = self.users[at].name.clone();
        sim.crash(name.as_str());
        self.world.machine_died(&name, now);
        ("kill", vec![name], self.length(10, 3_000), Undo::StartUser(at))
    }

    fn clock(&mut self, now: u64) -> (&'static str, Vec<String>, Duration, Undo) {
        let machines = self.machines.iter().map(|machine| (&machine.name, &machine.clock));
        let all: Vec<_> = machines.chain(self.users.iter().map(|user| (&user.name, &user.clock))).collect();
        let (name, clock) = all[self.rng.random_range(0..all.len())];
        let wall = self.rng.random_range(-3_600_000..3_600_000);
        let what = if self.world.plan.clocks == Clocks::Promised {
            // Of no importance to anybody.
            clock.jump(now, [Duration::ZERO; 2], wall);
            "wall clock set"
        } else if self.rng.random_bool(0.5) {
            clock.drift(now, replica::drifts(&self.world.plan, &mut self.rng));
            "clock rate"
        } else {
            let by = Duration::from_millis(self.rng.random_range(1..5_000));
            // Suspend is seen by the first only.
            let raw = if self.rng.random_bool(0.5) { by } else { Duration::ZERO };
            clock.jump(now, [by, raw], wall);
            "clock jump"
        };
        (what, vec![name.clone()], Duration::from_millis(1), Undo::Nothing)
    }
}
