//! W8: each change that a watch shows may follow from the one that it showed before: who held, why that ended, and what it created.

use std::collections::HashMap;

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::Committed,
    spec::Lease,
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "W8", claim: "each change says rightly who held before and why that ended", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for watch in facts.watches.iter().filter(|watch| !watch.open.selected) {
        let mut leases: HashMap<&str, Lease> = HashMap::new();
        for (at, change) in streams::changes(watch) {
            // The claim deadline is not told: any hold may have been from the queue.
            let committed = Committed { change: change.clone(), unclaimed: true, ..Committed::default() };
            let verdict = leases.entry(&change.lease).or_default().apply(&committed);
            findings.checked += 1;
            if let Err(error) = verdict {
                findings.violation(at, &change.lease, || format!("watch {}, change {}: {error}", watch.open.watch, change.revision));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{EndReason, Kind},
        story::{Story, change, ended},
    };

    #[test]
    fn wrong_holder_before_is_found() {
        let after = |next| {
            let mut story = Story::default();
            story.watch(0, 1, 0).event(1, 1, change(Kind::Acquired, 1, "a", 1)).event(2, 1, next);
            story
        };
        after(ended(Kind::Acquired, 2, "b", 2, "a", EndReason::Expired)).passes("W8");
        after(ended(Kind::Acquired, 2, "b", 2, "z", EndReason::Expired)).fails("W8");
        after(change(Kind::Acquired, 2, "b", 2)).fails("W8");
        after(crate::history::Change { create_revision: 2, ..ended(Kind::Acquired, 2, "b", 2, "a", EndReason::Expired) }).fails("W8");
    }
}
