//! W11: after its end a watch says nothing. (Access that is withdrawn ends it; there are no access rights to withdraw yet.)

use crate::{
    facts::{Facts, Said},
    findings::{Findings, Property},
};

pub(super) const PROPERTY: Property = Property { id: "W11", claim: "a watch says nothing after its end", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for watch in &facts.watches {
        let Some(end) = watch.said.iter().position(|(_, said)| matches!(said, Said::End(_))) else { continue };
        let after = watch.said.get(end + 1);
        findings.check(after.is_none(), after.map_or(0, |(at, _)| *at), "", || format!("watch {} goes on after its end: {:?}", watch.open.watch, after));
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{WatchEnd, What},
        story::Story,
    };

    #[test]
    fn watch_that_goes_on_after_its_end_is_found() {
        let mut story = Story::default();
        story.watch(0, 1, 0).bookmark(1, 1, 5).at(2, What::WatchEnd { watch: 1, end: WatchEnd::Lagged }).passes("W11");
        story.bookmark(3, 1, 6).fails("W11");
    }
}
