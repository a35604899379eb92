//! Looks at every replica at each entry that it applies: the table's own invariants, the rules of tokens, and that all replicas agree. The first to
//! apply an entry also writes down what was committed: the witness of the history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tenure_checker::history::{Change, Committed, What};
use tenure_lease::{Applied, EndReason, Event, EventKind, LeaseTable, NoticeKind, RaftLeaderId, Scope, Selector};
use tenure_server::Observer;

use crate::{clock::now, convert, direct::EDIT, entry::Before, panics, world::World};

/// What is known of the log as committed. Shared by the observers of all replicas.
pub(crate) struct Ledger {
    world: Arc<World>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Hash of the state after each entry.
    hashes: BTreeMap<u64, u64>,
    /// Who leads, as the newest entry says; and until when its first second lasts, in true time.
    newest: u64,
    leader: RaftLeaderId,
    leader_since: u64,
    before: Before,
    /// Largest token of each lease, for ever.
    tokens: BTreeMap<String, u64>,
    revision: u64,
    /// Tokens granted under a former raft leader and still live.
    granted_by: BTreeMap<u64, RaftLeaderId>,
    /// By replica: what its process has applied.
    applied: BTreeMap<String, u64>,
}

impl Ledger {
    pub(crate) fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, state: Mutex::default() })
    }

    /// Node id of the raft leader of the newest entry; 0: none yet.
    pub(crate) fn leader(&self) -> u64 {
        self.state.lock().leader.node
    }

    /// Number of the newest change.
    pub(crate) fn revision(&self) -> u64 {
        self.state.lock().revision
    }

    /// How far each of these replicas is, in entries that carry commands.
    pub(crate) fn progress(&self, nodes: &[String]) -> Vec<u64> {
        let state = self.state.lock();
        nodes.iter().map(|node| state.applied.get(node).copied().unwrap_or(0)).collect()
    }

    /// Whether they are all where the foremost is.
    pub(crate) fn all_agree(&self, nodes: &[String]) -> bool {
        let newest = self.state.lock().newest;
        self.progress(nodes).iter().all(|applied| *applied >= newest)
    }

    fn agree(&self, state: &mut State, node: &str, index: u64, table: &LeaseTable) {
        let hash = table.state_hash();
        let known = *state.hashes.entry(index).or_insert(hash);
        if known != hash {
            self.world.violation(now(), "state", format!("{node} has state {hash:016x} after entry {index}, another replica had {known:016x}"));
        }
    }

    fn first(&self, state: &mut State, index: u64, leader: RaftLeaderId, table: &LeaseTable, applied: &Applied) {
        if leader != state.leader {
            (state.leader, state.leader_since) = (leader, now());
            self.world.record(What::RaftLeader { node: format!("n{}", leader.node), term: leader.term });
        }
        let within = now() - state.leader_since < 1_000_000_000;
        for (rule, what) in state.before.next(table, applied) {
            self.world.violation(now(), rule, format!("entry {index}: {what}"));
        }
        if applied.notices.iter().any(|notice| notice.kind == NoticeKind::Moved) {
            self.world.covered("waiter moved to another replica");
        }
        for event in &applied.events {
            if event.revision <= state.revision {
                self.world.violation(now(), "revision", format!("revision {} after {}", event.revision, state.revision));
            }
            state.revision = event.revision;
            self.event(state, event, leader, within, table);
        }
    }

    fn event(&self, state: &mut State, event: &Event, leader: RaftLeaderId, within: bool, table: &LeaseTable) {
        let lease = &event.lease;
        let name = format!("{}/{}", lease.namespace, lease.name);
        if let Some(ended) = &event.ended {
            let granted_by = state.granted_by.remove(&ended.token);
            match ended.end_reason {
                Some(EndReason::Expired) if granted_by.is_some_and(|by| by != leader) => self.world.covered("expiry by a new raft leader"),
                Some(EndReason::Unclaimed) => self.world.covered("grant unclaimed"),
                _ => {}
            }
        }
        if event.kind == EventKind::Acquired {
            if event.ended.is_some() || lease.unclaimed {
                self.world.covered("hand-over to a waiter");
            }
            state.granted_by.insert(lease.token, leader);
            let before = state.tokens.insert(name.clone(), lease.token).unwrap_or(0);
            if lease.token <= before || lease.token != event.revision {
                self.world.violation(now(), "token", format!("{name} was granted token {} at revision {} after {before}", lease.token, event.revision));
            }
        }
        if event.kind == EventKind::Renewed && within && leader.term > 1 {
            self.world.covered("renewal during a change of raft leader");
        }
        let change = Change {
            revision: event.revision,
            kind: convert::kind(event.kind),
            lease: name,
            token: lease.token,
            holder: if event.kind == EventKind::Deleted { String::new() } else { lease.holder.as_deref().unwrap_or_default().to_owned() },
            duration_ms: u64::from(lease.duration_ms),
            create_revision: lease.create_revision,
            previous_holder: event.previous_holder().map(|holder| holder.to_string()).unwrap_or_default(),
            reason: event.reason().map(convert::end_reason),
        };
        let held = event.kind != EventKind::Deleted;
        let edited = matches!(event.kind, EventKind::Created | EventKind::Updated);
        self.world.record(What::Committed(Committed {
            change,
            clock_ms: Some(table.clock().0),
            deadline_ms: if held { lease.deadline.map(|deadline| deadline.0) } else { None },
            unclaimed: lease.unclaimed,
            term: Some(leader.term),
            edit: if edited { lease.labels.get(EDIT).map(ToString::to_string).unwrap_or_default() } else { String::new() },
        }));
    }
}

