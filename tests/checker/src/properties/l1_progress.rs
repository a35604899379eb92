//! L1: once nothing is disturbed any more, writes are acknowledged again within the bound.

use crate::{
    facts::{Facts, Op},
    findings::{Findings, Property},
    history::Outcome,
};

pub(super) const PROPERTY: Property = Property { id: "L1", claim: "after the faults a write is acknowledged within its bound", check };

fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let (Some(calm), Some(bound)) = (facts.calm, facts.meta.bounds.first_write) else {
        findings.note("not demanded");
        return;
    };
    let written = |op: &&Op<'_>| {
        op.to != u64::MAX
            && matches!(
                op.outcome,
                Some(Outcome::Granted { .. } | Outcome::Renewed { .. } | Outcome::Released { .. } | Outcome::Put { .. } | Outcome::Deleted { .. })
            )
    };
    let first = facts.ops.iter().filter(written).map(|op| op.to).filter(|to| *to >= calm).min();
    let took = first.unwrap_or(u64::MAX).saturating_sub(calm);
    findings.check(took <= bound.saturating_mul(1_000_000), calm, "", || {
        format!("no write was acknowledged within {bound} ms: the first after {first:?}, calm since {calm}")
    });
}

#[cfg(test)]
mod tests {
    use crate::{
        history::{Bounds, What},
        story::Story,
    };

    #[test]
    fn silence_after_the_faults_is_found() {
        let calm = |from, to| {
            let mut story = Story::default();
            story.bounds(Bounds { first_write: Some(100), ..Bounds::default() }).at(10, What::Calm).granted(from, to, "a", 1);
            story
        };
        calm(5, 110).passes("L1");
        calm(5, 111).fails("L1");
        calm(5, 9).fails("L1");
    }
}
