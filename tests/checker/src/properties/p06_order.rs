//! P6, second part: numbers agree with real time. What was asked for after something was answered is numbered behind it, and linearizable reads
//! never go back.

use std::collections::HashMap;

use crate::{
    facts::{Facts, Op},
    findings::{Findings, Property},
    history::{Call, Outcome, State},
};

pub(super) const PROPERTY: Property = Property { id: "P6.order", claim: "what was answered before another was sent is numbered before it", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    // Sends and answers in the order of time; at one instant sends first, so that only what is strictly before counts.
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(facts.ops.len() * 2);
    for (place, op) in facts.ops.iter().enumerate() {
        moments.push((op.from, false, place));
        if op.to != u64::MAX {
            moments.push((op.to, true, place));
        }
    }
    moments.sort_unstable();
    let mut known = 0;
    let mut floors = vec![0; facts.ops.len()];
    let mut first: HashMap<(&str, &str, &str), u64> = HashMap::new();
    // What a session of stale reads saw of a replica last, and when it had asked for that.
    let mut sessions: HashMap<(&str, &str), (u64, u64)> = HashMap::new();
    for (at, answered, place) in moments {
        let op = &facts.ops[place];
        if !answered {
            floors[place] = match &op.invoke.call {
                // A repeat may be answered with what the first made.
                Call::Acquire { lease, holder, request_id, .. } if !request_id.is_empty() => *first.entry((lease, holder, request_id)).or_insert(known),
                _ => known,
            };
            continue;
        }
        let floor = floors[place];
        if let Some(made) = made(op) {
            findings.check(made > floor, at, op.lease().unwrap_or_default(), || {
                format!("change {made}, though {floor} was known before it was sent: {}", op.text())
            });
        }
        let revision = op.revision();
        match &op.invoke.call {
            Call::Get { stale: false, .. } | Call::List { stale: false, .. } if revision > 0 => {
                findings.check(revision >= floor, at, op.lease().unwrap_or_default(), || {
                    format!("read at {revision}, though {floor} was known before: {}", op.text())
                });
            }
            Call::Get { stale: true, .. } | Call::List { stale: true, .. } if revision > 0 => {
                if let Some(node) = &op.invoke.node {
                    let last = sessions.entry((&op.invoke.client, node)).or_default();
                    if facts.boots.iter().any(|(boot, booted)| *booted == node && (last.1..=at).contains(boot)) {
                        // Another process: it may have to learn again what was committed.
                        *last = (0, 0);
                    }
                    findings.check(revision >= last.0, at, op.lease().unwrap_or_default(), || format!("a stale read went back from {}: {}", last.0, op.text()));
                    *last = (last.0.max(revision), op.from);
                }
            }
            _ => {}
        }
        known = known.max(revision).max(made(op).unwrap_or(0));
    }
}

/// The change that this operation certainly made itself.
const fn made(op: &Op<'_>) -> Option<u64> {
    match op.outcome {
        Some(Outcome::Granted { lease: State { token, .. }, .. }) => Some(*token),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, Outcome},
        story::{LEASE, Story, state},
    };

    fn grant(request: &str) -> Call {
        Call::Acquire { lease: LEASE.into(), holder: "a".into(), request_id: request.into(), duration_ms: 1000, wait_ms: None, reclaim: false }
    }

    #[test]
    fn grant_numbered_before_what_was_known_is_found() {
        Story::default().granted(0, 10, "a", 5).granted(11, 20, "b", 6).passes("P6.order");
        Story::default().granted(0, 10, "a", 5).granted(9, 20, "b", 4).passes("P6.order");
        Story::default().granted(0, 10, "a", 5).granted(11, 20, "b", 4).fails("P6.order");
        Story::default().got(0, 10, None, 7).granted(11, 20, "b", 7).fails("P6.order");
    }

    #[test]
    fn repeat_of_a_request_is_as_old_as_the_first() {
        let unknown = || Outcome::Unknown { error: String::new() };
        let granted = || Outcome::Granted { lease: state("a", 5), must_renew: true, revision: 8 };
        Story::default().op(0, 3, "a", grant("r"), unknown()).got(4, 5, None, 7).op(6, 9, "a", grant("r"), granted()).passes("P6.order");
        Story::default().op(0, 3, "a", grant("q"), unknown()).got(4, 5, None, 7).op(6, 9, "a", grant("r"), granted()).fails("P6.order");
    }

    #[test]
    fn read_that_goes_back_is_found_and_a_stale_one_may_through_another_replica() {
        Story::default().got(0, 10, None, 7).got(11, 12, None, 7).passes("P6.order");
        Story::default().got(0, 10, None, 7).got(11, 12, None, 6).fails("P6.order");
        Story::default().got(0, 10, None, 7).got(10, 12, None, 6).passes("P6.order");
        let stale = |story: &mut Story, at, node: &str, revision| {
            story.op(at, at + 1, "s", Call::Get { lease: LEASE.into(), stale: true }, Outcome::Got { lease: None, revision });
            let place = story.records.len() - 2;
            if let crate::history::What::Invoke(invoke) = &mut story.records[place].what {
                invoke.node = Some(node.into());
            }
        };
        let mut story = Story::default();
        stale(&mut story, 0, "1", 7);
        stale(&mut story, 2, "2", 5);
        story.passes("P6.order");
        let mut restarted = story.clone();
        stale(&mut story, 4, "1", 6);
        story.fails("P6.order");
        restarted.at(3, crate::history::What::Boot { node: "1".into() });
        stale(&mut restarted, 4, "1", 6);
        restarted.passes("P6.order");
    }
}
