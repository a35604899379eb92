//! P6, third part: a read shows what was there at the revision that it names, all of it and nothing else; other answers show no state that was
//! known to be over when they were asked for.

use std::collections::HashMap;

use crate::{
    facts::{Facts, Op, namespace},
    findings::{Findings, Property},
    history::{Call, Change, Kind, LeaseState, Outcome, State},
};

pub(super) const PROPERTY: Property = Property { id: "P6.reads", claim: "answers show leases as the committed changes made them, at their revision", check };

/// What is there at a revision.
#[derive(Default)]
struct There<'h> {
    /// The last change, and the last that was not a renewal.
    leases: HashMap<&'h str, (&'h Change, &'h Change)>,
    count: HashMap<&'h str, usize>,
}

impl<'h> There<'h> {
    fn follow(&mut self, change: &'h Change) {
        let namespace = namespace(&change.lease);
        if change.kind == Kind::Deleted {
            if self.leases.remove(change.lease.as_str()).is_some() {
                *self.count.entry(namespace).or_default() -= 1;
            }
            return;
        }
        let before = self.leases.get(change.lease.as_str()).map(|(_, change)| *change);
        let edit = if change.kind == Kind::Renewed { before.unwrap_or(change) } else { change };
        if self.leases.insert(&change.lease, (change, edit)).is_none() {
            *self.count.entry(namespace).or_default() += 1;
        }
    }
}

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    if !facts.witness.is_there() {
        findings.note("no witness");
        return;
    }
    let mut reads: Vec<&Op<'_>> =
        facts.ops.iter().filter(|op| matches!(op.outcome, Some(Outcome::Got { revision, .. } | Outcome::Listed { revision, .. }) if *revision > 0)).collect();
    reads.sort_by_key(|op| op.revision());
    let mut there = There::default();
    let mut next = 0;
    for read in reads {
        while let Some((_, committed)) = facts.witness.changes.get(next)
            && committed.change.revision <= read.revision()
        {
            there.follow(&committed.change);
            next += 1;
        }
        match read.outcome {
            Some(Outcome::Got { lease, .. }) => got(facts, findings, &there, read, lease.as_ref()),
            Some(Outcome::Listed { leases, .. }) => listed(facts, findings, &there, read, leases),
            _ => {}
        }
    }
    for op in &facts.ops {
        if !matches!(op.outcome, Some(Outcome::Got { .. } | Outcome::Listed { .. } | Outcome::Deleted { .. })) {
            for state in op.shown() {
                shown(facts, findings, op, state);
            }
        }
    }
}

fn got(facts: &Facts<'_>, findings: &mut Findings, there: &There<'_>, read: &Op<'_>, state: Option<&State>) {
    let Some(lease) = read.lease().filter(|lease| facts.witness.covers(lease, read.revision())) else { return };
    match (state, there.leases.get(lease)) {
        (Some(state), Some(at)) => same(facts, findings, read, state, at),
        (None, Some((_, at))) => findings.check(false, read.to, lease, || format!("not found, though change {} made it: {}", at.revision, read.text())),
        // Before the first change that is known, a lease may be there.
        (Some(_), None) => {
            let surely_not = facts.witness.before(lease).there.is_some()
                || facts.witness.of_lease(lease).next().is_some_and(|(_, first)| first.change.revision <= read.revision());
            findings.check(!surely_not, read.to, lease, || format!("found, though it was not there at {}: {}", read.revision(), read.text()));
        }
        (None, None) => findings.checked += 1,
    }
}

fn listed(facts: &Facts<'_>, findings: &mut Findings, there: &There<'_>, read: &Op<'_>, states: &[State]) {
    let Call::List { namespace: wanted, selected, .. } = &read.invoke.call else { return };
    let Some(scope) = facts.witness.scope_of_namespace(wanted.as_deref()) else { return };
    if read.revision() <= scope.after || read.revision() > scope.upto {
        return;
    }
    let mut known = 0;
    for state in states {
        if let Some(at) = there.leases.get(state.lease.as_str()) {
            known += 1;
            same(facts, findings, read, state, at);
        }
    }
    let all = wanted.as_deref().map_or(there.leases.len(), |wanted| there.count.get(wanted).copied().unwrap_or(0));
    if !selected {
        findings.check(known == all, read.to, "", || {
            let missing = there
                .leases
                .keys()
                .find(|lease| wanted.as_deref().is_none_or(|wanted| namespace(lease) == wanted) && states.iter().all(|state| state.lease != **lease));
            format!("{known} of {all} leases at {} are listed; missing: {missing:?} ({})", read.revision(), read.invoke.client)
        });
        findings
            .check(scope.after > 0 || known == states.len(), read.to, "", || format!("{} are listed, {known} are there at {}", states.len(), read.revision()));
    }
}

