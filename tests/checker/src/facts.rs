//! A history, joined: operations with their answers, watches with what they delivered, holds with all that is known of them. No judgement here.

mod holds;
mod witness;

use std::collections::HashMap;

pub use holds::Hold;
pub use witness::Witness;

use crate::history::{Belief, Call, Change, EndReason, Fenced, History, Invoke, Meta, Outcome, Replica, State, WatchEnd, WatchOpen, What};

/// An operation from its first send to its answer.
#[derive(Clone, Debug)]
pub struct Op<'h> {
    /// When it was sent first.
    pub from: u64,
    /// When its answer was there; `u64::MAX`: never, or nobody knows what came of it.
    pub to: u64,
    /// Who asked what.
    pub invoke: &'h Invoke,
    /// `None`: no answer.
    pub outcome: Option<&'h Outcome>,
}

/// From when to when somebody acted as holder: `[from, to)`.
#[derive(Clone, Debug)]
pub struct Held<'h> {
    /// Its first record.
    pub belief: &'h Belief,
    /// When it began.
    pub from: u64,
    /// When it ended.
    pub to: u64,
    /// The deadline as it was last moved.
    pub deadline: u64,
}

/// What a watch delivered, in order.
#[derive(Clone, Debug)]
pub struct Watch<'h> {
    /// As asked for.
    pub open: &'h WatchOpen,
    /// When.
    pub from: u64,
    /// Changes, bookmarks and its end, with their times.
    pub said: Vec<(u64, Said<'h>)>,
}

