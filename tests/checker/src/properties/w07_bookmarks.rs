//! W7: a bookmark means that everything up to it was delivered, and none goes back.

use crate::{
    facts::{Facts, Said},
    findings::{Findings, Property},
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "W7", claim: "a bookmark is behind everything up to it, and never goes back", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for watch in &facts.watches {
        let begun = streams::first_bookmark(watch).map_or(usize::MAX, |(place, _)| place);
        let mut bookmark = 0;
        for (place, (at, said)) in watch.said.iter().enumerate() {
            match said {
                Said::Bookmark(revision) => {
                    findings.check(*revision >= bookmark, *at, "", || format!("watch {}: bookmark {revision} after {bookmark}", watch.open.watch));
                    bookmark = bookmark.max(*revision);
                }
                Said::Change(change) if place > begun => {
                    findings.check(change.revision > bookmark, *at, &change.lease, || {
                        format!("watch {}: change {} after the bookmark {bookmark}", watch.open.watch, change.revision)
                    });
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Change, Kind},
        story::{Story, change},
    };

    fn event(revision: u64) -> Change {
        change(Kind::Updated, revision, "", 0)
    }

    #[test]
    fn bookmark_that_goes_back_or_comes_too_early_is_found() {
        Story::default().watch(0, 1, 2).event(1, 1, event(3)).bookmark(2, 1, 3).bookmark(3, 1, 3).event(4, 1, event(4)).passes("W7");
        Story::default().watch(0, 1, 2).bookmark(2, 1, 3).bookmark(3, 1, 2).fails("W7");
        Story::default().watch(0, 1, 2).bookmark(2, 1, 3).event(4, 1, event(3)).fails("W7");
    }
}
