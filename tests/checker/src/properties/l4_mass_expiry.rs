//! L4: many holds whose deadlines come at once are over within the bound.

use crate::{
    facts::Facts,
    findings::{Findings, Property},
    history::EndReason,
};

pub(super) const PROPERTY: Property = Property { id: "L4", claim: "many holds that run out together are over within their bound", check };

const MANY: usize = 100;
const TOGETHER: u64 = 1_000_000_000;

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let Some(bound) = facts.meta.bounds.mass_expiry else {
        findings.note("not demanded");
        return;
    };
    let mut ends: Vec<(u64, u64)> = Vec::new();
    for hold in facts.holds.values().flat_map(|holds| holds.values()) {
        if let (Some(EndReason::Expired), Some(over)) = (hold.reason, hold.over) {
            ends.push((hold.latest, over));
        }
    }
    ends.sort_unstable();
    let mut rest = ends.as_slice();
    while let Some((first, _)) = rest.first() {
        let together = rest.partition_point(|(deadline, _)| *deadline < first + TOGETHER);
        if together > MANY {
            let last = rest[..together].iter().map(|(_, over)| *over).max().unwrap_or(0);
            let at_most = first.saturating_add(TOGETHER).saturating_add(bound.saturating_mul(1_000_000));
            findings.check(last <= at_most, last, "", || format!("{together} holds due within a second from {first}, the last over by {last}"));
        }
        rest = &rest[together..];
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Bounds, Change, EndReason, Kind},
        story::{Story, change, ended},
    };

    #[test]
    fn slow_mass_expiry_is_found() {
        let many = |last: u64| {
            let mut story = Story::default();
            story.bounds(Bounds { mass_expiry: Some(500), ..Bounds::default() });
            for token in 1..=150 {
                let of = |change: Change| Change { lease: format!("n/{token}"), ..change };
                story.committed(1, of(change(Kind::Acquired, token, "a", token)));
                let at = if token == 150 { last } else { 1100 };
                story.committed(at, of(ended(Kind::Expired, 1000 + token, "", token, "a", EndReason::Expired)));
            }
            story
        };
        many(2501).passes("L4");
        many(2502).fails("L4");
    }
}
