//! What all parts of a run share: the record of what happened, and what was found wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tenure_checker::{
    Recorder,
    history::{Call, Invoke, Outcome, What},
};

use crate::{clock::now, plan::Plan, trace::Trace};

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) trace: Arc<Trace>,
    pub(crate) recorder: Recorder,
    /// Clients finish what they have begun, and stop.
    pub(crate) winding_down: AtomicBool,
    /// Of what must never happen.
    violations: Mutex<Vec<Broken>>,
    /// How often what should happen in a campaign did.
    coverage: Mutex<BTreeMap<&'static str, u64>>,
    /// By machine: what its processes believe to hold.
    beliefs: Mutex<BTreeMap<String, BTreeSet<u64>>>,
}

/// What must never happen, and has.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    /// True time.
    pub(crate) at: u64,
    /// Which rule of the simulation's own; those of the checker are P…, W… and L….
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

/// What a campaign must have seen.
pub(crate) const COVERED: [&str; 18] = [
    "expiry by a new raft leader",
    "renewal during a change of raft leader",
    "snapshot installed with live leases",
    "restart from a snapshot",
    "watch resumed",
    "watch resumed by hand",
    "stale release refused",
    "hand-over to a waiter",
    "grant unclaimed",
    "request id repeated",
    "repeated request answered as ended",
    "lease lost by its holder",
    "waiter moved to another replica",
    "records lost in a crash",
    "member added",
    "power lost at a vote",
    "edit without an answer",
    "grant taken up at another replica",
];

impl World {
    pub(crate) fn new(plan: Plan, trace: Arc<Trace>) -> Arc<Self> {
        Arc::new(Self {
            plan,
            trace,
            recorder: Recorder::default(),
            winding_down: AtomicBool::new(false),
            violations: Mutex::default(),
            coverage: Mutex::default(),
            beliefs: Mutex::default(),
        })
    }

    /// On a simulated host.
    pub(crate) fn record(&self, what: What) {
        self.record_at(now(), what);
    }

    /// Anywhere.
    pub(crate) fn record_at(&self, at: u64, what: What) {
        self.trace.line(at, format_args!("record {what:?}"));
        self.recorder.record(at, what);
    }

    /// An operation is about to be sent.
    pub(crate) fn invoke(&self, client: &str, call: Call) -> u64 {
        let at = now();
        self.trace.line(at, format_args!("invoke {client} {call:?}"));
        self.recorder.invoke(at, client, call)
    }

    /// The same, to one replica.
    pub(crate) fn invoke_at(&self, client: &str, node: String, call: Call) -> u64 {
        let (at, op) = (now(), self.recorder.number());
        self.trace.line(at, format_args!("invoke {client} at {node} {call:?}"));
        self.recorder.record(at, What::Invoke(Invoke { op, client: client.to_owned(), node: Some(node), call }));
        op
    }

    /// Its answer.
    pub(crate) fn returned(&self, op: u64, outcome: Outcome) {
        let at = now();
        self.trace.line(at, format_args!("return {op} {outcome:?}"));
        self.recorder.returned(at, op, outcome);
    }

    /// Something that must never happen.
    pub(crate) fn violation(&self, at: u64, rule: &'static str, text: String) {
        self.trace.line(at, format_args!("VIOLATION {rule} {text}"));
        self.violations.lock().push(Broken { at, rule, text });
    }

    pub(crate) fn violations(&self) -> Vec<Broken> {
        self.violations.lock().clone()
    }

    pub(crate) fn is_violated(&self) -> bool {
        !self.violations.lock().is_empty()
    }

    /// Something that a campaign should have seen.
    pub(crate) fn covered(&self, what: &'static str) {
        debug_assert!(COVERED.contains(&what), "{what}");
        *self.coverage.lock().entry(what).or_default() += 1;
    }

    pub(crate) fn coverage(&self) -> BTreeMap<&'static str, u64> {
        self.coverage.lock().clone()
    }

    /// A process begins to act as holder.
    pub(crate) fn believes(&self, machine: &str, belief: u64) {
        self.beliefs.lock().entry(machine.to_owned()).or_default().insert(belief);
    }

    /// It does not any more.
    pub(crate) fn doubts(&self, machine: &str, belief: u64, at: u64) {
        if self.beliefs.lock().get_mut(machine).is_some_and(|beliefs| beliefs.remove(&belief)) {
            self.record_at(at, What::Doubt { belief });
        }
    }

    /// All processes of a machine are gone, and with them what they believed.
    pub(crate) fn machine_died(&self, machine: &str, at: u64) {
        let beliefs = self.beliefs.lock().remove(machine).unwrap_or_default();
        for belief in beliefs {
            self.record_at(at, What::Doubt { belief });
        }
    }

    pub(crate) fn is_winding_down(&self) -> bool {
        self.winding_down.load(Ordering::Relaxed)
    }
}
