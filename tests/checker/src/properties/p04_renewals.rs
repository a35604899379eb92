//! P4: what was acknowledged of a renewal is true and stays true, through crashes and changes of raft leader.

use std::collections::HashMap;

use crate::{
    facts::{Facts, Op},
    findings::{Findings, Property},
    history::{Call, Kind, LeaseState, Outcome},
};

pub(super) const PROPERTY: Property = Property { id: "P4", claim: "an acknowledged renewal found its hold alive, and is not lost", check };

/// Renewals and the grant of one token.
#[derive(Default)]
struct Durations {
    granted: bool,
    /// When renewals alone were answered; repeated requests are answered as granted, and renew nothing.
    renewed: Vec<u64>,
    /// Answer, send, milliseconds; in the order of the answers.
    acknowledged: Vec<(u64, u64, u64)>,
    /// Send, milliseconds if it said.
    unknown: Vec<(u64, Option<u64>)>,
    /// Largest send among the acknowledged up to each place.
    latest_send: Vec<u64>,
    longest: u64,
}

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut durations: HashMap<(&str, u64), Durations> = HashMap::new();
    for op in &facts.ops {
        match (&op.invoke.call, op.outcome) {
            (Call::Renew { lease, token, .. }, Some(Outcome::Renewed { duration_ms, .. })) => {
                found_alive(facts, findings, op, lease, *token);
                let this = durations.entry((lease, *token)).or_default();
                this.renewed.push(op.to);
                this.acknowledged.push((op.to, op.from, *duration_ms));
            }
            (Call::Acquire { lease, duration_ms, .. }, Some(Outcome::Granted { lease: state, must_renew, .. })) => {
                let this = durations.entry((lease, state.token)).or_default();
                this.granted = true;
                if *must_renew {
                    // A repeat, or from the queue: granted at some time before, and since then it may have been renewed.
                    this.unknown.push((0, Some(*duration_ms)));
                } else {
                    this.acknowledged.push((op.to, op.from, *duration_ms));
                }
            }
            // Told that it is lost, it may have been renewed first: a replica whose raft leader died sends a renewal again.
            (Call::Renew { lease, token, duration_ms }, None | Some(Outcome::Unknown { .. } | Outcome::Lost { .. })) => {
                durations.entry((lease, *token)).or_default().unknown.push((op.from, *duration_ms));
            }
            _ => {}
        }
    }
    committed(facts, findings, &durations);
    shown(facts, findings, durations);
}

/// Not acknowledged after the hold was known to be over.
fn found_alive(facts: &Facts<'_>, findings: &mut Findings, op: &Op<'_>, lease: &str, token: u64) {
    let over = facts.holds.get(lease).and_then(|holds| holds.get(&token)).and_then(|hold| hold.over);
    findings.check(over.is_none_or(|over| over >= op.from), op.to, lease, || {
        format!("token {token} was over by {}, and its renewal sent at {} was acknowledged", over.unwrap_or_default(), op.from)
    });
}

/// Each acknowledged renewal is a change of its own.
fn committed(facts: &Facts<'_>, findings: &mut Findings, durations: &HashMap<(&str, u64), Durations>) {
    let mut there: HashMap<(&str, u64), usize> = HashMap::new();
    for (_, committed) in facts.witness.changes.iter().filter(|(_, committed)| committed.change.kind == Kind::Renewed) {
        *there.entry((&committed.change.lease, committed.change.token)).or_default() += 1;
    }
    for ((lease, token), durations) in durations {
        let Some(scope) = facts.witness.scope_of(lease).filter(|scope| scope.renewals && scope.after < *token) else { continue };
        let renewals = durations.renewed.iter().filter(|to| facts.witness.covers_until(lease, **to)).count();
        let committed = there.get(&(*lease, *token)).copied().unwrap_or(0);
        findings.check(committed >= renewals, facts.end, lease, || {
            format!("{renewals} renewals of token {token} were acknowledged, {committed} are among the changes up to {}", scope.upto)
        });
    }
}

/// A read that shows a token held shows the duration of its newest renewal, or of one under way.
fn shown(facts: &Facts<'_>, findings: &mut Findings, mut durations: HashMap<(&str, u64), Durations>) {
    for durations in durations.values_mut() {
        durations.acknowledged.sort_unstable();
        durations.longest = durations.acknowledged.iter().map(|(to, from, _)| to - from).max().unwrap_or(0);
        let mut latest = 0;
        for (_, from, _) in &durations.acknowledged {
            latest = latest.max(*from);
            durations.latest_send.push(latest);
        }
    }
    for op in &facts.ops {
        if matches!(op.invoke.call, Call::Get { stale: true, .. } | Call::List { stale: true, .. })
            || !matches!(op.invoke.call, Call::Get { .. } | Call::List { .. })
        {
            continue;
        }
        for state in op.shown().filter(|state| state.state == LeaseState::Held && state.duration_ms > 0) {
            let Some(durations) = durations.get(&(state.lease.as_str(), state.token)).filter(|durations| durations.granted) else { continue };
            let possible = possible(durations, op, state.duration_ms);
            findings.check(possible, op.to, &state.lease, || {
                let last = durations.acknowledged.iter().rfind(|(to, ..)| *to < op.from);
                format!(
                    "token {} is shown with {} ms, which no newest renewal set (the last acknowledged before: {last:?}): {}",
                    state.token,
                    state.duration_ms,
                    op.text()
                )
            });
        }
    }
}

