//! Nothing goes wrong, or only what users ask.

use super::super::{Scenario, Stage};

pub(super) const ALL: &[Scenario] = &[Scenario {
    name: "healthy-soak",
    what: "nothing goes wrong",
    must: "no call fails, no keeper loses its lease",
    needs: &[],
    floor: 20,
    keeps: true,
    prepare: |_| {},
    act: |stage| Box::pin(healthy_soak(stage)),
}];

async fn healthy_soak(stage: &mut Stage) -> anyhow::Result<()> {
    while stage.goes_on() {
        stage.pass_some(200, 400).await?;
    }
    let failures = &stage.traffic.failures;
    anyhow::ensure!(failures.is_empty(), "{} calls failed, the first: {}", failures.len(), failures[0].1);
    Ok(())
}
