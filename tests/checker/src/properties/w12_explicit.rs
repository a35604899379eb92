//! W12: a watch that cannot go on is told so. It never just falls silent: neither by ending without a word, nor by staying open and behind.

use crate::{
    facts::{Facts, Said},
    findings::{Findings, Property},
    history::WatchEnd,
};

pub(super) const PROPERTY: Property = Property { id: "W12", claim: "a watch that cannot go on is told so, never left in silence", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for watch in &facts.watches {
        for (at, said) in &watch.said {
            if let Said::End(end) = said {
                findings.check(**end != WatchEnd::Silent, *at, "", || format!("watch {} of {} ended without a word", watch.open.watch, watch.open.client));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{WatchEnd, What},
        story::Story,
    };

    #[test]
    fn end_without_a_word_is_found() {
        let end = |end| {
            let mut story = Story::default();
            story.watch(0, 1, 0).at(2, What::WatchEnd { watch: 1, end });
            story
        };
        end(WatchEnd::Lagged).passes("W12");
        end(WatchEnd::Failed { error: "UNAVAILABLE".into() }).passes("W12");
        end(WatchEnd::Silent).fails("W12");
    }
}
