//! W3: no change comes twice in one stream, resumed ones included.

use std::collections::HashMap;

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "W3", claim: "a watch shows no change twice, also when it is resumed", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    // By the first of a chain of resumed watches.
    let mut chain: HashMap<u64, u64> = HashMap::new();
    let mut seen: HashMap<u64, std::collections::HashSet<u64>> = HashMap::new();
    for watch in &facts.watches {
        let first = watch.open.resumes.map_or(watch.open.watch, |before| chain.get(&before).copied().unwrap_or(before));
        chain.insert(watch.open.watch, first);
        let seen = seen.entry(first).or_default();
        for (at, change) in streams::changes(watch) {
            findings.check(seen.insert(change.revision), at, &change.lease, || format!("watch {} shows change {} again", watch.open.watch, change.revision));
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
    fn change_that_comes_twice_is_found_also_through_a_resumed_watch() {
        let event = |revision| change(Kind::Updated, revision, "", 0);
        Story::default().watch(0, 1, 0).event(1, 1, event(3)).watch(0, 2, 0).event(1, 2, event(3)).passes("W3");
        Story::default().watch(0, 1, 0).event(1, 1, event(3)).event(1, 1, event(3)).fails("W3");
        let resumed = What::WatchOpen(WatchOpen { watch: 2, resumes: Some(1), after_revision: 2, ..WatchOpen::default() });
        Story::default().watch(0, 1, 0).event(1, 1, event(3)).at(2, resumed).event(3, 2, event(3)).fails("W3");
    }
}
