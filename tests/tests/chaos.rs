//! A few scenarios of `chaos`, short ones: that they run, serve and find nothing. All of them: `cargo run -p tenure-tests --bin chaos -- all`.

use std::process::Command;

use anyhow::ensure;

#[test]
fn chaos_on_hosts_of_its_own_violates_nothing() -> anyhow::Result<()> {
    let scenarios = "kill-leader,leader-isolated-from-peers,healthy-soak";
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    let output = command.args(["all", "--seconds", "6", "--only", scenarios]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}", output.status);
    let skipped = text.lines().filter(|line| line.contains(" SKIPPED: "));
    for line in skipped {
        tenure_tests::disk::skipped("chaos_on_hosts_of_its_own_violates_nothing", &anyhow::anyhow!("{line}"));
    }
    Ok(())
}

#[test]
fn page_about_chaos_has_every_scenario_as_it_is() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(tenure_tests::binaries::repository().join("docs/chaos.md"))?;
    let table = tenure_tests::chaos::table();
    ensure!(page.contains(&table), "`chaos list --markdown` prints what belongs there:\n{table}");
    Ok(())
}
