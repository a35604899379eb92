//! W4: one number is one change of one lease, the same for everybody.

use std::collections::HashMap;

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::Change,
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "W4", claim: "one number is one change, the same through every replica and in the witness", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut known: HashMap<u64, &Change> = facts.witness.changes.iter().map(|(_, committed)| (committed.change.revision, &committed.change)).collect();
    // Leaving a selector looks like a delete.
    for watch in facts.watches.iter().filter(|watch| !watch.open.selected) {
        for (at, change) in streams::changes(watch) {
            let other = *known.entry(change.revision).or_insert(change);
            findings.check(same(change, other), at, &change.lease, || format!("change {} is {change:?} and {other:?}", change.revision));
        }
    }
}

/// Duration and creation compare only where both were recorded.
fn same(one: &Change, other: &Change) -> bool {
    let either = |one: u64, other: u64| one == other || one == 0 || other == 0;
    let (ours, theirs) = (
        (one.kind, &one.lease, one.token, &one.holder, &one.previous_holder, one.reason),
        (other.kind, &other.lease, other.token, &other.holder, &other.previous_holder, other.reason),
    );
    ours == theirs && either(one.duration_ms, other.duration_ms) && either(one.create_revision, other.create_revision)
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Change, EndReason, Kind},
        story::{Story, change, ended},
    };

    #[test]
    fn number_that_is_two_changes_is_found() {
        let event = || change(Kind::Acquired, 3, "a", 3);
        let story = |other: Change| {
            let mut story = Story::default();
            story.watch(0, 1, 0).event(1, 1, event()).watch(0, 2, 0).event(1, 2, other);
            story
        };
        story(event()).passes("W4");
        story(Change { duration_ms: 0, ..event() }).passes("W4");
        story(change(Kind::Acquired, 3, "b", 3)).fails("W4");
        story(Change { lease: "n/other".into(), ..event() }).fails("W4");
        story(ended(Kind::Acquired, 3, "a", 3, "z", EndReason::Expired)).fails("W4");
        Story::default().committed(0, event()).watch(0, 1, 0).event(1, 1, change(Kind::Updated, 3, "a", 3)).fails("W4");
    }
}
