//! W10: a watch that goes on at another replica does not go back in time, nor forward over a gap.

use std::collections::HashMap;

use crate::{
    facts::{Facts, Said},
    findings::{Findings, Property},
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "W10", claim: "a watch resumed elsewhere never goes back in time", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut reached: HashMap<u64, u64> = HashMap::new();
    for watch in &facts.watches {
        let own = streams::reached(watch).map_or(0, |(revision, _)| revision).max(watch.open.after_revision);
        let Some(before) = watch.open.resumes.and_then(|before| reached.get(&before)).copied() else {
            reached.insert(watch.open.watch, own);
            continue;
        };
        reached.insert(watch.open.watch, own.max(before));
        // Asked for from behind what it had: then the repeats are its own wish, and W3 tells of them.
        if watch.open.after_revision < before {
            continue;
        }
        findings.checked += 1;
        for (at, said) in &watch.said {
            let number = match said {
                Said::Change(change) => change.revision,
                Said::Bookmark(revision) => *revision,
                Said::End(_) => continue,
            };
            if number < before {
                findings.violation(*at, "", || format!("watch {} had come to {before}, and goes on with {number}", watch.open.watch));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Kind, WatchOpen, What},
        story::{Story, change},
    };

    #[test]
    fn watch_that_goes_back_at_another_replica_is_found() {
        let resumed = |number| {
            let mut story = Story::default();
            let open = WatchOpen { watch: 2, resumes: Some(1), after_revision: 7, ..WatchOpen::default() };
            story.watch(0, 1, 2).event(1, 1, change(Kind::Updated, 7, "", 0)).at(2, What::WatchOpen(open)).bookmark(3, 2, number);
            story
        };
        resumed(7).passes("W10");
        resumed(6).fails("W10");
    }
}
