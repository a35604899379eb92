//! L5: an outage of the service does not run out everybody's leases: the lease clock stands still while nothing can be committed.

use crate::{
    facts::Facts,
    findings::{Findings, Property},
};

pub(super) const PROPERTY: Property = Property { id: "L5", claim: "the lease clock stands still in an outage, and never runs ahead of true time", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let Some(bound) = facts.meta.bounds.clock_in_outage else {
        findings.note("not demanded");
        return;
    };
    let stamps: Vec<(u64, u64)> = facts.witness.changes.iter().filter_map(|(at, committed)| committed.clock_ms.map(|clock| (*at, clock))).collect();
    for fault in facts.faults.iter().filter(|fault| fault.kind == "outage") {
        let before = stamps.iter().rfind(|(at, _)| *at < fault.from);
        let after = stamps.iter().find(|(at, _)| *at > fault.to);
        if let (Some((from, before)), Some((to, after))) = (before, after) {
            let working = (fault.from - from).saturating_add(to - fault.to).div_ceil(1_000_000);
            findings.check(after.saturating_sub(*before) <= working.saturating_add(bound), *to, "", || {
                format!("the lease clock went from {before} to {after} over an outage, with {working} ms of work around it")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Bounds, Kind, What},
        story::{Story, change},
    };

    #[test]
    fn clock_that_runs_in_an_outage_is_found() {
        let outage = |clock| {
            let mut story = Story::default();
            story.bounds(Bounds { clock_in_outage: Some(1000), ..Bounds::default() });
            story.stamped(100, 100, change(Kind::Acquired, 1, "a", 1));
            story.at(200, What::Fault { fault: 1, kind: "outage".into(), nodes: vec![] }).at(10_200, What::Healed { fault: 1 });
            story.stamped(10_300, clock, change(Kind::Updated, 2, "a", 1));
            story
        };
        outage(1300).passes("L5");
        outage(1301).fails("L5");
    }
}
