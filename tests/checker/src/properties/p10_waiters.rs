//! P10: waiters are granted in the order in which they were enqueued, and one whose wait is over is never granted.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    facts::{Facts, Op},
    findings::{Findings, Property},
    history::{Call, EndReason, Kind, Outcome},
};

pub(super) const PROPERTY: Property = Property { id: "P10", claim: "waiters are granted in their order, and none after its wait was over", check };

/// How long after a fault its replica's waiters may still be skipped: the session's two seconds, and one to be heard of.
const AFTER_FAULT: u64 = 3_000_000_000;

struct Waiter<'a, 'h> {
    op: &'a Op<'h>,
    queued: u64,
    /// `u64::MAX`: not granted.
    token: u64,
}

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    in_order(facts, findings);
    none_after_its_wait(facts, findings);
}

fn in_order(facts: &Facts<'_>, findings: &mut Findings) {
    let mut by_lease: BTreeMap<&str, Vec<Waiter<'_, '_>>> = BTreeMap::new();
    let mut requests = HashSet::new();
    for op in &facts.ops {
        let Call::Acquire { lease, holder, request_id, reclaim: false, .. } = &op.invoke.call else { continue };
        // A repeat is answered with the grant that there was, whoever waits now.
        if !request_id.is_empty() && !requests.insert((lease, holder, request_id)) {
            continue;
        }
        let token = if let Some(Outcome::Granted { lease, .. }) = op.outcome { lease.token } else { u64::MAX };
        let places = facts.places.get(&op.invoke.op).map_or(&[][..], Vec::as_slice);
        let queued = places.iter().find(|(_, told)| *told).map_or(u64::MAX, |(at, _)| *at);
        by_lease.entry(lease).or_default().push(Waiter { op, queued, token });
    }
    for (lease, mut waiters) in by_lease {
        // Of those granted later, who had been told a place first?
        waiters.sort_by_key(|waiter| waiter.token);
        let mut first: Option<&Waiter<'_, '_>> = None;
        for granted in waiters.iter().rev() {
            if granted.token == u64::MAX {
                // Nobody knows until when it really waited, unless it was answered.
                if granted.queued != u64::MAX && granted.op.to != u64::MAX {
                    overtaken_in_vain(facts, findings, lease, granted, &waiters);
                }
                continue;
            }
            if let Some(earlier) = first.filter(|earlier| earlier.queued < granted.op.from) {
                let fine = excused(facts, earlier, granted.op.to);
                findings.check(fine, granted.op.to, lease, || overtook(earlier, granted));
            } else if granted.queued != u64::MAX {
                findings.checked += 1;
            }
            if granted.queued != u64::MAX && !lost_its_stream(facts, granted) && first.is_none_or(|first| granted.queued < first.queued) {
                first = Some(granted);
            }
        }
    }
}

/// One that was told in the end that it is not granted, while one that came later was.
fn overtaken_in_vain(facts: &Facts<'_>, findings: &mut Findings, lease: &str, waited: &Waiter<'_, '_>, all: &[Waiter<'_, '_>]) {
    let released = matches!(waited.op.outcome, Some(Outcome::Ended { .. }));
    let later = |granted: &&Waiter<'_, '_>| granted.token != u64::MAX && granted.op.from > waited.queued && granted.op.to < waited.op.to;
    if let Some(granted) = all.iter().filter(later).find(|granted| !was_over(facts, lease, waited, granted.token)) {
        findings.check(released || excused(facts, waited, granted.op.to), granted.op.to, lease, || overtook(waited, granted));
    } else {
        findings.checked += 1;
    }
}

/// By the witness its wait may have been over when this token was granted, and the answer that says so on its way: a deletion ends the waits of all, and
/// the lease clock each one's own.
fn was_over(facts: &Facts<'_>, lease: &str, waited: &Waiter<'_, '_>, token: u64) -> bool {
    let Call::Acquire { wait_ms: Some(wait), .. } = waited.op.invoke.call else { return false };
    let changes = &facts.witness.changes;
    let deleted = changes.iter().any(|(at, committed)| {
        let change = &committed.change;
        change.kind == Kind::Deleted && change.lease == lease && *at >= waited.op.from && change.revision < token
    });
    // It cannot have begun before it was sent.
    let sent = changes.iter().filter(|(at, _)| *at <= waited.op.from).filter_map(|(_, committed)| committed.clock_ms).max();
    let granted = changes.iter().find(|(_, committed)| committed.change.revision == token).and_then(|(_, committed)| committed.clock_ms);
    deleted || sent.zip(granted).is_some_and(|(sent, granted)| granted >= sent.saturating_add(wait))
}

fn overtook(earlier: &Waiter<'_, '_>, granted: &Waiter<'_, '_>) -> String {
    format!("told its place at {}, and overtaken by {}, which was sent at {}: {}", earlier.queued, granted.op.text(), granted.op.from, earlier.op.text())
}

fn lost_its_stream(facts: &Facts<'_>, waiter: &Waiter<'_, '_>) -> bool {
    facts.places.get(&waiter.op.invoke.op).is_some_and(|places| places.iter().any(|(_, told)| !told))
}

