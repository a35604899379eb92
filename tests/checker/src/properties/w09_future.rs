//! W9: a watch shows nothing at or before the revision that it was asked to begin after, also when that was still to come.

use crate::{
    facts::{Facts, Said},
    findings::{Findings, Property},
};

pub(super) const PROPERTY: Property = Property { id: "W9", claim: "a watch shows nothing older than it was asked for", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for watch in facts.watches.iter().filter(|watch| watch.open.after_revision > 0) {
        let after = watch.open.after_revision;
        for (at, said) in &watch.said {
            match said {
                Said::Change(change) => findings
                    .check(change.revision > after, *at, &change.lease, || format!("watch {} after {after} shows {}", watch.open.watch, change.revision)),
                Said::Bookmark(revision) => {
                    findings.check(*revision >= after, *at, "", || format!("watch {} after {after} has the bookmark {revision}", watch.open.watch))
                }
                Said::End(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::Kind,
        story::{Story, change},
    };

    #[test]
    fn what_is_older_than_asked_for_is_found() {
        let event = |revision| change(Kind::Updated, revision, "", 0);
        Story::default().watch(0, 1, 5).bookmark(1, 1, 5).event(2, 1, event(6)).passes("W9");
        Story::default().watch(0, 1, 5).event(2, 1, event(5)).fails("W9");
        Story::default().watch(0, 1, 5).bookmark(2, 1, 4).fails("W9");
    }
}
