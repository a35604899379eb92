//! P2: tokens grow for ever, and a resource that checks them accepts no old one. Holds whatever clocks do.

use std::collections::{BTreeMap, HashMap};

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::{Call, Kind, Outcome},
};

pub(super) const PROPERTY: Property = Property { id: "P2", claim: "tokens grow for ever, and none is accepted after a larger one", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    in_commit_order(facts, findings);
    in_real_time(facts, findings);
    once(facts, findings);
    at_resources(facts, findings);
}

fn in_commit_order(facts: &Facts<'_>, findings: &mut Findings) {
    let mut largest: HashMap<&str, u64> = HashMap::new();
    for (at, committed) in &facts.witness.changes {
        let change = &committed.change;
        let before = largest.entry(&change.lease).or_default();
        if change.kind == Kind::Acquired {
            findings.check(change.token > *before, *at, &change.lease, || format!("token {} was granted after {before}", change.token));
        } else {
            // Made anew, and not granted since.
            let fresh = change.token == 0 && change.create_revision > *before;
            findings.check(change.token >= *before || fresh, *at, &change.lease, || {
                format!("change {} ({:?}) took the token back from {before} to {}", change.revision, change.kind, change.token)
            });
        }
        *before = (*before).max(change.token);
    }
}

/// A grant that was asked for after another was answered has the larger token.
fn in_real_time(facts: &Facts<'_>, findings: &mut Findings) {
    // By (lease, holder, request): asked for when it was first asked for.
    let mut first: HashMap<(&str, &str, &str), u64> = HashMap::new();
    let mut grants: BTreeMap<&str, Vec<(u64, u64, u64)>> = BTreeMap::new();
    for op in &facts.ops {
        let Call::Acquire { lease, holder, request_id, .. } = &op.invoke.call else { continue };
        let asked = if request_id.is_empty() { op.from } else { *first.entry((lease, holder, request_id)).or_insert(op.from) };
        if let Some(Outcome::Granted { lease: state, .. }) = op.outcome {
            grants.entry(lease).or_default().push((state.token, asked, op.to));
        }
    }
    for (lease, mut grants) in grants {
        // By token: each must have been answered after every smaller one was asked for.
        grants.sort_unstable();
        let mut latest = (0, 0);
        for (token, asked, answered) in grants {
            findings.check(answered >= latest.0 || token == latest.1, answered, lease, || {
                format!("token {token} was answered at {answered}, before {}, the smaller, was asked for at {}", latest.1, latest.0)
            });
            latest = latest.max((asked, token));
        }
    }
}

/// One counter numbers everything: a token belongs to one holder of one lease.
fn once(facts: &Facts<'_>, findings: &mut Findings) {
    let mut owners: HashMap<u64, (&str, &str)> = HashMap::new();
    for op in &facts.ops {
        if let (Call::Acquire { lease, holder, .. }, Some(Outcome::Granted { lease: state, .. })) = (&op.invoke.call, op.outcome) {
            let owner = *owners.entry(state.token).or_insert((lease, holder));
            findings.check(owner == (lease.as_str(), holder.as_str()), op.to, lease, || format!("token {} is {owner:?}'s and {holder}'s", state.token));
        }
    }
}

fn at_resources(facts: &Facts<'_>, findings: &mut Findings) {
    let mut largest: HashMap<&str, u64> = HashMap::new();
    for (at, write) in &facts.fenced {
        let before = largest.entry(&write.resource).or_default();
        findings.check(!write.accepted || write.token >= *before, *at, "", || {
            format!("{} accepted token {} of {} after {before}", write.resource, write.token, write.client)
        });
        if write.accepted {
            *before = (*before).max(write.token);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Change, EndReason, Fenced, Kind, What},
        story::{Story, change, ended},
    };

    fn write(token: u64, accepted: bool) -> What {
        What::FencedWrite(Fenced { resource: "disk".into(), client: "c".into(), token, accepted })
    }

    #[test]
    fn token_that_shrinks_or_comes_twice_is_found() {
        Story::default().granted(0, 10, "a", 5).granted(5, 20, "b", 6).granted(21, 30, "c", 7).passes("P2");
        // Both under way at once: either may have been first.
        Story::default().granted(0, 10, "a", 6).granted(5, 20, "b", 5).passes("P2");
        Story::default().granted(0, 10, "a", 6).granted(11, 20, "b", 5).fails("P2");
        Story::default().granted(0, 10, "a", 5).granted(11, 20, "b", 5).fails("P2");
    }

    #[test]
    fn token_that_shrinks_in_the_witness_is_found_through_a_delete() {
        let story = |token| {
            let mut story = Story::default();
            story
                .committed(0, change(Kind::Acquired, 7, "a", 7))
                .committed(1, ended(Kind::Deleted, 8, "", 7, "a", EndReason::Revoked))
                .committed(2, change(Kind::Acquired, 9, "a", token));
            story
        };
        story(9).passes("P2");
        story(6).fails("P2");
    }

    #[test]
    fn lease_that_was_made_anew_begins_without_a_token_and_never_loses_one() {
        let anew = |created, kind, token| {
            let mut story = Story::default();
            let of = |change: Change| Change { create_revision: created, ..change };
            story
                .committed(0, change(Kind::Acquired, 7, "a", 7))
                .committed(1, ended(Kind::Deleted, 8, "", 7, "a", EndReason::Revoked))
                .committed(2, of(change(Kind::Created, 9, "", 0)))
                .committed(3, of(change(kind, 10, "", token)));
            story
        };
        anew(9, Kind::Updated, 0).passes("P2");
        anew(1, Kind::Updated, 0).fails("P2");
        anew(9, Kind::Updated, 6).fails("P2");
    }

    #[test]
    fn old_token_that_a_resource_accepts_is_found_and_one_that_it_refuses_is_fine() {
        Story::default().at(0, write(5, true)).at(1, write(6, true)).at(2, write(5, false)).at(3, write(6, true)).passes("P2");
        Story::default().at(0, write(5, true)).at(1, write(6, true)).at(2, write(5, true)).fails("P2");
    }
}
