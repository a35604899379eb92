//! A lease service that is right, in a few lines, and clients that use it: makes histories that must pass. The tests of the checker break them;
//! `check --example` shows what a history and its page look like.

use std::collections::{BTreeMap, VecDeque};

use crate::history::{
    Belief, Call, Change, Committed, EndReason, Fenced, History, Kind, LeaseState, Meta, Outcome, Record, Released, Replica, State, WatchEnd, WatchOpen, What,
    WitnessScope,
};

const MS: u64 = 1_000_000;
const LEASES: u64 = 6;
const CLIENTS: usize = 8;

/// Small, fast, repeatable (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

#[derive(Clone, Debug, Default)]
struct Lease {
    state: State,
    deadline: u64,
    unclaimed: bool,
    exists: bool,
    queue: VecDeque<Waiter>,
}

#[derive(Clone, Debug)]
struct Waiter {
    op: u64,
    client: usize,
    holder: String,
    duration_ms: u64,
}

#[derive(Clone, Debug, Default)]
struct Client {
    /// When its last answer was there.
    free: u64,
    waits: bool,
    holds: Option<Holds>,
    turns: u64,
}

#[derive(Clone, Debug)]
struct Holds {
    lease: u64,
    token: u64,
    belief: Option<u64>,
    deadline: u64,
    holder: String,
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    rng: Rng,
    records: Vec<Record>,
    now: u64,
    revision: u64,
    numbers: u64,
    leases: BTreeMap<u64, Lease>,
    clients: Vec<Client>,
    largest_written: u64,
}

impl Model {
    /// A history of about so many operations.
    #[must_use]
    pub fn history(seed: u64, operations: u64) -> History {
        let mut model = Self {
            rng: Rng(seed),
            records: Vec::new(),
            now: 1000,
            revision: 1 << 20,
            numbers: 100,
            leases: BTreeMap::new(),
            clients: vec![Client::default(); CLIENTS],
            largest_written: 0,
        };
        let after = model.revision;
        model.record(0, What::Meta(Meta { name: "example".into(), seed, all_clients_recorded: true, ..Meta::default() }));
        model.record(1, What::WatchOpen(WatchOpen { watch: 1, client: "watcher".into(), after_revision: after, ..WatchOpen::default() }));
        for _ in 0..operations {
            model.step();
        }
        model.finish(after)
    }