/// The observer of one replica.
pub(crate) struct Watchman {
    pub(crate) node: String,
    pub(crate) ledger: Arc<Ledger>,
    /// It has told what it begins with.
    pub(crate) started: AtomicBool,
}

impl Watchman {
    fn look(&self, index: u64, table: &LeaseTable) {
        if let Err(what) = panics::caught(|| table.check_invariants()) {
            self.ledger.world.violation(now(), "invariant", format!("{} after entry {index}: {what}", self.node));
        }
        let mut tokens = BTreeSet::new();
        for lease in table.list(&Scope::All, &Selector::default()) {
            if lease.holder.is_some() && !tokens.insert(lease.token) {
                self.ledger.world.violation(now(), "token", format!("{}: token {} is live twice after entry {index}", self.node, lease.token));
            }
        }
    }
}

impl Observer for Watchman {
    fn applied(&self, index: u64, committed_by: RaftLeaderId, table: &LeaseTable, applied: &Applied) {
        self.look(index, table);
        let ledger = &self.ledger;
        let mut state = ledger.state.lock();
        ledger.agree(&mut state, &self.node, index, table);
        state.applied.insert(self.node.clone(), index);
        if index > state.newest {
            state.newest = index;
            ledger.first(&mut state, index, committed_by, table, applied);
        }
        ledger.world.trace.line(now(), format_args!("applied {} {index} {} {}", self.node, committed_by.term, table.revision()));
    }

    fn replaced(&self, index: u64, table: &LeaseTable) {
        let starting = !self.started.swap(true, Ordering::Relaxed);
        let mut state = self.ledger.state.lock();
        state.applied.insert(self.node.clone(), index);
        if index == 0 {
            return;
        }
        self.look(index, table);
        if starting {
            self.ledger.world.covered("restart from a snapshot");
        } else if table.totals().held > 0 {
            self.ledger.world.covered("snapshot installed with live leases");
        }
        self.ledger.agree(&mut state, &self.node, index, table);
        self.ledger.world.trace.line(now(), format_args!("replaced {} {index} {}", self.node, table.revision()));
    }
}