fn possible(durations: &Durations, read: &Op<'_>, ms: u64) -> bool {
    let before = durations.acknowledged.partition_point(|(to, ..)| *to < read.from);
    let superseded = before.checked_sub(1).map_or(0, |place| durations.latest_send[place]);
    let from = durations.acknowledged.partition_point(|(to, ..)| *to < superseded);
    let rest = durations.acknowledged[from..].iter().take_while(|(to, ..)| *to <= read.to.saturating_add(durations.longest));
    rest.into_iter().any(|(_, from, there)| *there == ms && *from <= read.to)
        || durations.unknown.iter().any(|(from, there)| *from <= read.to && there.is_none_or(|there| there == ms))
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, EndReason, Kind, Outcome, Released, State},
        story::{LEASE, Story, acquire, change, state},
    };

    fn held() -> Story {
        let mut story = Story::default();
        story.granted(0, 5, "a", 1).renewed(10, 15, 1, 2000).renewed(20, 25, 1, 3000);
        story
    }

    fn showing(ms: u64) -> Option<State> {
        Some(State { duration_ms: ms, ..state("a", 1) })
    }

    #[test]
    fn renewal_acknowledged_after_the_end_is_found() {
        Story::default().granted(0, 5, "a", 1).released(10, 20, 1, Released::Released).renewed(15, 30, 1, 1000).passes("P4");
        Story::default().granted(0, 5, "a", 1).released(10, 20, 1, Released::Released).renewed(21, 30, 1, 1000).fails("P4");
        Story::default().granted(0, 5, "a", 1).granted(2000, 2010, "b", 2).renewed(2011, 2020, 1, 1000).fails("P4");
        Story::default().granted(0, 5, "a", 1).lost(2000, 2010, 1, EndReason::UnknownToken).renewed(2011, 2020, 1, 1000).fails("P4");
        Story::default().granted(0, 5, "a", 1).released(10, 20, 1, Released::NotHolder).renewed(21, 30, 1, 1000).fails("P4");
    }

    #[test]
    fn read_that_shows_an_older_renewal_is_found() {
        held().got(30, 40, showing(3000), 9).passes("P4");
        held().got(30, 40, showing(2000), 9).fails("P4");
        held().got(30, 40, showing(1000), 9).fails("P4");
        // While the last one was under way either is right.
        held().got(22, 40, showing(2000), 9).passes("P4");
        let unknown = Call::Renew { lease: LEASE.into(), token: 1, duration_ms: Some(7000) };
        held().op(26, 27, "a", unknown, Outcome::Unknown { error: String::new() }).got(30, 40, showing(7000), 9).passes("P4");
        held().op(30, 40, "r", Call::Get { lease: LEASE.into(), stale: true }, Outcome::Got { lease: showing(1000), revision: 1 }).passes("P4");
    }

    #[test]
    fn renewal_that_was_sent_again_inside_the_cluster_may_say_that_it_came_too_late() {
        let call = |ms| Call::Renew { lease: LEASE.into(), token: 1, duration_ms: Some(ms) };
        let lost = Outcome::Lost { reason: EndReason::Expired, holder: None };
        held().op(26, 5000, "a", call(150), lost.clone()).got(30, 40, showing(150), 9).passes("P4");
        held().op(26, 5000, "a", call(150), lost).got(30, 40, showing(151), 9).fails("P4");
    }

    #[test]
    fn repeated_request_renews_nothing() {
        let again = Outcome::Granted { lease: state("a", 1), must_renew: true, revision: 9 };
        held().op(26, 28, "a", acquire("a"), again.clone()).got(30, 40, showing(3000), 9).passes("P4");
        held().op(26, 28, "a", acquire("a"), again).got(30, 40, showing(2000), 9).fails("P4");
    }

    #[test]
    fn renewal_that_is_not_among_the_changes_is_found() {
        let mut story = held();
        story.committed(5, change(Kind::Acquired, 1, "a", 1)).committed(15, change(Kind::Renewed, 2, "a", 1)).witness(50, 3).fails("P4");
        story.committed(25, change(Kind::Renewed, 3, "a", 1)).passes("P4");
    }
}