/// Its stream was lost, or a fault may have made its replica's session lapse.
fn excused(facts: &Facts<'_>, waiter: &Waiter<'_, '_>, until: u64) -> bool {
    lost_its_stream(facts, waiter) || facts.faults_in(waiter.queued.saturating_sub(AFTER_FAULT), until).next().is_some()
}

/// Each name was granted at most once for each request that may have been granted.
fn none_after_its_wait(facts: &Facts<'_>, findings: &mut Findings) {
    let mut may: HashMap<(&str, &str), (HashSet<&str>, u64, u64)> = HashMap::new();
    for op in &facts.ops {
        let Call::Acquire { lease, holder, request_id, .. } = &op.invoke.call else { continue };
        let (requests, unnamed, denied) = may.entry((lease, holder)).or_default();
        let not = matches!(
            op.outcome,
            Some(Outcome::Denied { .. } | Outcome::Refused { .. } | Outcome::Ended { token: 0, reason: EndReason::Barred | EndReason::Detached, .. })
        );
        match (not, request_id.is_empty()) {
            (true, _) => *denied += 1,
            (false, true) => *unnamed += 1,
            (false, false) => {
                requests.insert(request_id);
            }
        }
    }
    let mut granted: HashMap<(&str, &str), (u64, u64)> = HashMap::new();
    for (at, committed) in facts.witness.changes.iter().filter(|(_, committed)| committed.change.kind == Kind::Acquired) {
        let count = granted.entry((&committed.change.lease, &committed.change.holder)).or_default();
        *count = (count.0 + 1, *at);
    }
    for ((lease, holder), (requests, unnamed, denied)) in may {
        if denied == 0 {
            continue;
        }
        let requests = requests.len() as u64 + unnamed;
        let (count, at) = granted.get(&(lease, holder)).copied().unwrap_or_default();
        findings.check(count <= requests, at, lease, || {
            format!("{holder} was granted {count} times; of its requests {requests} may have been, and {denied} were told that they are not")
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, EndReason, Invoke, Kind, Outcome, Return, What},
        story::{LEASE, Story, change, ended, state},
    };

    fn wait(story: &mut Story, op: u64, from: u64, queued: u64, to: u64, holder: &str, outcome: Outcome) {
        let call =
            Call::Acquire { lease: LEASE.into(), holder: holder.into(), request_id: holder.into(), duration_ms: 1000, wait_ms: Some(9000), reclaim: false };
        story.at(from, What::Invoke(Invoke { op, client: holder.into(), node: None, call }));
        story.at(queued, What::Queued { op, position: 1 }).at(to, What::Return(Return { op, outcome }));
    }

    fn granted(holder: &str, token: u64) -> Outcome {
        Outcome::Granted { lease: state(holder, token), must_renew: true, revision: token }
    }

    fn denied() -> Outcome {
        Outcome::Denied { lease: state("x", 1), revision: 9 }
    }

    #[test]
    fn waiter_that_is_overtaken_is_found() {
        let queue = |first, second, from| {
            let mut story = Story::default();
            wait(&mut story, 11, 0, 10, 100, "a", granted("a", first));
            wait(&mut story, 12, from, 30, 100, "b", granted("b", second));
            story
        };
        queue(5, 6, 20).passes("P10");
        queue(6, 5, 20).fails("P10");
        // The second was sent before the first was told its place: either may be first.
        queue(6, 5, 9).passes("P10");
        let mut story = queue(6, 5, 20);
        story.at(15, What::Detached { op: 11 }).passes("P10");
        let mut story = queue(6, 5, 20);
        story.at(15, What::Fault { fault: 1, kind: "kill".into(), nodes: vec![] }).passes("P10");
    }

    #[test]
    fn waiter_that_is_denied_while_a_later_one_is_granted_is_found() {
        let queue = |to| {
            let mut story = Story::default();
            wait(&mut story, 11, 0, 10, 100, "a", denied());
            wait(&mut story, 12, 20, 30, to, "b", granted("b", 5));
            story
        };
        queue(101).passes("P10");
        queue(90).fails("P10");
    }

    #[test]
    fn waiter_whose_wait_was_over_is_not_overtaken() {
        let queue = |deleted, clock_ms| {
            let mut story = Story::default();
            story.stamped(0, 500, change(Kind::Acquired, 1, "x", 1));
            wait(&mut story, 11, 1, 10, 100, "a", denied());
            story.stamped(40, 600, ended(Kind::Deleted, deleted, "", 1, "x", EndReason::Revoked));
            wait(&mut story, 12, 20, 30, 90, "b", granted("b", 5));
            story.stamped(50, clock_ms, change(Kind::Acquired, 5, "b", 5));
            story
        };
        queue(4, 600).passes("P10");
        queue(6, 600).fails("P10");
        // Nine seconds by the lease clock.
        queue(6, 9499).fails("P10");
        queue(6, 9500).passes("P10");
    }

    #[test]
    fn grant_to_a_waiter_whose_wait_was_over_is_found() {
        let mut story = Story::default();
        wait(&mut story, 11, 0, 10, 100, "a", denied());
        story.committed(5, change(Kind::Acquired, 1, "x", 1)).passes("P10");
        story.committed(120, ended(Kind::Acquired, 2, "a", 2, "x", EndReason::Released)).fails("P10");
    }
}
