//! W2: changes come in the order of their numbers.

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "W2", claim: "a watch shows changes in the order of their numbers", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for watch in &facts.watches {
        let mut before = 0;
        for (at, change) in streams::changes(watch) {
            findings.check(change.revision >= before, at, &change.lease, || format!("watch {}: {} after {before}", watch.open.watch, change.revision));
            before = before.max(change.revision);
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
    fn change_out_of_order_is_found_and_the_first_picture_has_no_order() {
        let event = |revision| change(Kind::Created, revision, "", 0);
        Story::default().watch(0, 1, 0).event(1, 1, event(3)).event(1, 1, event(4)).passes("W2");
        Story::default().watch(0, 1, 0).event(1, 1, event(4)).event(1, 1, event(3)).fails("W2");
        let picture = What::WatchOpen(WatchOpen { watch: 1, send_initial: true, ..WatchOpen::default() });
        Story::default().at(0, picture).event(1, 1, event(4)).event(1, 1, event(3)).bookmark(1, 1, 7).event(2, 1, event(8)).passes("W2");
    }
}