/// What a watch says.
#[derive(Clone, Copy, Debug)]
pub enum Said<'h> {
    /// A change.
    Change(&'h Change),
    /// A bookmark.
    Bookmark(u64),
    /// Its end.
    End(&'h WatchEnd),
}

/// A fault, from when to when.
#[derive(Clone, Debug)]
pub struct Fault<'h> {
    /// As recorded.
    pub kind: &'h str,
    /// On whom; empty: on all.
    pub nodes: &'h [String],
    /// When it began.
    pub from: u64,
    /// When it was healed; the end of the history if it never was.
    pub to: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Facts<'h> {
    /// What may be demanded.
    pub meta: Meta,
    /// In order of their first sends.
    pub ops: Vec<Op<'h>>,
    /// Of waiting acquires: when each was told a place (`true`) or lost its stream (`false`), by operation.
    pub places: HashMap<u64, Vec<(u64, bool)>>,
    /// In order of their begin.
    pub beliefs: Vec<Held<'h>>,
    /// In order of their begin.
    pub watches: Vec<Watch<'h>>,
    /// In order of their begin.
    pub faults: Vec<Fault<'h>>,
    /// When a raft leader of a new term was first seen: time, node, term.
    pub raft_leaders: Vec<(u64, &'h str, u64)>,
    /// When replicas started: time, node.
    pub boots: Vec<(u64, &'h str)>,
    /// What replicas said that they have applied.
    pub replicas: Vec<(u64, &'h Replica)>,
    /// In the order of their resources.
    pub fenced: Vec<(u64, &'h Fenced)>,
    /// The first [`What::Calm`].
    pub calm: Option<u64>,
    /// Time of the last record.
    pub end: u64,
    /// Of the first.
    pub begin: u64,
    /// The committed changes.
    pub witness: Witness<'h>,
    /// Every hold that anything is known of, by lease and token.
    pub holds: HashMap<&'h str, std::collections::BTreeMap<u64, Hold<'h>>>,
}

impl Op<'_> {
    /// The lease that it is about, if it is about one.
    #[must_use]
    pub fn lease(&self) -> Option<&str> {
        match &self.invoke.call {
            Call::Acquire { lease, .. }
            | Call::Renew { lease, .. }
            | Call::Release { lease, .. }
            | Call::Get { lease, .. }
            | Call::Put { lease, .. }
            | Call::Delete { lease, .. } => Some(lease),
            Call::List { .. } => None,
        }
    }

    /// The header's revision, 0 if there is none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match self.outcome {
            Some(
                Outcome::Granted { revision, .. }
                | Outcome::Denied { revision, .. }
                | Outcome::Renewed { revision, .. }
                | Outcome::Released { revision, .. }
                | Outcome::Got { revision, .. }
                | Outcome::Listed { revision, .. }
                | Outcome::Put { revision, .. }
                | Outcome::Deleted { revision, .. },
            ) => *revision,
            _ => 0,
        }
    }

    /// The leases that its answer showed.
    pub fn shown(&self) -> impl Iterator<Item = &State> {
        let (one, many): (Option<&State>, &[State]) = match self.outcome {
            Some(Outcome::Granted { lease, .. } | Outcome::Denied { lease, .. } | Outcome::Put { lease, .. } | Outcome::Deleted { lease, .. }) => {
                (Some(lease), &[])
            }
            Some(Outcome::Released { lease, .. } | Outcome::Got { lease, .. }) => (lease.as_ref(), &[]),
            Some(Outcome::Listed { leases, .. }) => (None, leases),
            _ => (None, &[]),
        };
        one.into_iter().chain(many)
    }

    /// For messages: who did what.
    #[must_use]
    pub fn text(&self) -> String {
        let call = serde_json::to_string(&self.invoke.call).unwrap_or_default();
        let outcome = self.outcome.map_or_else(|| "no answer".into(), |outcome| serde_json::to_string(outcome).unwrap_or_default());
        let cut = |text: String| if text.chars().count() > 400 { text.chars().take(400).chain("…".chars()).collect() } else { text };
        format!("operation {} of {}: {} → {}", self.invoke.op, self.invoke.client, cut(call), cut(outcome))
    }
}

impl<'h> Facts<'h> {
    /// Joins a history.
    #[must_use]
    pub fn of(history: &'h History) -> Self {
        let mut facts = Self {
            meta: history.meta(),
            ops: Vec::new(),
            places: HashMap::new(),
            beliefs: Vec::new(),
            watches: Vec::new(),
            faults: Vec::new(),
            raft_leaders: Vec::new(),
            boots: Vec::new(),
            replicas: Vec::new(),
            fenced: Vec::new(),
            calm: None,
            end: history.records.last().map_or(0, |record| record.at),
            begin: history.records.first().map_or(0, |record| record.at),
            witness: Witness::of(history),
            holds: HashMap::new(),
        };
        let (mut ops, mut watches, mut beliefs, mut faults) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let mut term = 0;
        for record in &history.records {
            let at = record.at;
            match &record.what {
                What::Invoke(invoke) => {
                    ops.insert(invoke.op, facts.ops.len());
                    facts.ops.push(Op { from: at, to: u64::MAX, invoke, outcome: None });
                }
                What::Return(answer) => {
                    if let Some(op) = ops.get(&answer.op).and_then(|op| facts.ops.get_mut(*op)) {
                        op.outcome = Some(&answer.outcome);
                        if !matches!(answer.outcome, Outcome::Unknown { .. }) {
                            op.to = at;
                        }
                    }
                }
                What::Queued { op, .. } => facts.places.entry(*op).or_default().push((at, true)),
                What::Detached { op } => facts.places.entry(*op).or_default().push((at, false)),
                What::Believe(belief) => {
                    let place = *beliefs.entry(belief.belief).or_insert_with(|| {
                        facts.beliefs.push(Held { belief, from: at, to: u64::MAX, deadline: belief.deadline });
                        facts.beliefs.len() - 1
                    });
                    facts.beliefs[place].deadline = belief.deadline;
                }
                What::Doubt { belief } => {
                    if let Some(held) = beliefs.get(belief).and_then(|place| facts.beliefs.get_mut(*place)) {
                        held.to = held.to.min(at);
                    }
                }
                What::WatchOpen(open) => {
                    watches.insert(open.watch, facts.watches.len());
                    facts.watches.push(Watch { open, from: at, said: Vec::new() });
                }
                What::WatchEvent { watch, change } => said(&mut facts.watches, &watches, *watch, at, Said::Change(change)),
                What::WatchBookmark { watch, revision } => said(&mut facts.watches, &watches, *watch, at, Said::Bookmark(*revision)),
                What::WatchEnd { watch, end } => said(&mut facts.watches, &watches, *watch, at, Said::End(end)),
                What::Fault { fault, kind, nodes } => {
                    faults.insert(*fault, facts.faults.len());
                    facts.faults.push(Fault { kind, nodes, from: at, to: facts.end });
                }
                What::Healed { fault } => {
                    if let Some(fault) = faults.get(fault).and_then(|place| facts.faults.get_mut(*place)) {
                        fault.to = fault.to.min(at);
                    }
                }
                What::Calm => facts.calm = facts.calm.or(Some(at)),
                What::RaftLeader { node, term: seen } if *seen > term => {
                    term = *seen;
                    facts.raft_leaders.push((at, node, *seen));
                }
                What::Replica(replica) => facts.replicas.push((at, replica)),
                What::FencedWrite(fenced) => facts.fenced.push((at, fenced)),
                What::Boot { node } => facts.boots.push((at, node)),
                What::Meta(_) | What::RaftLeader { .. } | What::Committed(_) | What::Witness(_) | What::Note { .. } => {}
            }
        }
        for held in &mut facts.beliefs {
            // Without a word it ends by itself.
            if held.to == u64::MAX {
                held.to = if held.deadline == u64::MAX { facts.end } else { held.deadline };
            }
        }
        facts.holds = holds::of(&facts);
        facts
    }

    /// Faults that touch `[from, to]`.
    pub fn faults_in(&self, from: u64, to: u64) -> impl Iterator<Item = &Fault<'h>> {
        self.faults.iter().filter(move |fault| fault.from <= to && fault.to >= from)
    }

    /// An operator ended this hold, who knows that its holder is not asked: it may act until it hears of it, even begin to if the grant was still on its
    /// way.
    #[must_use]
    pub fn was_revoked(&self, lease: &str, token: u64) -> bool {
        let hold = self.holds.get(lease).and_then(|holds| holds.get(&token));
        hold.is_some_and(|hold| hold.reason == Some(EndReason::Revoked))
    }

    /// Changes of raft leader seen in `[from, to]`; the first one of a history is none.
    #[must_use]
    pub fn raft_leader_changes_in(&self, from: u64, to: u64) -> usize {
        self.raft_leaders.iter().skip(1).filter(|(at, ..)| (from..=to).contains(at)).count()
    }
}

fn said<'h>(watches: &mut [Watch<'h>], places: &HashMap<u64, usize>, watch: u64, at: u64, what: Said<'h>) {
    if let Some(watch) = places.get(&watch).and_then(|place| watches.get_mut(*place)) {
        watch.said.push((at, what));
    }
}

/// `namespace` of `namespace/name`.
#[must_use]
pub fn namespace(lease: &str) -> &str {
    lease.split_once('/').map_or("", |(namespace, _)| namespace)
}