fn same(facts: &Facts<'_>, findings: &mut Findings, read: &Op<'_>, state: &State, (last, edit): &(&Change, &Change)) {
    let held = state.state == LeaseState::Held;
    let mut right = state.token == edit.token && state.holder == edit.holder && held != edit.holder.is_empty();
    right &= state.create_revision == 0 || edit.create_revision == 0 || state.create_revision == edit.create_revision;
    // The first change that is known may be a renewal: then the last other one is not.
    right &= state.revision == 0 || edit.kind == Kind::Renewed || state.revision == edit.revision;
    if facts.witness.scope_of(&state.lease).is_some_and(|scope| scope.renewals) {
        right &= state.renew_revision == 0 || state.renew_revision == last.revision;
        right &= !held || state.duration_ms == 0 || last.duration_ms == 0 || state.duration_ms == last.duration_ms;
    }
    findings.check(right, read.to, &state.lease, || format!("shown as {state:?} at {}, and was as after {last:?} ({})", read.revision(), read.invoke.client));
}

/// A state in an answer that names no revision of its own.
fn shown(facts: &Facts<'_>, findings: &mut Findings, op: &Op<'_>, state: &State) {
    if state.revision == 0 || !facts.witness.covers(&state.lease, state.revision) {
        return;
    }
    let change = facts.witness.change(state.revision).map(|(_, committed)| &committed.change).filter(|change| change.lease == state.lease);
    let right = change.is_some_and(|change| change.token == state.token && change.holder == state.holder);
    findings.check(right, op.to, &state.lease, || format!("shows a state that never was, {:?} is change {}: {}", change, state.revision, op.text()));
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, EndReason, Kind, Outcome, State},
        story::{LEASE, Story, acquire, change, ended, state},
    };

    fn life() -> Story {
        let mut story = Story::default();
        story
            .committed(5, change(Kind::Acquired, 1, "a", 1))
            .committed(15, change(Kind::Renewed, 2, "a", 1))
            .committed(25, ended(Kind::Deleted, 3, "", 1, "a", EndReason::Revoked))
            .witness(100, 9);
        story
    }

    fn at(revision: u64, renew_revision: u64) -> Option<State> {
        Some(State { revision, renew_revision, ..state("a", 1) })
    }

    #[test]
    fn read_that_shows_another_revision_is_found() {
        life().got(30, 40, at(1, 1), 1).got(30, 40, at(1, 2), 2).got(30, 40, None, 3).passes("P6.reads");
        life().got(30, 40, at(1, 1), 2).fails("P6.reads");
        life().got(30, 40, at(2, 2), 2).fails("P6.reads");
        life().got(30, 40, None, 2).fails("P6.reads");
        life().got(30, 40, at(1, 2), 3).fails("P6.reads");
        life().got(30, 40, Some(State { holder: "b".into(), ..at(1, 2).unwrap() }), 2).fails("P6.reads");
    }

    #[test]
    fn list_that_leaves_something_out_or_adds_something_is_found() {
        let list = |selected, leases, revision| {
            let mut story = life();
            let call = Call::List { namespace: Some("n".into()), selected, stale: false };
            story.op(30, 40, "r", call, Outcome::Listed { leases, revision });
            story
        };
        list(false, vec![at(1, 2).unwrap()], 2).passes("P6.reads");
        list(false, vec![], 2).fails("P6.reads");
        list(true, vec![], 2).find("P6.reads");
        list(false, vec![at(1, 2).unwrap()], 3).fails("P6.reads");
        let another = State { lease: "n/other".into(), ..at(1, 2).unwrap() };
        list(false, vec![at(1, 2).unwrap(), another], 2).fails("P6.reads");
    }

    #[test]
    fn denial_that_shows_what_never_was_is_found() {
        let denied = |holder: &str| Outcome::Denied { lease: State { revision: 1, ..state(holder, 1) }, revision: 2 };
        life().op(6, 20, "b", acquire("b"), denied("a")).passes("P6.reads");
        life().op(6, 20, "b", acquire("b"), denied("c")).fails("P6.reads");
        assert_eq!(life().op(6, 20, "b", acquire("b"), denied("c")).find("P6.replay").violated, 0, "{LEASE}: only the reads tell");
    }
}