    fn record(&mut self, at_ms: u64, what: What) {
        self.records.push(Record { at: at_ms * MS, what });
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn step(&mut self) {
        self.now += 1 + self.rng.below(40);
        self.expire();
        let client = usize::try_from(self.rng.below(CLIENTS as u64)).expect("small");
        if self.clients[client].waits || self.clients[client].free >= self.now {
            return;
        }
        let from = (self.now - self.rng.below(4)).max(self.clients[client].free + 1).min(self.now);
        let to = self.now + 1 + self.rng.below(4);
        self.clients[client].free = to;
        let doomed = self.clients[client].holds.as_ref().is_some_and(|holds| self.now * MS >= holds.deadline && holds.belief.is_some());
        match self.clients[client].holds.clone() {
            Some(_) if doomed => self.clients[client].holds = None,
            Some(holds) => match self.rng.below(10) {
                0 => self.release(client, &holds, from, to),
                1 => self.read(client, from, to),
                2 => self.clients[client].holds = None,
                3 => self.write(&holds),
                _ => self.renew(client, &holds, from, to),
            },
            None if self.rng.below(4) == 0 => self.read(client, from, to),
            None => self.acquire(client, from, to),
        }
    }

    fn commit(&mut self, lease: u64, kind: Kind, previous: Option<(String, EndReason)>) {
        self.revision += 1;
        let revision = self.revision;
        let (now, this) = (self.now, self.leases.entry(lease).or_default());
        if !this.exists {
            this.exists = true;
            this.state.lease = format!("demo/lease-{lease}");
            this.state.create_revision = revision;
        }
        if kind != Kind::Renewed {
            this.state.revision = revision;
        }
        this.state.renew_revision = revision;
        if kind == Kind::Acquired {
            this.state.token = revision;
        }
        let state = this.state.clone();
        let (previous_holder, reason) = previous.map_or((String::new(), None), |(holder, reason)| (holder, Some(reason)));
        let change = Change {
            revision,
            kind,
            lease: state.lease,
            token: state.token,
            holder: state.holder,
            duration_ms: state.duration_ms,
            create_revision: state.create_revision,
            previous_holder,
            reason,
        };
        let deadline_ms = (this.state.state == LeaseState::Held).then_some(this.deadline);
        let committed = Committed {
            change: change.clone(),
            clock_ms: Some(now),
            deadline_ms,
            unclaimed: this.unclaimed,
            term: Some(1 + now / 100_000),
            ..Committed::default()
        };
        self.record(now, What::Committed(committed));
        if kind != Kind::Renewed {
            self.record(now + 2, What::WatchEvent { watch: 1, change });
        }
        self.record(now + 2, What::WatchBookmark { watch: 1, revision });
        self.record(now, What::Replica(Replica { node: "1".into(), applied_index: revision, revision, state_hash: revision ^ 77 }));
        self.record(now + 1, What::Replica(Replica { node: "2".into(), applied_index: revision, revision, state_hash: revision ^ 77 }));
    }

    fn grant(&mut self, lease: u64, holder: &str, duration_ms: u64, queued: bool, previous: Option<(String, EndReason)>) -> State {
        let now = self.now;
        let this = self.leases.entry(lease).or_default();
        this.state.state = LeaseState::Held;
        holder.clone_into(&mut this.state.holder);
        this.state.duration_ms = duration_ms;
        this.deadline = now + if queued { duration_ms.min(2000) } else { duration_ms };
        this.unclaimed = queued;
        self.commit(lease, Kind::Acquired, previous);
        self.leases[&lease].state.clone()
    }

    /// Ends the hold, and hands over if somebody waits.
    fn end(&mut self, lease: u64, reason: EndReason) {
        let Some(this) = self.leases.get_mut(&lease) else { return };
        let holder = std::mem::take(&mut this.state.holder);
        this.unclaimed = false;
        if let Some(waiter) = this.queue.pop_front() {
            let state = self.grant(lease, &waiter.holder, waiter.duration_ms, true, Some((holder, reason)));
            let to = self.now + 1 + self.rng.below(3);
            let token = state.token;
            self.record(
                to,
                What::Return(crate::history::Return { op: waiter.op, outcome: Outcome::Granted { lease: state, must_renew: true, revision: self.revision } }),
            );
            let client = &mut self.clients[waiter.client];
            (client.waits, client.free) = (false, to);
            client.holds = Some(Holds { lease, token, belief: None, deadline: 0, holder: waiter.holder });
            return;
        }
        let expired = reason != EndReason::Released;
        this.state.state = if expired { LeaseState::Expired } else { LeaseState::Free };
        self.commit(lease, if expired { Kind::Expired } else { Kind::Released }, Some((holder, reason)));
    }

    fn expire(&mut self) {
        let now = self.now;
        let due: Vec<(u64, bool)> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.state.state == LeaseState::Held && now > lease.deadline)
            .map(|(name, lease)| (*name, lease.unclaimed))
            .collect();
        for (lease, unclaimed) in due {
            self.end(lease, if unclaimed { EndReason::Unclaimed } else { EndReason::Expired });
        }
    }

    fn call(&mut self, client: usize, from: u64, call: Call) -> u64 {
        let op = self.number();
        self.record(from, What::Invoke(crate::history::Invoke { op, client: format!("client-{client}"), node: None, call }));
        op
    }

    fn answer(&mut self, op: u64, to: u64, outcome: Outcome) {
        // Now and then an answer is lost on its way.
        let outcome = if self.rng.below(40) == 0 { Outcome::Unknown { error: "timeout".into() } } else { outcome };
        self.record(to, What::Return(crate::history::Return { op, outcome }));
    }

    fn acquire(&mut self, client: usize, from: u64, to: u64) {
        let lease = self.rng.below(LEASES);
        self.clients[client].turns += 1;
        let holder = format!("client-{client}-{}", self.clients[client].turns);
        let duration_ms = 500 + self.rng.below(1000);
        let wait_ms = (self.rng.below(2) == 0).then_some(60_000);
        let held = self.leases.get(&lease).is_some_and(|lease| lease.state.state == LeaseState::Held);
        let call =
            Call::Acquire { lease: format!("demo/lease-{lease}"), holder: holder.clone(), request_id: holder.clone(), duration_ms, wait_ms, reclaim: false };
        let op = self.call(client, from, call);
        if !held {
            let state = self.grant(lease, &holder, duration_ms, false, None);
            let token = state.token;
            let revision = self.revision;
            self.record(to, What::Return(crate::history::Return { op, outcome: Outcome::Granted { lease: state, must_renew: false, revision } }));
            let belief = self.number();
            let deadline = from * MS + duration_ms * 998_000 - MS;
            self.record(to, What::Believe(Belief { belief, lease: format!("demo/lease-{lease}"), holder: holder.clone(), token, deadline }));
            self.clients[client].holds = Some(Holds { lease, token, belief: Some(belief), deadline, holder });
        } else if wait_ms.is_some() {
            self.revision += 1;
            let place = self.leases.entry(lease).or_default();
            place.queue.push_back(Waiter { op, client, holder, duration_ms });
            let position = u32::try_from(place.queue.len()).unwrap_or(u32::MAX);
            self.record(to, What::Queued { op, position });
            self.clients[client].waits = true;
        } else {
            let (state, revision) = (self.leases[&lease].state.clone(), self.revision);
            self.answer(op, to, Outcome::Denied { lease: state, revision });
        }
    }

