//! L6: once nothing is disturbed any more, every open watch comes to what was committed before.

use crate::{
    facts::{Facts, Said},
    findings::{Findings, Property},
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "L6", claim: "open watches catch up within their bound", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let (Some(calm), Some(bound)) = (facts.calm, facts.meta.bounds.catch_up) else {
        findings.note("not demanded");
        return;
    };
    let until = calm.saturating_add(bound.saturating_mul(1_000_000));
    if facts.end < until {
        findings.note("the history ends before the bound");
        return;
    }
    for watch in &facts.watches {
        let open = watch.from <= calm && !watch.said.iter().any(|(at, said)| *at <= until && matches!(said, Said::End(_)));
        if !open || watch.open.selected {
            continue;
        }
        let due = facts.witness.changes.iter().filter(|(at, _)| *at <= calm).map(|(_, committed)| &committed.change);
        let due =
            due.filter(|change| change.kind != crate::history::Kind::Renewed && streams::covers(watch, &change.lease)).map(|change| change.revision).max();
        let Some(due) = due else { continue };
        let reached = watch.said.iter().filter(|(at, _)| *at <= until).map(|(_, said)| match said {
            Said::Change(change) => change.revision,
            Said::Bookmark(revision) => *revision,
            Said::End(_) => 0,
        });
        let reached = reached.max().unwrap_or(0);
        findings.check(reached >= due, until, "", || {
            format!("watch {} of {} is at {reached}, and {due} was committed before {calm}", watch.open.watch, watch.open.client)
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Bounds, Kind, What},
        story::{Story, change},
    };

    #[test]
    fn watch_that_stays_behind_is_found() {
        let calm = |at| {
            let mut story = Story::default();
            story.bounds(Bounds { catch_up: Some(100), ..Bounds::default() }).watch(0, 1, 0).committed(5, change(Kind::Updated, 7, "", 0)).at(10, What::Calm);
            story.bookmark(at, 1, 7).at(200, What::Calm);
            story
        };
        calm(110).passes("L6");
        calm(111).fails("L6");
    }
}
