//! Hand-made histories for the tests of the properties. Times are in milliseconds; the lease is `n/l` unless it is said.

use std::collections::HashSet;

use crate::{
    facts::Facts,
    findings::Findings,
    history::{
        Belief, Bounds, Call, Change, Committed, EndReason, History, Invoke, Kind, LeaseState, Meta, Outcome, Record, Released, Return, State, WatchOpen, What,
        WitnessScope,
    },
    properties::ALL,
};

pub(crate) const LEASE: &str = "n/l";
pub(crate) const MS: u64 = 1_000_000;

/// A history in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) records: Vec<Record>,
    ops: u64,
}

pub(crate) fn state(holder: &str, token: u64) -> State {
    let state = if holder.is_empty() { LeaseState::Free } else { LeaseState::Held };
    State {
        lease: LEASE.into(),
        state,
        holder: holder.into(),
        token,
        duration_ms: 1000,
        revision: token,
        renew_revision: token,
        create_revision: 1,
        waiters: 0,
    }
}

pub(crate) fn change(kind: Kind, revision: u64, holder: &str, token: u64) -> Change {
    Change { kind, revision, token, holder: holder.into(), lease: LEASE.into(), create_revision: 1, duration_ms: 1000, ..Change::default() }
}

pub(crate) fn ended(kind: Kind, revision: u64, holder: &str, token: u64, previous: &str, reason: EndReason) -> Change {
    Change { previous_holder: previous.into(), reason: Some(reason), ..change(kind, revision, holder, token) }
}

pub(crate) fn acquire(holder: &str) -> Call {
    Call::Acquire { lease: LEASE.into(), holder: holder.into(), request_id: String::new(), duration_ms: 1000, wait_ms: None, reclaim: false }
}

impl Story {
    pub(crate) fn at(&mut self, ms: u64, what: What) -> &mut Self {
        self.records.push(Record { at: ms * MS, what });
        self
    }

    pub(crate) fn meta(&mut self, meta: Meta) -> &mut Self {
        self.at(0, What::Meta(meta))
    }

    pub(crate) fn bounds(&mut self, bounds: Bounds) -> &mut Self {
        self.meta(Meta { bounds, ..Meta::default() })
    }

    /// The client is the holder, or `reader`.
    pub(crate) fn op(&mut self, from: u64, to: u64, client: &str, call: Call, outcome: Outcome) -> &mut Self {
        self.ops += 1;
        let op = self.ops;
        self.at(from, What::Invoke(Invoke { op, client: client.into(), node: None, call }));
        self.at(to, What::Return(Return { op, outcome }))
    }

    pub(crate) fn granted(&mut self, from: u64, to: u64, holder: &str, token: u64) -> &mut Self {
        self.op(from, to, holder, acquire(holder), Outcome::Granted { lease: state(holder, token), must_renew: false, revision: token })
    }

    pub(crate) fn renewed(&mut self, from: u64, to: u64, token: u64, duration_ms: u64) -> &mut Self {
        let call = Call::Renew { lease: LEASE.into(), token, duration_ms: Some(duration_ms) };
        self.op(from, to, "renewer", call, Outcome::Renewed { duration_ms, revision: 0 })
    }

    pub(crate) fn lost(&mut self, from: u64, to: u64, token: u64, reason: EndReason) -> &mut Self {
        let call = Call::Renew { lease: LEASE.into(), token, duration_ms: None };
        self.op(from, to, "renewer", call, Outcome::Lost { reason, holder: None })
    }

    pub(crate) fn released(&mut self, from: u64, to: u64, token: u64, did: Released) -> &mut Self {
        let call = Call::Release { lease: LEASE.into(), token, holder: String::new(), request_id: String::new() };
        self.op(from, to, "releaser", call, Outcome::Released { did, lease: None, revision: 0 })
    }

    pub(crate) fn got(&mut self, from: u64, to: u64, lease: Option<State>, revision: u64) -> &mut Self {
        self.op(from, to, "reader", Call::Get { lease: LEASE.into(), stale: false }, Outcome::Got { lease, revision })
    }

    pub(crate) fn belief(&mut self, from: u64, to: u64, holder: &str, token: u64) -> &mut Self {
        self.ops += 1;
        let belief = self.ops;
        self.at(from, What::Believe(Belief { belief, lease: LEASE.into(), holder: holder.into(), token, deadline: to * MS }));
        self.at(to, What::Doubt { belief })
    }

    pub(crate) fn committed(&mut self, at: u64, change: Change) -> &mut Self {
        self.at(at, What::Committed(Committed { change, ..Committed::default() }))
    }

    /// On the lease clock, too.
    pub(crate) fn stamped(&mut self, at: u64, clock_ms: u64, change: Change) -> &mut Self {
        self.at(at, What::Committed(Committed { change, clock_ms: Some(clock_ms), ..Committed::default() }))
    }

    /// Of everything, with renewals.
    pub(crate) fn witness(&mut self, at: u64, upto: u64) -> &mut Self {
        self.at(at, What::Witness(WitnessScope { after: 0, upto, renewals: true, namespace: None }))
    }

    /// A watch of everything.
    pub(crate) fn watch(&mut self, at: u64, watch: u64, after_revision: u64) -> &mut Self {
        self.at(at, What::WatchOpen(WatchOpen { watch, client: "watcher".into(), after_revision, ..WatchOpen::default() }))
    }

    pub(crate) fn event(&mut self, at: u64, watch: u64, change: Change) -> &mut Self {
        self.at(at, What::WatchEvent { watch, change })
    }

    pub(crate) fn bookmark(&mut self, at: u64, watch: u64, revision: u64) -> &mut Self {
        self.at(at, What::WatchBookmark { watch, revision })
    }

    pub(crate) fn find(&self, id: &str) -> Findings {
        let history = History::sorted(self.records.clone());
        let facts = Facts::of(&history);
        let ids: HashSet<&str> = ALL.iter().map(|property| property.id).collect();
        assert_eq!(ids.len(), ALL.len(), "names are unique");
        let mut findings = Findings::default();
        let property = ALL.iter().find(|property| property.id == id).expect("there is such a property");
        (property.check)(&facts, &mut findings);
        findings
    }

    /// It is looked at, and fine.
    #[track_caller]
    pub(crate) fn passes(&self, id: &str) {
        let findings = self.find(id);
        assert!(findings.violated == 0, "{id}: {findings:#?}");
        assert!(findings.checked > 0, "{id} looked at nothing: {findings:?}");
    }

    /// It is found; says what was said of it.
    #[track_caller]
    pub(crate) fn fails(&self, id: &str) -> String {
        let findings = self.find(id);
        assert!(findings.violated > 0, "{id} found nothing: {findings:?}");
        findings.violations.into_iter().map(|violation| violation.text).collect::<Vec<_>>().join("\n")
    }
}
