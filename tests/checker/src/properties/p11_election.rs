//! P11: who acts as holder was granted, stops before its deadline, and never acts again once it was told that it lost.

use std::collections::{BTreeMap, HashMap};

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::{Call, EndReason, Outcome},
};

pub(super) const PROPERTY: Property =
    Property { id: "P11", claim: "an elected leader was granted its token, stops by its deadline, and does not outlive bad news", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let lag = facts.meta.doubt_lag_ms.saturating_mul(1_000_000);
    let mut told: HashMap<(&str, u64, &str), u64> = HashMap::new();
    for op in &facts.ops {
        if let (Call::Renew { lease, token, .. }, Some(Outcome::Lost { reason, .. })) = (&op.invoke.call, op.outcome)
            && *reason != EndReason::WrongLease
        {
            told.entry((lease, *token, &op.invoke.client)).or_insert(op.to);
        }
    }
    for held in &facts.beliefs {
        let (lease, token) = (held.belief.lease.as_str(), held.belief.token);
        let text = |what: String| move || format!("{} (token {token}) acts from {} to {}, {what}", held.belief.holder, held.from, held.to);
        if held.deadline != u64::MAX {
            findings.check(held.to <= held.deadline.saturating_add(lag), held.to, lease, text(format!("and its deadline is {}", held.deadline)));
        }
        if let Some(told) = told.get(&(lease, token, held.belief.holder.as_str())) {
            findings.check(held.to <= told.saturating_add(lag), held.to, lease, text(format!("and was told at {told} that it lost")));
        }
        if facts.witness.covers(lease, token) {
            let granted = facts.witness.change(token).filter(|(_, committed)| committed.change.lease == lease);
            let to_it = granted.is_some_and(|(_, committed)| committed.change.holder == held.belief.holder);
            findings.check(to_it, held.from, lease, text("and nobody granted it that".into()));
        }
    }
    grow(facts, findings);
}

/// Who begins to act later has the larger token.
fn grow(facts: &Facts<'_>, findings: &mut Findings) {
    let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
    let mut owners: HashMap<(&str, u64), &str> = HashMap::new();
    for held in &facts.beliefs {
        let owner = *owners.entry((&held.belief.lease, held.belief.token)).or_insert(&held.belief.holder);
        findings.check(owner == held.belief.holder, held.from, &held.belief.lease, || {
            format!("token {} is acted upon by {owner} and by {}", held.belief.token, held.belief.holder)
        });
        let before = largest.entry(&held.belief.lease).or_default();
        let fine = held.belief.token >= *before || !facts.meta.clocks_within_promise || facts.was_revoked(&held.belief.lease, held.belief.token);
        findings.check(fine, held.from, &held.belief.lease, || format!("{} begins to act with token {} after {before}", held.belief.holder, held.belief.token));
        *before = (*before).max(held.belief.token);
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Belief, Call, EndReason, Kind, Outcome, What},
        story::{LEASE, MS, Story, change, ended},
    };

    fn believe(deadline: u64) -> What {
        What::Believe(Belief { belief: 9, lease: LEASE.into(), holder: "a".into(), token: 1, deadline: deadline * MS })
    }

    #[test]
    fn belief_beyond_its_deadline_is_found() {
        Story::default().at(0, believe(100)).at(90, believe(200)).at(200, What::Doubt { belief: 9 }).passes("P11");
        Story::default().at(0, believe(100)).at(101, What::Doubt { belief: 9 }).fails("P11");
        // Killed: it ends by itself.
        Story::default().at(0, believe(100)).at(300, What::Calm).passes("P11");
    }

    #[test]
    fn belief_after_bad_news_is_found() {
        let lost = |until| {
            let mut story = Story::default();
            let call = Call::Renew { lease: LEASE.into(), token: 1, duration_ms: None };
            story.at(0, believe(100)).op(10, 20, "a", call, Outcome::Lost { reason: EndReason::Revoked, holder: None }).at(until, What::Doubt { belief: 9 });
            story
        };
        lost(20).passes("P11");
        lost(21).fails("P11");
    }

    #[test]
    fn belief_in_an_older_token_is_found_unless_it_was_revoked_on_its_way() {
        let ended_by = |reason| {
            let mut story = Story::default();
            story.watch(0, 1, 0).event(3, 1, ended(Kind::Deleted, 2, "", 1, "a", reason)).belief(5, 20, "b", 3).belief(10, 30, "a", 1);
            story
        };
        ended_by(EndReason::Revoked).passes("P11");
        ended_by(EndReason::Expired).fails("P11");
    }

    #[test]
    fn belief_in_what_was_never_granted_is_found() {
        let granted_to = |holder: &str| {
            let mut story = Story::default();
            story.committed(0, change(Kind::Acquired, 1, holder, 1)).witness(200, 5).belief(1, 10, "a", 1);
            story
        };
        granted_to("a").passes("P11");
        granted_to("b").fails("P11");
        Story::default().belief(0, 10, "a", 7).belief(11, 20, "b", 6).fails("P11");
        Story::default().belief(0, 10, "a", 7).belief(11, 20, "b", 7).fails("P11");
    }
}
