//! L3: when a hold ends and somebody waits, the next is granted within the bound.

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::{Call, Outcome},
};

pub(super) const PROPERTY: Property = Property { id: "L3", claim: "the next waiter is granted within its bound", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let Some(bound) = facts.meta.bounds.hand_over.map(|ms| ms.saturating_mul(1_000_000)) else {
        findings.note("not demanded");
        return;
    };
    for op in &facts.ops {
        let (Call::Acquire { lease, .. }, Some(places)) = (&op.invoke.call, facts.places.get(&op.invoke.op)) else { continue };
        let Some(queued) = places.iter().find(|(_, told)| *told).map(|(at, _)| *at) else { continue };
        let done = if matches!(op.outcome, Some(Outcome::Granted { .. } | Outcome::Denied { .. } | Outcome::Ended { .. })) { op.to } else { continue };
        let Some(holds) = facts.holds.get(lease.as_str()) else { continue };
        for hold in holds.values() {
            // Ends while this one waits; it, or another, must be next.
            let Some(over) = hold.over.filter(|over| *over > queued && over.saturating_add(bound) < done) else { continue };
            if facts.faults_in(over.saturating_sub(3_000_000_000), over.saturating_add(bound)).next().is_some() || places.iter().any(|(_, told)| !told) {
                continue;
            }
            let next = holds.values().filter_map(|next| next.seen).find(|seen| *seen >= over && *seen <= over.saturating_add(bound));
            let held = holds.values().any(|other| other.seen.is_some_and(|seen| seen <= over) && other.over.is_none_or(|other| other > over));
            findings.check(next.is_some() || held, over, lease, || {
                format!("{} was over by {over}, {} waited since {queued}, and nobody was granted within {bound} ns", hold.holder, op.invoke.client)
            });
        }
        findings.checked += 1;
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Bounds, Call, Invoke, Outcome, Released, Return, What},
        story::{LEASE, Story, state},
    };

    #[test]
    fn waiter_that_is_left_waiting_is_found() {
        let waits = |to| {
            let mut story = Story::default();
            story.bounds(Bounds { hand_over: Some(50), ..Bounds::default() }).granted(0, 5, "a", 1);
            let call =
                Call::Acquire { lease: LEASE.into(), holder: "b".into(), request_id: "r".into(), duration_ms: 1000, wait_ms: Some(9000), reclaim: false };
            story.at(6, What::Invoke(Invoke { op: 77, client: "b".into(), node: None, call })).at(8, What::Queued { op: 77, position: 1 });
            story.released(10, 20, 1, Released::Released);
            story.at(to, What::Return(Return { op: 77, outcome: Outcome::Granted { lease: state("b", 2), must_renew: true, revision: 2 } }));
            story
        };
        waits(70).passes("L3");
        waits(71).fails("L3");
    }
}
