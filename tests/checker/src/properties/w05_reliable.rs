//! W5: what lies between two things that a watch said, it said too.

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::{Change, Kind},
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "W5", claim: "a watch leaves nothing out of what it has passed", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    if !facts.witness.is_there() {
        findings.note("no witness");
        return;
    }
    for watch in facts.watches.iter().filter(|watch| !watch.open.selected) {
        let scope = facts.witness.scope_of_namespace(watch.open.namespace.as_deref());
        let (Some(scope), Some(after), Some((reached, at))) = (scope, streams::begins_after(watch), streams::reached(watch)) else { continue };
        let (after, upto) = (after.max(scope.after), reached.min(scope.upto));
        let mut shown: Vec<&Change> = streams::changes(watch).map(|(_, change)| change).filter(|change| change.kind != Kind::Renewed).collect();
        shown.sort_by_key(|change| change.revision);
        let mut shown = shown.into_iter().skip_while(|change| change.revision <= after).peekable();
        for due in streams::due(facts, watch, after, upto) {
            // What it shows and nobody committed is not left out; see below.
            while let Some(extra) = shown.next_if(|change| change.revision < due.revision) {
                findings.violation(at, &extra.lease, || format!("watch {} shows {extra:?}, which is not among the committed changes", watch.open.watch));
            }
            let there = shown.next_if(|change| change.revision == due.revision).is_some();
            findings.check(there, at, &due.lease, || format!("watch {} came to {reached} without {due:?}", watch.open.watch));
        }
        if let Some(extra) = shown.find(|change| change.revision <= upto) {
            findings.violation(at, &extra.lease, || format!("watch {} shows {extra:?}, which is not among the committed changes", watch.open.watch));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Change, Kind, WatchOpen, What},
        story::{Story, change},
    };

    fn event(revision: u64) -> Change {
        change(Kind::Updated, revision, "", 0)
    }

    fn committed() -> Story {
        let mut story = Story::default();
        story.committed(0, event(3)).committed(0, event(4)).committed(0, event(5)).witness(100, 9);
        story
    }

    #[test]
    fn gap_is_found_between_two_changes_and_before_a_bookmark() {
        committed().watch(0, 1, 2).event(1, 1, event(3)).event(1, 1, event(4)).bookmark(1, 1, 4).passes("W5");
        committed().watch(0, 1, 2).event(1, 1, event(3)).event(1, 1, event(5)).fails("W5");
        committed().watch(0, 1, 2).event(1, 1, event(3)).bookmark(1, 1, 4).fails("W5");
        committed().watch(0, 1, 2).event(1, 1, event(4)).fails("W5");
        committed().watch(0, 1, 3).event(1, 1, event(4)).passes("W5");
        // From now on: what was before is not its to show.
        committed().watch(0, 1, 0).bookmark(1, 1, 4).event(1, 1, event(5)).passes("W5");
        committed().watch(0, 1, 0).bookmark(1, 1, 3).event(1, 1, event(5)).fails("W5");
    }

    /// Where nothing was there there is no picture, and a creation after another change is a change.
    #[test]
    fn creation_at_the_begin_is_not_taken_for_the_picture() {
        let opened = WatchOpen { watch: 1, client: "watcher".into(), send_initial: true, ..WatchOpen::default() };
        let story = |events: &[Change]| {
            let mut story = Story::default();
            story.committed(0, change(Kind::Acquired, 3, "a", 3)).committed(0, change(Kind::Created, 4, "", 0)).witness(100, 9);
            story.at(0, What::WatchOpen(opened.clone()));
            for event in events {
                story.event(1, 1, event.clone());
            }
            story.bookmark(1, 1, 4);
            story
        };
        story(&[change(Kind::Acquired, 3, "a", 3), change(Kind::Created, 4, "", 0)]).passes("W5");
        story(&[change(Kind::Acquired, 3, "a", 3)]).fails("W5");
    }

    #[test]
    fn change_that_was_never_committed_is_found() {
        committed().watch(0, 1, 2).event(1, 1, event(3)).event(1, 1, event(4)).event(1, 1, event(5)).event(1, 1, event(6)).fails("W5");
    }
}
