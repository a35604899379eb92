//! P6, first part: the committed changes, in their order, are a life that leases may lead, and every acknowledged change is among them.

use std::collections::{HashMap, HashSet};

use crate::{
    facts::{Facts, Op},
    findings::{Findings, Property},
    history::{Call, EndReason, Kind, Outcome, Released, State},
    spec::Lease,
};

pub(super) const PROPERTY: Property =
    Property { id: "P6.replay", claim: "the committed changes replay on the specification, and every acknowledged one is among them", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    if !facts.witness.is_there() {
        findings.note("no witness");
        return;
    }
    for (at, one, other) in &facts.witness.split {
        findings.violation(*at, &one.change.lease, || format!("change {} is two: {:?} and {:?}", one.change.revision, one.change, other.change));
    }
    let ends = replay(facts, findings);
    for op in &facts.ops {
        acknowledged(facts, findings, &ends, op);
    }
    if facts.meta.all_edits_recorded {
        asked_for(facts, findings);
    }
}

/// No more leases were edited or deleted than somebody asked for who was not told that nothing was done. A put without a condition is sent again by
/// the SDK until it is answered, and so makes one change or more; those that are sent once are looked at by P12.
fn asked_for(facts: &Facts<'_>, findings: &mut Findings) {
    let mut left: HashMap<(&str, bool), usize> = HashMap::new();
    let mut sent_again: HashSet<&str> = HashSet::new();
    for op in &facts.ops {
        let may = !matches!(op.outcome, Some(Outcome::Refused { .. }));
        match &op.invoke.call {
            Call::Put { lease, must_not_exist: false, edit } if may && edit.is_empty() => {
                sent_again.insert(lease);
            }
            Call::Put { lease, .. } if may => *left.entry((lease, false)).or_default() += 1,
            Call::Delete { lease, .. } if may => *left.entry((lease, true)).or_default() += 1,
            _ => {}
        }
    }
    for (at, committed) in &facts.witness.changes {
        let change = &committed.change;
        let deleted = change.kind == Kind::Deleted;
        if deleted || matches!(change.kind, Kind::Created | Kind::Updated) && !sent_again.contains(change.lease.as_str()) {
            let left = left.entry((&change.lease, deleted)).or_default();
            findings.check(*left > 0, *at, &change.lease, || format!("change {} ({:?}) is more than was asked for", change.revision, change.kind));
            *left = left.saturating_sub(1);
        }
    }
}

/// Ends of holds: lease and token to the change and its reason.
type Ends<'h> = HashMap<(&'h str, u64), (u64, Option<EndReason>)>;

fn replay<'h>(facts: &Facts<'h>, findings: &mut Findings) -> Ends<'h> {
    let mut ends = Ends::new();
    let mut leases: HashMap<&str, Lease> = HashMap::new();
    for (at, committed) in &facts.witness.changes {
        let change = &committed.change;
        let lease = leases.entry(&change.lease).or_insert_with(|| facts.witness.before(&change.lease));
        let before = lease.hold().map(|hold| hold.token);
        let verdict = lease.apply(committed);
        findings.checked += 1;
        if let Err(error) = verdict {
            findings.violation(*at, &change.lease, || format!("change {}: {error}", change.revision));
        }
        let after = lease.hold().map(|hold| hold.token);
        let over =
            before.or_else(|| (change.kind != Kind::Acquired && change.reason.is_some()).then_some(change.token)).filter(|before| Some(*before) != after);
        if let Some(token) = over {
            ends.insert((&change.lease, token), (change.revision, change.reason));
        }
    }
    ends
}

