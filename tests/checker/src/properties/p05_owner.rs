//! P5: only who has the token ends a hold by release; nobody's hold is released by a stale one, or by nobody.

use std::collections::HashMap;

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::{Call, EndReason, Outcome, Released},
};

pub(super) const PROPERTY: Property = Property { id: "P5", claim: "only the owner of the token releases, once, and a stale release disturbs nobody", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let mut released: HashMap<(&str, u64), u64> = HashMap::new();
    for op in &facts.ops {
        let (Call::Release { lease, token, .. }, Some(Outcome::Released { did, lease: state, .. })) = (&op.invoke.call, op.outcome) else { continue };
        if *token == 0 {
            continue;
        }
        if *did == Released::Released {
            let before = released.insert((lease, *token), op.invoke.op);
            findings.check(before.is_none_or(|before| before == op.invoke.op), op.to, lease, || format!("token {token} was released twice: {}", op.text()));
        }
        // Whatever it answered: this token holds it no more.
        if let Some(state) = state {
            findings.check(state.holder.is_empty() || state.token != *token, op.to, lease, || format!("held by its token after a release: {}", op.text()));
        }
    }
    for (lease, holds) in &facts.holds {
        for (token, hold) in holds {
            // A grant that was never seen to be delivered may be given back by the replica.
            let delivered = !hold.promised.is_empty();
            if hold.reason != Some(EndReason::Released) || !delivered {
                continue;
            }
            let asked = hold.asked_to_end.is_some_and(|asked| asked <= hold.over.unwrap_or(u64::MAX));
            findings
                .check(asked, hold.over.unwrap_or_default(), lease, || format!("token {token} of {} was released, and nobody had asked for that", hold.holder));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Call, EndReason, Kind, Outcome, Released},
        story::{LEASE, Story, acquire, ended, state},
    };

    #[test]
    fn release_that_nobody_asked_for_is_found() {
        let over = || ended(Kind::Released, 2, "", 1, "a", EndReason::Released);
        Story::default().granted(0, 5, "a", 1).committed(20, over()).fails("P5");
        Story::default().granted(0, 5, "a", 1).committed(20, over()).released(10, 30, 1, Released::Released).passes("P5");
        Story::default().granted(0, 5, "a", 1).committed(20, over()).released(25, 30, 1, Released::AlreadyReleased).fails("P5");
    }

    #[test]
    fn grant_that_never_arrived_may_be_given_back() {
        let over = ended(Kind::Released, 2, "", 1, "a", EndReason::Released);
        let mut story = Story::default();
        story.op(0, 5, "a", acquire("a"), Outcome::Unknown { error: "reset".into() }).committed(20, over).granted(30, 40, "b", 3).released(
            50,
            60,
            3,
            Released::Released,
        );
        story.passes("P5");
    }

    #[test]
    fn second_success_and_a_release_that_leaves_the_hold_are_found() {
        Story::default().granted(0, 5, "a", 1).released(10, 20, 1, Released::Released).released(30, 40, 1, Released::AlreadyReleased).passes("P5");
        Story::default().granted(0, 5, "a", 1).released(10, 20, 1, Released::Released).released(30, 40, 1, Released::Released).fails("P5");
        let call = || Call::Release { lease: LEASE.into(), token: 1, holder: String::new(), request_id: String::new() };
        let answer = |token, did| Outcome::Released { did, lease: Some(state("x", token)), revision: 9 };
        Story::default().op(0, 1, "a", call(), answer(2, Released::NotHolder)).passes("P5");
        Story::default().op(0, 1, "a", call(), answer(1, Released::NotHolder)).fails("P5");
    }
}
