//! W6: a watch that names a revision goes on with the very next change, or is told that this is not possible any more; and that is true.

use crate::{
    facts::{Facts, Said},
    findings::{Findings, Property},
    history::WatchEnd,
    streams,
};

pub(super) const PROPERTY: Property =
    Property { id: "W6", claim: "a watch goes on with the first change after its revision, or is told that it is forgotten", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for watch in facts.watches.iter().filter(|watch| watch.open.after_revision > 0) {
        let after = watch.open.after_revision;
        let mut reached = after;
        for (at, said) in &watch.said {
            match said {
                Said::Change(change) => reached = reached.max(change.revision),
                Said::Bookmark(revision) => reached = reached.max(*revision),
                Said::End(WatchEnd::Compacted { floor }) => findings.check(*floor == 0 || *floor > after.min(reached), *at, "", || {
                    format!("watch {} after {after} (now at {reached}) is told that changes up to {floor} are forgotten", watch.open.watch)
                }),
                Said::End(_) => {}
            }
        }
        if watch.open.selected || !facts.witness.is_there() {
            continue;
        }
        let scope = facts.witness.scope_of_namespace(watch.open.namespace.as_deref());
        let Some((at, first)) = streams::changes(watch).find(|(_, change)| change.kind != crate::history::Kind::Renewed) else { continue };
        if scope.is_none_or(|scope| after < scope.after || first.revision > scope.upto) {
            continue;
        }
        let due = streams::due(facts, watch, after, first.revision).next();
        findings.check(due.is_some_and(|due| due.revision == first.revision), at, &first.lease, || {
            format!("watch {} after {after} begins with {} and not with {:?}", watch.open.watch, first.revision, due.map(|due| due.revision))
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Change, Kind, WatchEnd, What},
        story::{Story, change},
    };

    fn event(revision: u64) -> Change {
        change(Kind::Updated, revision, "", 0)
    }

    #[test]
    fn wrong_first_change_is_found() {
        let committed = || {
            let mut story = Story::default();
            story.committed(0, event(3)).committed(0, event(5)).witness(100, 9);
            story
        };
        committed().watch(0, 1, 2).event(1, 1, event(3)).passes("W6");
        committed().watch(0, 1, 4).event(1, 1, event(5)).passes("W6");
        committed().watch(0, 1, 2).event(1, 1, event(5)).fails("W6");
        committed().watch(0, 1, 4).event(1, 1, event(3)).fails("W6");
    }

    #[test]
    fn forgotten_revision_that_is_not_forgotten_is_found() {
        let told = |floor| {
            let mut story = Story::default();
            story.watch(0, 1, 5).at(1, What::WatchEnd { watch: 1, end: WatchEnd::Compacted { floor } });
            story
        };
        told(6).passes("W6");
        told(5).fails("W6");
    }
}
