//! W1: a watch shows what was asked for and nothing else.

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::Kind,
    streams,
};

pub(super) const PROPERTY: Property = Property { id: "W1", claim: "a watch shows only what it was asked for", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    for watch in &facts.watches {
        for (at, said) in &watch.said {
            let crate::facts::Said::Change(change) = said else { continue };
            let wanted = streams::covers(watch, &change.lease) && (change.kind != Kind::Renewed || watch.open.include_renewals);
            findings.check(wanted, *at, &change.lease, || format!("watch {} asked for {:?} and was told {change:?}", watch.open.watch, watch.open));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Change, Kind, WatchOpen, What},
        story::{Story, change},
    };

    #[test]
    fn what_nobody_asked_for_is_found() {
        let open = |namespace: Option<&str>, name: Option<&str>| {
            let mut story = Story::default();
            story
                .at(0, What::WatchOpen(WatchOpen { watch: 1, namespace: namespace.map(str::to_owned), name: name.map(str::to_owned), ..WatchOpen::default() }));
            story
        };
        let event = || change(Kind::Acquired, 1, "a", 1);
        open(Some("n"), Some("l")).event(1, 1, event()).passes("W1");
        open(None, None).event(1, 1, event()).passes("W1");
        open(Some("n"), Some("l")).event(1, 1, Change { lease: "n/ll".into(), ..event() }).fails("W1");
        open(Some("nn"), None).event(1, 1, event()).fails("W1");
        open(None, None).event(1, 1, change(Kind::Renewed, 2, "a", 1)).fails("W1");
    }
}
