//! A few of the attacks of `abuse`, short ones: that they run, and that no lease is lost, no process ends, memory stays bounded and service comes
//! back. How slow the slowest renewal was says more about a loaded machine than about the cluster, so nothing is asserted about that here. All of
//! them, with the whole yardstick: `cargo run --release -p tenure-tests --bin abuse -- all`.

use std::process::Command;

use anyhow::{Context as _, ensure};

#[test]
fn careless_clients_cost_the_bystander_no_lease_and_the_cluster_no_replica() -> anyhow::Result<()> {
    let scenarios = ["forbidden-frames", "silent-connections", "http-unread", "short-deadlines"];
    let json = tempfile::NamedTempFile::new()?;
    let output = Command::new(env!("CARGO_BIN_EXE_abuse")).args(scenarios).args(["--seconds", "4", "--json"]).arg(json.path()).output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    let rows: serde_json::Value = serde_json::from_slice(&std::fs::read(json.path())?).context("the table as JSON")?;
    let rows = rows.as_array().context("rows")?;
    ensure!(rows.len() == scenarios.len(), "{} rows", rows.len());
    for (row, name) in rows.iter().zip(scenarios) {
        let number = |figure: &str| row["figures"][figure].as_f64().with_context(|| format!("{name}: no {figure}"));
        ensure!(row["name"] == name && number("calls")? > 0.0, "{row}");
        let wrong = row["wrong"].as_array().context("what is wrong")?;
        ensure!(!wrong.iter().any(|line| line.as_str().is_some_and(|line| line.contains("never told"))), "{row}");
        ensure!(number("lost")? == 0.0, "{name}: leases lost: {row}");
        ensure!(number("ended")? == 0.0, "{name}: processes ended: {row}");
        ensure!(number("above_mib")? <= 512.0, "{name}: memory: {row}");
        ensure!(number("back_s").is_ok_and(|seconds| seconds <= 10.0), "{name}: service did not come back: {row}");
    }
    Ok(())
}

#[test]
fn page_about_abuse_has_every_scenario_as_it_is() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(tenure_tests::binaries::repository().join("docs/abuse.md"))?;
    let table = tenure_tests::abuse::markdown();
    ensure!(page.contains(&table), "`abuse list --markdown` prints what belongs there:\n{table}");
    Ok(())
}
