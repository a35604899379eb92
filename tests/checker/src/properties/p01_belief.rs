//! P1: nobody acts as holder while somebody else does. The promise that users buy; it holds only while clocks run within theirs.

use std::collections::BTreeMap;

use crate::{
    facts::{Facts, Held},
    findings::{Findings, Property},
    history::Call,
};

pub(super) const PROPERTY: Property = Property { id: "P1", claim: "no two holders act as one at the same time", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    if !facts.meta.clocks_within_promise {
        findings.note("clocks ran outside the promise: only tokens protect");
        return;
    }
    let mut by_lease: BTreeMap<&str, Vec<&Held<'_>>> = BTreeMap::new();
    for held in &facts.beliefs {
        by_lease.entry(&held.belief.lease).or_default().push(held);
    }
    for (lease, beliefs) in by_lease {
        // In order of their begin. Whoever began before and lasts longest is the one to compare with.
        let mut longest: Option<&Held<'_>> = None;
        for held in beliefs {
            if let Some(before) = longest {
                let overlap = held.from < before.to && held.belief.token != before.belief.token && held.from < held.to;
                let text = || {
                    format!(
                        "{} (token {}) acts from {} while {} (token {}) does until {}: {} ns of both",
                        held.belief.holder,
                        held.belief.token,
                        held.from,
                        before.belief.holder,
                        before.belief.token,
                        before.to,
                        before.to.min(held.to) - held.from
                    )
                };
                findings.check(!overlap || taken_by_force(facts, before, held), held.from, lease, text);
            } else {
                findings.checked += 1;
            }
            if longest.is_none_or(|before| held.to > before.to) {
                longest = Some(held);
            }
        }
    }
}

/// Whether the later one got it by a reclaim of the same name, or after a forced delete: then the one before is fenced and not asked.
fn taken_by_force(facts: &Facts<'_>, before: &Held<'_>, later: &Held<'_>) -> bool {
    if facts.was_revoked(&before.belief.lease, before.belief.token) {
        return true;
    }
    facts.ops.iter().take_while(|op| op.from <= later.from).any(|op| match &op.invoke.call {
        Call::Acquire { lease, holder, reclaim: true, .. } => *lease == later.belief.lease && *holder == later.belief.holder && *holder == before.belief.holder,
        Call::Delete { lease, force: true } => *lease == later.belief.lease && op.to >= before.from,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{EndReason, Kind, Meta, Outcome},
        story::{LEASE, Story, ended, state},
    };

    #[test]
    fn overlapping_beliefs_are_found_and_touching_ones_are_legal() {
        let mut story = Story::default();
        story.belief(0, 10, "a", 1).belief(10, 20, "b", 2).passes("P1");
        story.belief(19, 21, "c", 3);
        assert!(story.fails("P1").contains("1000000 ns of both"));
    }

    #[test]
    fn overlap_with_an_older_longer_belief_is_found() {
        Story::default().belief(0, 100, "a", 1).belief(5, 6, "a", 1).belief(50, 60, "b", 2).fails("P1");
    }

    #[test]
    fn clocks_outside_the_promise_excuse_it() {
        let mut story = Story::default();
        story.meta(Meta { clocks_within_promise: false, ..Meta::default() }).belief(0, 10, "a", 1).belief(5, 20, "b", 2);
        assert_eq!((story.find("P1").checked, story.find("P1").violated), (0, 0));
    }

    #[test]
    fn hold_that_was_revoked_before_its_holder_knew_of_it_is_no_surprise() {
        let ended_by = |reason| {
            let mut story = Story::default();
            story.watch(0, 1, 0).event(3, 1, ended(Kind::Deleted, 2, "", 1, "a", reason)).belief(5, 20, "a", 1).belief(10, 30, "b", 3);
            story
        };
        ended_by(EndReason::Revoked).passes("P1");
        ended_by(EndReason::Expired).fails("P1");
    }

    #[test]
    fn reclaim_by_the_same_name_fences_and_another_name_does_not() {
        use crate::history::Call;
        let reclaim = |holder: &str| Call::Acquire {
            lease: LEASE.into(),
            holder: holder.into(),
            request_id: String::new(),
            duration_ms: 1000,
            wait_ms: None,
            reclaim: true,
        };
        let granted = |holder| Outcome::Granted { lease: state(holder, 2), must_renew: false, revision: 2 };
        Story::default().belief(0, 10, "a", 1).op(4, 5, "a", reclaim("a"), granted("a")).belief(5, 20, "a", 2).passes("P1");
        Story::default().belief(0, 10, "a", 1).op(4, 5, "b", reclaim("b"), granted("b")).belief(5, 20, "b", 2).fails("P1");
    }
}
