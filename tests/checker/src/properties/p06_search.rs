//! P6, fourth part, the second opinion: a search for any order of the operations of one lease that explains their answers, without looking at a
//! single revision. So a fault in how revisions are assigned cannot hide behind them.

use std::collections::BTreeMap;

use crate::{
    facts::{Facts, Op},
    findings::{Findings, Property},
    search::{self, Verdict},
};

pub(super) const PROPERTY: Property =
    Property { id: "P6.search", claim: "some order of each lease's operations explains their answers (revisions unseen)", check };

/// Steps for all leases together, and for one.
const STEPS: u64 = 30_000_000;
const STEPS_OF_ONE: u64 = 3_000_000;

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut by_lease: BTreeMap<&str, Vec<&Op<'_>>> = BTreeMap::new();
    for op in &facts.ops {
        if let Some(lease) = op.lease() {
            by_lease.entry(lease).or_default().push(op);
        }
    }
    let mut left = STEPS;
    let mut given_up = 0;
    for (lease, ops) in by_lease {
        let Some(problem) = search::Problem::of(facts, lease, &ops) else { continue };
        let (verdict, steps) = problem.solve(STEPS_OF_ONE.min(left));
        left -= steps.min(left);
        match verdict {
            Verdict::Explained => findings.checked += problem.len() as u64,
            Verdict::GivenUp => given_up += 1,
            Verdict::Impossible { stuck, after } => {
                findings.checked += problem.len() as u64;
                findings.violation(stuck.map_or(0, |op| op.to), lease, || {
                    let stuck = stuck.map_or_else(String::new, Op::text);
                    format!("no order explains the {} operations: the best explains {after} of them and not {stuck}", problem.len())
                });
            }
        }
    }
    if given_up > 0 {
        findings.note(format!("gave up on {given_up} leases: too many orders"));
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, EndReason, Meta, Outcome, Released},
        story::{LEASE, Story, acquire, state},
    };

    #[test]
    fn orders_that_explain_everything_are_found() {
        let mut story = Story::default();
        story
            .granted(0, 5, "a", 1)
            .got(1, 6, None, 0)
            .op(2, 4, "b", acquire("b"), Outcome::Denied { lease: state("a", 1), revision: 0 })
            .renewed(10, 15, 1, 1000)
            .released(20, 30, 1, Released::Released)
            .granted(22, 28, "b", 2)
            .lost(31, 32, 1, EndReason::Released)
            .got(40, 41, Some(state("b", 2)), 0)
            .granted(1100, 1110, "c", 3);
        story.passes("P6.search");
    }

    #[test]
    fn repeat_that_is_told_that_its_grant_is_over_explains_itself_when_it_is() {
        let over = || Outcome::Ended { token: 1, reason: EndReason::Released };
        let mut story = Story::default();
        story.granted(0, 5, "a", 1).released(10, 12, 1, Released::Released).granted(14, 16, "b", 2).op(20, 21, "a", acquire("a"), over());
        story.passes("P6.search");
        // Nobody has ended it, and it cannot have expired.
        Story::default().granted(0, 5, "a", 1).op(20, 21, "a", acquire("a"), over()).got(30, 31, Some(state("a", 1)), 0).fails("P6.search");
    }

    #[test]
    fn answers_that_no_order_explains_are_found() {
        // Read before it was asked for.
        Story::default().got(0, 1, Some(state("a", 1)), 0).granted(2, 5, "a", 1).fails("P6.search");
        // Not there any more after it was granted, and before it can have expired.
        Story::default().granted(0, 5, "a", 1).got(6, 7, None, 0).fails("P6.search");
        Story::default().granted(0, 5, "a", 1).got(6, 7, Some(state("", 1)), 0).fails("P6.search");
        Story::default().granted(0, 5, "a", 1).got(6, 1007, Some(state("", 1)), 0).passes("P6.search");
        // Two at once.
        Story::default().granted(0, 5, "a", 1).granted(0, 6, "b", 2).fails("P6.search");
        // Renewed after a release.
        Story::default().granted(0, 5, "a", 1).released(6, 7, 1, Released::Released).renewed(8, 9, 1, 1000).fails("P6.search");
        // Denied though nobody can hold it.
        let denied = Outcome::Denied { lease: state("a", 1), revision: 0 };
        Story::default().granted(0, 5, "a", 1).released(6, 7, 1, Released::Released).op(8, 9, "b", acquire("b"), denied).fails("P6.search");
        // Refused to the owner, who has it still.
        Story::default().granted(0, 5, "a", 1).released(6, 7, 1, Released::NotHolder).renewed(8, 9, 1, 1000).fails("P6.search");
        // A stale read by a deposed raft leader.
        Story::default()
            .granted(0, 5, "a", 1)
            .released(6, 7, 1, Released::Released)
            .granted(8, 9, "b", 2)
            .got(10, 11, Some(state("a", 1)), 0)
            .fails("P6.search");
    }

    #[test]
    fn what_is_unknown_may_have_happened_or_not() {
        let unknown = || Outcome::Unknown { error: String::new() };
        let release = || Call::Release { lease: LEASE.into(), token: 1, holder: String::new(), request_id: String::new() };
        let mut story = Story::default();
        story.granted(0, 5, "a", 1).op(6, 7, "a", release(), unknown());
        story.clone().got(8, 9, Some(state("a", 1)), 0).passes("P6.search");
        story.clone().got(8, 9, Some(state("", 1)), 0).passes("P6.search");
        story.clone().got(8, 9, Some(state("", 1)), 0).got(10, 11, Some(state("a", 1)), 0).fails("P6.search");
        let mut story = Story::default();
        // Else it might have been somebody who is not in the history.
        story.meta(Meta { all_clients_recorded: true, ..Meta::default() }).op(0, 5, "a", acquire("a"), unknown());
        story.clone().got(8, 9, Some(state("a", 1)), 0).passes("P6.search");
        story.clone().got(8, 9, Some(state("b", 1)), 0).op(10, 11, "b", acquire("b"), unknown()).fails("P6.search");
        story.got(8, 9, Some(state("a", 1)), 0).got(10, 11, Some(state("a", 2)), 0).fails("P6.search");
    }

    #[test]
    fn repeated_request_is_told_that_its_grant_is_over_and_only_then() {
        let ended = || Outcome::Ended { token: 1, reason: EndReason::Released };
        let mut story = Story::default();
        story.granted(0, 5, "a", 1);
        story.clone().released(6, 7, 1, Released::Released).op(8, 9, "a", acquire("a"), ended()).passes("P6.search");
        story.op(6, 7, "a", acquire("a"), ended()).fails("P6.search");
    }

    #[test]
    fn release_that_was_sent_again_inside_the_cluster_may_say_that_it_was_over() {
        let mut story = Story::default();
        story.granted(0, 5, "a", 1).released(6, 9, 1, Released::NotHolder).granted(5, 8, "b", 2).passes("P6.search");
    }

    #[test]
    fn clocks_outside_the_promise_excuse_an_early_end() {
        let mut story = Story::default();
        story.meta(Meta { clocks_within_promise: false, ..Meta::default() }).granted(0, 5, "a", 1).granted(6, 7, "b", 2).passes("P6.search");
    }
}