fn acknowledged(facts: &Facts<'_>, findings: &mut Findings, ends: &Ends<'_>, op: &Op<'_>) {
    let Some(lease) = op.lease() else { return };
    let witness = &facts.witness;
    let mut is = |holds: bool, what: &str| findings.check(holds, op.to, lease, || format!("{what}: {}", op.text()));
    let change = |revision| witness.change(revision).map(|(_, committed)| &committed.change).filter(|change| change.lease == lease);
    match (&op.invoke.call, op.outcome) {
        (Call::Acquire { holder, .. }, Some(Outcome::Granted { lease: State { token, .. }, .. })) if witness.covers(lease, *token) => {
            is(change(*token).is_some_and(|change| change.kind == Kind::Acquired && change.holder == *holder), "this grant was not committed");
        }
        (Call::Acquire { .. }, Some(Outcome::Ended { token, .. })) if *token > 0 && witness.covers(lease, *token) && witness.covers_until(lease, op.to) => {
            is(ends.contains_key(&(lease, *token)), "said to be over, and is not");
        }
        (Call::Release { token, .. }, Some(Outcome::Released { did, .. }))
            if *token > 0 && witness.covers(lease, *token) && witness.covers_until(lease, op.to) =>
        {
            let end = ends.get(&(lease, *token));
            match did {
                Released::Released => is(end.is_some_and(|(_, reason)| *reason == Some(EndReason::Released)), "this release was not committed"),
                Released::AlreadyReleased => is(end.is_some(), "said to be over, and is not"),
                Released::NotHolder => is(end.is_some() || change(*token).is_none(), "refused to the holder"),
                Released::Barred => {}
            }
        }
        (Call::Renew { token, .. }, Some(Outcome::Renewed { .. })) if witness.covers(lease, *token) => {
            is(change(*token).is_some_and(|change| change.kind == Kind::Acquired), "renewed what was never granted");
        }
        (Call::Renew { token, .. }, Some(Outcome::Lost { reason, .. }))
            if *reason != EndReason::WrongLease && witness.covers(lease, *token) && witness.covers_until(lease, op.to) =>
        {
            let end = ends.get(&(lease, *token));
            let as_said = |end: &(u64, Option<EndReason>)| *reason == EndReason::UnknownToken || end.1 == Some(*reason);
            is(end.map_or(change(*token).is_none(), as_said), "lost, but not so");
        }
        (Call::Put { .. }, Some(Outcome::Put { lease: state, .. })) if witness.covers(lease, state.revision) => {
            is(change(state.revision).is_some(), "this put was not committed");
        }
        (Call::Delete { .. }, Some(Outcome::Deleted { lease: state, .. }))
            if witness.covers(lease, state.create_revision) && witness.covers_until(lease, op.to) =>
        {
            let gone =
                |create| witness.of_lease(lease).any(|(_, committed)| committed.change.kind == Kind::Deleted && committed.change.create_revision == create);
            is(gone(state.create_revision), "this delete was not committed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, EndReason, Kind, Meta, Outcome, Released, What, WitnessScope},
        story::{LEASE, Story, change, ended, state},
    };

    fn life() -> Story {
        let mut story = Story::default();
        story.committed(5, change(Kind::Acquired, 1, "a", 1)).committed(25, ended(Kind::Acquired, 2, "b", 2, "a", EndReason::Released)).witness(100, 9);
        story
    }

    #[test]
    fn changes_that_no_lease_may_make_are_found() {
        life().passes("P6.replay");
        life().committed(30, change(Kind::Acquired, 3, "c", 3)).fails("P6.replay");
        life().committed(30, change(Kind::Released, 3, "", 2)).fails("P6.replay");
        life().committed(30, change(Kind::Acquired, 2, "c", 2)).fails("P6.replay");
    }

    #[test]
    fn acknowledged_changes_that_were_not_committed_are_found() {
        life().granted(0, 6, "a", 1).released(20, 30, 1, Released::Released).passes("P6.replay");
        life().granted(0, 6, "x", 1).fails("P6.replay");
        life().granted(30, 36, "c", 3).fails("P6.replay");
        life().released(30, 40, 2, Released::Released).fails("P6.replay");
        life().released(30, 40, 2, Released::NotHolder).fails("P6.replay");
        life().released(30, 40, 1, Released::NotHolder).passes("P6.replay");
        life().renewed(30, 40, 3, 1000).fails("P6.replay");
        life().lost(30, 40, 2, EndReason::Expired).fails("P6.replay");
        life().lost(30, 40, 1, EndReason::Expired).fails("P6.replay");
        life().lost(30, 40, 1, EndReason::Released).passes("P6.replay");
        life().op(30, 40, "x", Call::Delete { lease: LEASE.into(), force: false }, Outcome::Deleted { lease: state("", 2), revision: 5 }).fails("P6.replay");
        life()
            .op(30, 40, "x", Call::Put { lease: LEASE.into(), must_not_exist: false, edit: String::new() }, Outcome::Put { lease: state("", 7), revision: 7 })
            .fails("P6.replay");
    }

    #[test]
    fn edits_that_nobody_asked_for_or_that_were_said_not_to_be_are_found() {
        let edited = |outcome: Option<Outcome>| {
            let mut story = Story::default();
            story.meta(Meta { all_edits_recorded: true, ..Meta::default() }).committed(5, change(Kind::Created, 1, "", 0)).witness(100, 9);
            if let Some(outcome) = outcome {
                story.op(0, 8, "x", Call::Put { lease: LEASE.into(), must_not_exist: true, edit: String::new() }, outcome);
            }
            story
        };
        edited(Some(Outcome::Put { lease: state("", 0), revision: 0 })).passes("P6.replay");
        edited(Some(Outcome::Unknown { error: String::new() })).passes("P6.replay");
        edited(Some(Outcome::Refused { reason: "ALREADY_EXISTS".into() })).fails("P6.replay");
        edited(None).fails("P6.replay");
        edited(Some(Outcome::Unknown { error: String::new() })).committed(9, change(Kind::Deleted, 2, "", 0)).fails("P6.replay");
    }

    #[test]
    fn put_that_the_sdk_may_send_again_may_change_its_lease_again() {
        let twice = |must_not_exist, edit: &str| {
            let mut story = Story::default();
            story.meta(Meta { all_edits_recorded: true, ..Meta::default() }).witness(100, 9);
            story.committed(5, change(Kind::Created, 1, "", 0)).committed(6, change(Kind::Updated, 2, "", 0));
            story.op(0, 8, "x", Call::Put { lease: LEASE.into(), must_not_exist, edit: edit.into() }, Outcome::Put { lease: state("", 0), revision: 0 });
            story
        };
        twice(false, "").passes("P6.replay");
        twice(true, "").fails("P6.replay");
        twice(false, "sent once").fails("P6.replay");
    }

    #[test]
    fn witness_that_goes_on_covers_both_parts() {
        let scope = |after, upto| What::Witness(WitnessScope { after, upto, renewals: true, namespace: None });
        let mut story = Story::default();
        story.at(10, scope(1, 50)).at(20, scope(50, 60));
        story.clone().granted(11, 12, "a", 40).fails("P6.replay");
        story.clone().granted(11, 12, "a", 55).fails("P6.replay");
        assert_eq!(story.granted(11, 12, "a", 65).find("P6.replay").violated, 0);
    }

    #[test]
    fn what_the_witness_does_not_cover_is_not_judged_by_it() {
        let mut story = Story::default();
        story.committed(5, change(Kind::Renewed, 12, "a", 11)).at(100, What::Witness(WitnessScope { after: 11, upto: 20, renewals: true, namespace: None }));
        story.granted(0, 5, "a", 11).granted(200, 201, "z", 21).released(200, 210, 12, Released::Released).passes("P6.replay");
    }
}
