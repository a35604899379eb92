//! P12: what is sent once is done at most once: a put, known by what only it writes, and a delete, known by when it was under way.

use std::collections::{BTreeMap, HashMap};

use crate::{
    facts::{Facts, Op},
    findings::{Findings, Property},
    history::{Call, Kind, Outcome},
};

pub(super) const PROPERTY: Property =
    Property { id: "P12", claim: "a put or a delete that was sent once makes one change at most, while it is under way, and none if it was refused", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    puts(facts, findings);
    if facts.meta.all_edits_recorded {
        deletes(facts, findings);
    }
}

fn is_refused(op: &Op<'_>) -> bool {
    matches!(op.outcome, Some(Outcome::Refused { .. }))
}

fn puts(facts: &Facts<'_>, findings: &mut Findings) {
    let mut asked: HashMap<(&str, &str), &Op<'_>> = HashMap::new();
    for op in &facts.ops {
        if let Call::Put { lease, edit, .. } = &op.invoke.call
            && !edit.is_empty()
        {
            asked.insert((lease, edit), op);
        }
    }
    let mut made: HashMap<(&str, &str), u64> = HashMap::new();
    for (at, committed) in facts.witness.changes.iter().filter(|(_, committed)| !committed.edit.is_empty()) {
        let change = &committed.change;
        if !matches!(change.kind, Kind::Created | Kind::Updated) {
            continue;
        }
        let Some(op) = asked.get(&(change.lease.as_str(), committed.edit.as_str())) else { continue };
        let first = made.entry((&change.lease, &committed.edit)).or_insert(change.revision);
        findings.check(*first == change.revision, *at, &change.lease, || format!("made twice, by changes {first} and {}: {}", change.revision, op.text()));
        findings.check(!is_refused(op), *at, &change.lease, || format!("refused, and made by change {}: {}", change.revision, op.text()));
        findings.check((op.from..=op.to).contains(at), *at, &change.lease, || format!("made at {at}, when it was not under way: {}", op.text()));
    }
}

/// Each change needs a delete of its own that was under way. Of those that were, the one that ends first can wait least.
fn deletes(facts: &Facts<'_>, findings: &mut Findings) {
    let mut asked: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for op in &facts.ops {
        if let Call::Delete { lease, .. } = &op.invoke.call
            && !is_refused(op)
        {
            asked.entry(lease).or_default().push((op.from, op.to));
        }
    }
    for lease in facts.witness.by_lease.keys() {
        let asked = asked.get(lease).map_or(&[][..], Vec::as_slice);
        let (mut next, mut open) = (0, BTreeMap::new());
        for (at, committed) in facts.witness.of_lease(lease).filter(|(_, committed)| committed.change.kind == Kind::Deleted) {
            while let Some((from, to)) = asked.get(next).filter(|(from, _)| *from <= at) {
                open.insert((*to, *from, next), ());
                next += 1;
            }
            open.retain(|(to, ..), ()| *to >= at);
            findings.check(open.pop_first().is_some(), at, lease, || {
                format!("change {} deleted it, and no delete was under way for that", committed.change.revision)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, Committed, Kind, Meta, Outcome, What},
        story::{LEASE, Story, change, state},
    };

    fn put(story: &mut Story, from: u64, to: u64, edit: &str, outcome: Outcome) {
        story.op(from, to, edit, Call::Put { lease: LEASE.into(), must_not_exist: false, edit: edit.into() }, outcome);
    }

    fn made(story: &mut Story, at: u64, kind: Kind, revision: u64, edit: &str) {
        let committed = Committed { change: change(kind, revision, "", 0), edit: edit.into(), ..Committed::default() };
        story.at(at, What::Committed(committed));
    }

    fn unknown() -> Outcome {
        Outcome::Unknown { error: String::new() }
    }

    #[test]
    fn put_that_is_made_twice_is_found() {
        let mut story = Story::default();
        put(&mut story, 0, 100, "a", unknown());
        put(&mut story, 0, 50, "b", Outcome::Put { lease: state("", 0), revision: 2 });
        made(&mut story, 10, Kind::Created, 1, "a");
        made(&mut story, 20, Kind::Updated, 2, "b");
        story.passes("P12");
        made(&mut story, 30, Kind::Updated, 3, "a");
        story.fails("P12");
    }

    #[test]
    fn put_that_is_made_though_refused_or_when_it_is_over_is_found() {
        let with = |outcome, at| {
            let mut story = Story::default();
            put(&mut story, 5, 50, "a", outcome);
            made(&mut story, at, Kind::Created, 1, "a");
            story
        };
        let acknowledged = || Outcome::Put { lease: state("", 0), revision: 1 };
        with(acknowledged(), 10).passes("P12");
        with(acknowledged(), 51).fails("P12");
        with(acknowledged(), 4).fails("P12");
        with(unknown(), 51).passes("P12");
        with(Outcome::Refused { reason: "NOT_FOUND".into() }, 10).fails("P12");
    }

    fn deleted(story: &mut Story, at: u64, revision: u64) {
        story.committed(at, change(Kind::Deleted, revision, "", 0));
    }

    fn delete(story: &mut Story, from: u64, to: u64, outcome: Outcome) {
        story.op(from, to, "d", Call::Delete { lease: LEASE.into(), force: false }, outcome);
    }

    #[test]
    fn delete_that_is_made_twice_is_found_whatever_became_of_others() {
        let done = || Outcome::Deleted { lease: state("", 0), revision: 0 };
        let mut story = Story::default();
        story.meta(Meta { all_edits_recorded: true, ..Meta::default() });
        delete(&mut story, 0, 30, done());
        deleted(&mut story, 10, 1);
        story.passes("P12");
        // Long over, or not sent yet.
        let mut late = story.clone();
        deleted(&mut late, 20, 2);
        delete(&mut late, 21, 40, unknown());
        late.fails("P12");
        let mut under_way = story.clone();
        delete(&mut under_way, 11, 25, done());
        deleted(&mut under_way, 20, 2);
        under_way.passes("P12");
        delete(&mut story, 11, 25, Outcome::Refused { reason: "LEASE_NOT_FOUND".into() });
        deleted(&mut story, 20, 2);
        story.fails("P12");
    }

    #[test]
    fn without_all_deletes_nothing_is_said_of_them() {
        let mut story = Story::default();
        deleted(&mut story, 10, 1);
        assert_eq!(story.find("P12").violated, 0);
    }
}
