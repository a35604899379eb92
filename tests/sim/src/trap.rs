//! The one moment at which a vote matters: the raft leader is cut off, another replica asks for votes, and who gives it one loses power as it does so. It
//! comes back beside the old raft leader, out of reach of the one that it has voted for. Had it told of its vote before that was on disk, both would
//! lead, and what the old one commits with it would be overwritten.

use std::{sync::Arc, time::Duration};

use rand::{Rng as _, rngs::StdRng};
use tenure_checker::history::What;
use turmoil::Sim;

use crate::{clock::nanoseconds, observer::Ledger, replica::Machine, world::World};

/// No election takes longer, or it does not take place.
const PATIENCE: Duration = Duration::from_secs(2);

/// For other faults to be over; nothing new begins meanwhile. An orderly stop takes longer.
const QUIET: Duration = Duration::from_secs(4);

/// Set again and again, in runs of three replicas.
pub(crate) struct Trap {
    world: Arc<World>,
    ledger: Arc<Ledger>,
    rng: StdRng,
    machines: Vec<Machine>,
    phase: Phase,
    pub(crate) count: u64,
}

enum Phase {
    Idle {
        until: u64,
    },
    /// The raft leader is cut off.
    Set {
        fault: u64,
        leader: usize,
        until: u64,
    },
    /// It has the voter back.
    Sprung {
        fault: u64,
        until: u64,
    },
    Over,
}

impl Trap {
    pub(crate) fn new(world: &Arc<World>, ledger: &Arc<Ledger>, machines: &[Machine]) -> Self {
        let mut rng = world.plan.rng("trap");
        let phase =
            if machines.len() == 3 && rng.random_bool(0.5) { Phase::Idle { until: rng.random_range(3_000_000_000..6_000_000_000) } } else { Phase::Over };
        Self { world: Arc::clone(world), ledger: Arc::clone(ledger), rng, machines: machines.to_vec(), phase, count: 0 }
    }

    /// Another fault would only keep it from springing.
    pub(crate) fn wants_quiet(&self, now: u64) -> bool {
        match self.phase {
            Phase::Idle { until } => now >= until,
            Phase::Set { .. } | Phase::Sprung { .. } => true,
            Phase::Over => false,
        }
    }

    /// Goes on, if it is time. `disturbed`: by something else.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, now: u64, disturbed: bool) {
        match self.phase {
            Phase::Idle { until } if now >= until + nanoseconds(QUIET) => self.rest(now),
            Phase::Idle { until } if now >= until && !disturbed => self.set(sim, now),
            Phase::Set { fault, leader, until } => {
                let other = |candidate: &u64| *candidate != self.machines[leader].id;
                let sprung = (0..self.machines.len()).find_map(|at| Some((at, self.machines[at].disk.voted_for().filter(other)?)));
                if let Some((voter, candidate)) = sprung {
                    self.spring(sim, now, fault, leader, voter, candidate);
                } else if now >= until {
                    self.end(sim, now, fault);
                }
            }
            Phase::Sprung { fault, until } if now >= until => self.end(sim, now, fault),
            _ => {}
        }
    }

    /// No more of it.
    pub(crate) fn disarm(&mut self, sim: &mut Sim<'_>, now: u64) {
        if let Phase::Set { fault, .. } | Phase::Sprung { fault, .. } = self.phase {
            self.end(sim, now, fault);
        }
        self.phase = Phase::Over;
    }

    fn name(&self, at: usize) -> &str {
        &self.machines[at].name
    }

    fn set(&mut self, sim: &mut Sim<'_>, now: u64) {
        let id = self.ledger.leader();
        let Some(leader) = self.machines.iter().position(|machine| machine.id == id) else { return };
        for at in (0..self.machines.len()).filter(|at| *at != leader) {
            sim.partition(self.name(leader), self.name(at));
            self.machines[at].disk.watch_for_vote();
        }
        let fault = self.world.recorder.number();
        self.count += 1;
        self.world.record_at(now, What::Fault { fault, kind: "election".into(), nodes: vec![self.name(leader).to_owned()] });
        self.phase = Phase::Set { fault, leader, until: now + nanoseconds(PATIENCE) };
    }

    fn spring(&mut self, sim: &mut Sim<'_>, now: u64, fault: u64, leader: usize, voter: usize, candidate: u64) {
        // Its answer is on the way, and arrives.
        sim.crash(self.name(voter));
        let loss = self.machines[voter].disk.crash_before_writing();
        self.world.covered("power lost at a vote");
        self.world.trace.line(now, format_args!("disk {} {loss:?} at its vote for {candidate}", self.name(voter)));
        if let Some(candidate) = self.machines.iter().find(|machine| machine.id == candidate) {
            sim.partition_oneway(candidate.name.as_str(), self.name(voter));
        }
        sim.release(self.name(leader), self.name(voter));
        sim.bounce(self.name(voter));
        self.phase = Phase::Sprung { fault, until: now + self.rng.random_range(500_000_000..2_000_000_000) };
    }

    fn end(&mut self, sim: &mut Sim<'_>, now: u64, fault: u64) {
        for one in 0..self.machines.len() {
            self.machines[one].disk.stop_watching();
            for other in 0..one {
                sim.release(self.name(one), self.name(other));
            }
        }
        self.world.record_at(now, What::Healed { fault });
        self.rest(now);
    }

    fn rest(&mut self, now: u64) {
        self.phase = Phase::Idle { until: now + self.rng.random_range(2_000_000_000..6_000_000_000) };
    }
}
