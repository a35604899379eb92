//! P3: no hold ends, and nobody else is granted, before what its holder was promised has passed in true time.

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::EndReason,
};

pub(super) const PROPERTY: Property =
    Property { id: "P3", claim: "no hold ends before the deadline that its holder computes, unless somebody asked for it", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    if !facts.meta.clocks_within_promise {
        findings.note("clocks ran outside the promise: an early end is possible");
        return;
    }
    for (lease, holds) in &facts.holds {
        for (token, hold) in holds {
            let Some(over) = hold.over else { continue };
            let may_end = hold.may_end(facts.meta.early_ppm, facts.meta.early_ms);
            if may_end == 0 || hold.reason == Some(EndReason::Revoked) {
                continue;
            }
            let asked = hold.asked_to_end.is_some_and(|asked| asked <= over) && hold.reason != Some(EndReason::Expired);
            findings.check(asked || over >= may_end, over, lease, || {
                format!(
                    "token {token} of {} was over ({:?}) by {over}, {} ms before {may_end}, the deadline of its last acknowledged send",
                    hold.holder,
                    hold.reason,
                    (may_end - over) / 1_000_000
                )
            });
        }
    }
    believed(facts, findings);
}

/// What a holder reckoned for itself, however it asked.
fn believed(facts: &Facts<'_>, findings: &mut Findings) {
    for held in facts.beliefs.iter().filter(|held| held.deadline != u64::MAX) {
        let (lease, token) = (held.belief.lease.as_str(), held.belief.token);
        let Some(hold) = facts.holds.get(lease).and_then(|holds| holds.get(&token)) else { continue };
        let (Some(over), Some(EndReason::Expired)) = (hold.over, hold.reason) else { continue };
        findings.check(over >= held.deadline, over, lease, || {
            format!("token {token} of {} ran out by {over}, and its holder reckoned with it until {}", held.belief.holder, held.deadline)
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{EndReason, Kind, Meta, Released},
        story::{LEASE, Story, change, ended, state},
    };

    #[test]
    fn early_expiry_is_found_however_it_shows() {
        let expired = || ended(Kind::Expired, 3, "", 1, "a", EndReason::Expired);
        let held = || {
            let mut story = Story::default();
            story.granted(0, 5, "a", 1).renewed(500, 510, 1, 1000);
            story
        };
        held().watch(0, 1, 0).event(1498, 1, expired()).passes("P3");
        held().watch(0, 1, 0).event(1490, 1, expired()).fails("P3");
        held().granted(1400, 1490, "b", 3).fails("P3");
        held().granted(1400, 1500, "b", 3).passes("P3");
        held().lost(1400, 1490, 1, EndReason::Expired).fails("P3");
        held().got(1400, 1490, Some(state("", 1)), 9).fails("P3");
        held().got(1400, 1490, Some(state("b", 2)), 9).fails("P3");
    }

    #[test]
    fn early_end_that_was_asked_for_is_legal_and_one_that_says_expired_is_not() {
        let mut story = Story::default();
        story.granted(0, 5, "a", 1).released(100, 110, 1, Released::Released).granted(120, 130, "b", 2).passes("P3");
        let mut lying = Story::default();
        lying.granted(0, 5, "a", 1).committed(105, ended(Kind::Expired, 2, "", 1, "a", EndReason::Expired)).released(100, 200, 1, Released::AlreadyReleased);
        lying.fails("P3");
    }

    #[test]
    fn unacknowledged_renewal_promises_nothing_and_clocks_may_excuse() {
        use crate::history::{Call, Outcome};
        let call = || Call::Renew { lease: LEASE.into(), token: 1, duration_ms: Some(1000) };
        let unknown = || Outcome::Unknown { error: "timeout".into() };
        Story::default().granted(0, 5, "a", 1).op(500, 700, "a", call(), unknown()).granted(1000, 1010, "b", 2).passes("P3");
        let mut story = Story::default();
        story.meta(Meta { clocks_within_promise: false, ..Meta::default() }).granted(0, 5, "a", 1).granted(6, 10, "b", 2);
        assert_eq!(story.find("P3").violated, 0);
        story.records.remove(0);
        story.fails("P3");
    }

    #[test]
    fn hand_over_ends_the_hold_before() {
        let hand_over = |reason| ended(Kind::Acquired, 2, "b", 2, "a", reason);
        Story::default().granted(0, 5, "a", 1).watch(0, 1, 0).event(900, 1, hand_over(EndReason::Expired)).fails("P3");
        Story::default().granted(0, 5, "a", 1).watch(0, 1, 0).event(1000, 1, hand_over(EndReason::Expired)).passes("P3");
        Story::default()
            .granted(0, 5, "a", 1)
            .watch(0, 1, 0)
            .event(10, 1, change(Kind::Updated, 2, "a", 1))
            .event(1000, 1, hand_over(EndReason::Expired))
            .passes("P3");
    }

    #[test]
    fn what_ran_out_before_its_holder_reckoned_is_found() {
        let held = || {
            let mut story = Story::default();
            story.belief(0, 900, "a", 1).watch(0, 1, 0);
            story
        };
        let ran_out = || ended(Kind::Expired, 2, "", 1, "a", EndReason::Expired);
        held().event(900, 1, ran_out()).passes("P3");
        held().event(899, 1, ran_out()).fails("P3");
        // It released it itself.
        assert_eq!(held().event(100, 1, ended(Kind::Released, 2, "", 1, "a", EndReason::Released)).find("P3").violated, 0);
    }
}
