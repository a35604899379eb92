//! P8: replicas that have applied the same have the same state; and the one that has applied more is not behind.

use std::collections::BTreeMap;

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::Replica,
};

pub(super) const PROPERTY: Property = Property { id: "P8", claim: "equal applied index, equal state", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut known: BTreeMap<u64, &Replica> = BTreeMap::new();
    for (at, replica) in &facts.replicas {
        let first = *known.entry(replica.applied_index).or_insert(replica);
        let same = first.state_hash == replica.state_hash && first.revision == replica.revision;
        let compared = !std::ptr::eq(first, *replica);
        if compared {
            findings.check(same, *at, "", || format!("at index {} replicas differ: {first:?} and {replica:?}", replica.applied_index));
        }
    }
    let mut before: Option<&Replica> = None;
    for replica in known.values() {
        if let Some(before) = before {
            findings.check(before.revision <= replica.revision, facts.end, "", || format!("the revision goes back: {before:?}, {replica:?}"));
        }
        before = Some(replica);
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Replica, What},
        story::Story,
    };

    fn at(node: &str, applied_index: u64, revision: u64, state_hash: u64) -> What {
        What::Replica(Replica { node: node.into(), applied_index, revision, state_hash })
    }

    #[test]
    fn replicas_that_differ_at_one_index_are_found() {
        let mut story = Story::default();
        story.at(0, at("1", 5, 3, 77)).at(1, at("2", 4, 3, 66)).at(2, at("2", 5, 3, 77)).passes("P8");
        story.clone().at(3, at("3", 5, 3, 78)).fails("P8");
        story.clone().at(3, at("3", 5, 2, 77)).fails("P8");
        story.at(3, at("3", 6, 2, 79)).fails("P8");
    }
}
