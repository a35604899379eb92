//! P9: a hold expires only when the lease clock in the log has passed its deadline, every renewal before it counted; the clock and the terms in the
//! log never go back. So nothing that a former raft leader had in mind ends a hold.

use std::collections::HashMap;

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::{EndReason, Kind},
    spec::Lease,
};

pub(super) const PROPERTY: Property =
    Property { id: "P9", claim: "by the log's own clock no hold expires before its deadline, and that clock never goes back", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let (mut clock, mut term) = (0, 0);
    let mut leases: HashMap<&str, Lease> = HashMap::new();
    for (at, committed) in &facts.witness.changes {
        let change = &committed.change;
        if let Some(now) = committed.clock_ms {
            findings.check(now >= clock, *at, &change.lease, || format!("change {} is stamped {now}, after {clock}", change.revision));
            clock = clock.max(now);
        }
        if let Some(now) = committed.term {
            findings.check(now >= term, *at, &change.lease, || format!("change {} is of term {now}, after {term}", change.revision));
            term = term.max(now);
        }
        let lease = leases.entry(&change.lease).or_default();
        let ran_out = change.reason == Some(EndReason::Expired) || (change.kind == Kind::Expired && change.reason == Some(EndReason::Unclaimed));
        if let (true, Some(now), Some(hold)) = (ran_out, committed.clock_ms, lease.hold())
            && let Some(deadline) = hold.deadline_ms
        {
            findings.check(now > deadline, *at, &change.lease, || {
                format!("token {} of {} expired at {now} of the lease clock, and its deadline is {deadline}", hold.token, hold.holder)
            });
        }
        // Whether it may follow is another question.
        let _ = lease.apply(committed);
        if let (Some(said), Some(hold)) = (committed.deadline_ms, lease.hold())
            && let Some(deadline) = hold.deadline_ms
            && !hold.unclaimed
        {
            findings.check(said >= deadline, *at, &change.lease, || {
                format!("change {} leaves token {} the deadline {said}, and it was promised {deadline}", change.revision, hold.token)
            });
        }
    }
    if findings.checked == 0 {
        findings.note("the witness has no stamps");
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Committed, EndReason, Kind, What},
        story::{Story, change, ended},
    };

    fn held() -> Story {
        let mut story = Story::default();
        story.stamped(0, 100, change(Kind::Acquired, 1, "a", 1)).stamped(1, 600, change(Kind::Renewed, 2, "a", 1));
        story
    }

    #[test]
    fn expiry_at_or_before_the_deadline_is_found() {
        let expired = || ended(Kind::Expired, 3, "", 1, "a", EndReason::Expired);
        held().stamped(2, 1601, expired()).passes("P9");
        held().stamped(2, 1600, expired()).fails("P9");
        // As a raft leader that missed the renewal would have it.
        held().stamped(2, 1101, expired()).fails("P9");
        held().stamped(2, 1101, ended(Kind::Acquired, 3, "b", 3, "a", EndReason::Expired)).fails("P9");
        held().stamped(2, 1101, ended(Kind::Acquired, 3, "b", 3, "a", EndReason::Released)).passes("P9");
    }

    #[test]
    fn deadline_that_a_renewal_shortens_is_found() {
        let shorter = |deadline_ms| {
            let mut story = held();
            let committed = Committed {
                change: crate::history::Change { duration_ms: 10, ..change(Kind::Renewed, 3, "a", 1) },
                clock_ms: Some(700),
                deadline_ms,
                ..Committed::default()
            };
            story.at(3, What::Committed(committed));
            story
        };
        shorter(Some(1600)).passes("P9");
        shorter(Some(710)).fails("P9");
    }

    #[test]
    fn clock_or_term_that_goes_back_is_found() {
        held().stamped(2, 599, change(Kind::Updated, 3, "a", 1)).fails("P9");
        let of_term = |revision, term| What::Committed(Committed { change: change(Kind::Updated, revision, "a", 1), term: Some(term), ..Committed::default() });
        held().at(2, of_term(3, 4)).at(3, of_term(4, 4)).passes("P9");
        held().at(2, of_term(3, 4)).at(3, of_term(4, 3)).fails("P9");
    }
}
