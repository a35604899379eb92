//! L2: a hold that nobody renews ends within the bound, however often the raft leader changes. Needs somebody who sees ends as they happen: a
//! watch, or a witness that was recorded live. By the lease clock it can be told to the millisecond, and without any excuse.

use std::collections::HashMap;

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::EndReason,
    spec::Lease,
};

pub(super) const PROPERTY: Property = Property { id: "L2", claim: "an abandoned hold ends within its bound, whatever happens to the raft leader", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    by_the_lease_clock(facts, findings);
    let Some(bound) = facts.meta.bounds.expiry else {
        findings.note("not demanded");
        return;
    };
    let each = facts.meta.bounds.expiry_per_disturbance.unwrap_or(0);
    for (lease, holds) in &facts.holds {
        let renewals_known = facts.witness.scope_of(lease).is_some_and(|scope| scope.renewals);
        for (token, hold) in holds {
            let abandoned = hold.reason.is_none_or(|reason| matches!(reason, EndReason::Expired | EndReason::Unclaimed)) && hold.asked_to_end.is_none();
            if hold.latest == 0 || !abandoned || (!hold.unknown_renewals.is_empty() && !renewals_known) {
                continue;
            }
            let from = hold.seen.unwrap_or(0).min(hold.latest);
            let at_most = hold.latest.saturating_add(bound.saturating_mul(1_000_000));
            // What a fault lasted may be added, and so much for each disturbance.
            let reach = hold.over.unwrap_or(facts.end);
            let faults: u64 = facts.faults_in(from, reach).map(|fault| (fault.to.min(reach)).saturating_sub(fault.from.max(from))).fold(0, u64::saturating_add);
            let disturbances = facts.faults_in(from, reach).count() + facts.raft_leader_changes_in(from, reach);
            let at_most = at_most.saturating_add(faults).saturating_add((disturbances as u64 * 1_000_000).saturating_mul(each));
            if hold.over.is_none() && facts.end <= at_most {
                continue;
            }
            findings.check(reach <= at_most && hold.over.is_some(), reach, lease, || {
                format!(
                    "token {token} of {} was due by {} and is over by {:?}, {disturbances} disturbances allow {at_most}",
                    hold.holder, hold.latest, hold.over
                )
            });
        }
    }
}

/// From the deadline that grants and renewals gave a hold to the stamp of the change that says that it ran out.
fn by_the_lease_clock(facts: &Facts<'_>, findings: &mut Findings) {
    let Some(bound) = facts.meta.bounds.expiry_by_lease_clock else { return };
    let mut leases: HashMap<&str, Lease> = HashMap::new();
    for (at, committed) in &facts.witness.changes {
        let lease = leases.entry(&committed.change.lease).or_default();
        if committed.change.reason == Some(EndReason::Expired)
            && let (Some(now), Some(hold)) = (committed.clock_ms, lease.hold())
            && let Some(deadline) = hold.deadline_ms
        {
            findings.check(now <= deadline.saturating_add(bound), *at, &committed.change.lease, || {
                format!("token {} of {} ran out at {now} of the lease clock, and its deadline was {deadline}", hold.token, hold.holder)
            });
        }
        // Whether it may follow is another question.
        let _ = lease.apply(committed);
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Bounds, Call, EndReason, Kind, Outcome, What},
        story::{LEASE, Story, change, ended},
    };

    fn held() -> Story {
        let mut story = Story::default();
        story.bounds(Bounds { expiry: Some(50), expiry_per_disturbance: Some(500), ..Bounds::default() }).granted(0, 5, "a", 1).watch(0, 1, 0);
        story
    }

    fn expired(at: u64) -> Story {
        let mut story = held();
        story.event(at, 1, ended(Kind::Expired, 2, "", 1, "a", EndReason::Expired));
        story
    }

    #[test]
    fn late_end_is_found_and_one_that_never_comes() {
        expired(1055).passes("L2");
        expired(1056).fails("L2");
        held().at(1056, What::Calm).fails("L2");
        // Too early to tell.
        assert_eq!(held().at(1055, What::Calm).find("L2").violated, 0);
    }

    #[test]
    fn disturbances_and_unknown_renewals_give_time() {
        expired(1500).at(7, What::RaftLeader { node: "1".into(), term: 1 }).at(8, What::RaftLeader { node: "2".into(), term: 2 }).passes("L2");
        expired(1500).at(8, What::RaftLeader { node: "2".into(), term: 2 }).fails("L2");
        expired(1600).at(7, What::Fault { fault: 1, kind: "outage".into(), nodes: vec![] }).at(60, What::Healed { fault: 1 }).passes("L2");
        let call = Call::Renew { lease: LEASE.into(), token: 1, duration_ms: None };
        assert_eq!(expired(9000).op(7, 8, "a", call, Outcome::Unknown { error: String::new() }).find("L2").violated, 0);
    }

    #[test]
    fn late_end_by_the_lease_clock_is_found_whatever_happened_meanwhile() {
        let story = |clock_ms| {
            let mut story = Story::default();
            story.bounds(Bounds { expiry_by_lease_clock: Some(100), ..Bounds::default() });
            story.at(0, What::Fault { fault: 1, kind: "outage".into(), nodes: vec![] });
            story.stamped(0, 10, change(Kind::Acquired, 1, "a", 1)).stamped(5, 20, change(Kind::Renewed, 2, "a", 1));
            story.stamped(9, clock_ms, ended(Kind::Expired, 3, "", 1, "a", EndReason::Expired));
            story
        };
        story(1_120).passes("L2");
        story(1_121).fails("L2");
    }
}