    fn renew(&mut self, client: usize, holds: &Holds, from: u64, to: u64) {
        let lease = format!("demo/lease-{}", holds.lease);
        let op = self.call(client, from, Call::Renew { lease: lease.clone(), token: holds.token, duration_ms: None });
        let now = self.now;
        let this = self.leases.entry(holds.lease).or_default();
        if this.state.token != holds.token || this.state.state != LeaseState::Held {
            self.record(to, What::Return(crate::history::Return { op, outcome: Outcome::Lost { reason: EndReason::UnknownToken, holder: None } }));
            self.clients[client].holds = None;
            return;
        }
        let duration_ms = this.state.duration_ms;
        this.deadline = this.deadline.max(now + duration_ms);
        this.unclaimed = false;
        self.commit(holds.lease, Kind::Renewed, None);
        let revision = self.revision;
        if self.rng.below(40) == 0 {
            self.record(to, What::Return(crate::history::Return { op, outcome: Outcome::Unknown { error: "timeout".into() } }));
            return;
        }
        self.record(to, What::Return(crate::history::Return { op, outcome: Outcome::Renewed { duration_ms, revision } }));
        let belief = holds.belief.unwrap_or_else(|| self.number());
        let deadline = holds.deadline.max(from * MS + duration_ms * 998_000 - MS);
        self.record(to, What::Believe(Belief { belief, lease, holder: holds.holder.clone(), token: holds.token, deadline }));
        self.clients[client].holds = Some(Holds { belief: Some(belief), deadline, ..holds.clone() });
    }

    fn release(&mut self, client: usize, holds: &Holds, from: u64, to: u64) {
        if let Some(belief) = holds.belief {
            self.record(from, What::Doubt { belief });
        }
        let call = Call::Release { lease: format!("demo/lease-{}", holds.lease), token: holds.token, holder: String::new(), request_id: String::new() };
        let op = self.call(client, from, call);
        let (token, held) = self.leases.get(&holds.lease).map_or((0, false), |lease| (lease.state.token, lease.state.state == LeaseState::Held));
        let did = match (token == holds.token, held) {
            (true, true) => Released::Released,
            (true, false) => Released::AlreadyReleased,
            _ => Released::NotHolder,
        };
        if did == Released::Released {
            self.end(holds.lease, EndReason::Released);
        }
        let (lease, revision) = (self.leases.get(&holds.lease).map(|lease| lease.state.clone()), self.revision);
        self.answer(op, to, Outcome::Released { did, lease, revision });
        self.clients[client].holds = None;
    }

    fn read(&mut self, client: usize, from: u64, to: u64) {
        let revision = self.revision;
        if self.rng.below(5) == 0 {
            let op = self.call(client, from, Call::List { namespace: Some("demo".into()), selected: false, stale: false });
            let leases = self.leases.values().filter(|lease| lease.exists).map(|lease| lease.state.clone()).collect();
            self.answer(op, to, Outcome::Listed { leases, revision });
        } else {
            let lease = self.rng.below(LEASES);
            let op = self.call(client, from, Call::Get { lease: format!("demo/lease-{lease}"), stale: false });
            let state = self.leases.get(&lease).filter(|lease| lease.exists).map(|lease| lease.state.clone());
            self.answer(op, to, Outcome::Got { lease: state, revision });
        }
    }

    fn write(&mut self, holds: &Holds) {
        let accepted = holds.token >= self.largest_written;
        self.largest_written = self.largest_written.max(holds.token);
        self.record(self.now, What::FencedWrite(Fenced { resource: "store".into(), client: holds.holder.clone(), token: holds.token, accepted }));
    }

    fn finish(mut self, after: u64) -> History {
        let end = self.now + 10;
        self.record(end, What::WatchEnd { watch: 1, end: WatchEnd::Closed });
        let upto = self.revision;
        self.record(end, What::Witness(WitnessScope { after, upto, renewals: true, namespace: None }));
        History::sorted(self.records)
    }
}
