//! The benchmark command starts its own cluster and reports what it says it does. No times are asserted: those are for people.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tenure_tests::binaries;

fn measured(args: &[&str]) -> anyhow::Result<Vec<Value>> {
    let output = Command::new(binaries::bench()?).args(["--start", "--json", "--seconds", "1"]).args(args).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tenure-bench {}: {} {stderr}", args.join(" "), output.status);
    String::from_utf8(output.stdout)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn times(line: &Value) -> anyhow::Result<(u64, [f64; 3])> {
    let of = |name: &str| line[name].as_f64().with_context(|| format!("{name} is missing: {line}"));
    Ok((line["n"].as_u64().with_context(|| format!("n is missing: {line}"))?, [of("p50_ms")?, of("p99_ms")?, of("max_ms")?]))
}

#[test]
fn handover_and_takeover_count_every_change_of_hands() -> anyhow::Result<()> {
    let lines = measured(&["handover", "--waiters", "1,3", "--rounds", "5"])?;
    ensure!(lines.len() == 2, "{lines:?}");
    for line in &lines {
        let (n, times) = times(line)?;
        ensure!(n == 5 && times[0] > 0.0 && times.is_sorted(), "{line}");
    }
    let lines = measured(&["takeover", "--elections", "2", "--rounds", "2"])?;
    let (n, times) = times(&lines[0])?;
    ensure!(lines.len() == 1 && n == 4 && times.is_sorted(), "{lines:?}");
    Ok(())
}

#[test]
fn keep_measures_client_and_replicas() -> anyhow::Result<()> {
    let lines = measured(&["keep", "--leases", "50", "--lease-ms", "2000"])?;
    let line = lines.first().context("a line")?;
    let replicas = line["replica_cpu_percent"].as_array().map_or(0, Vec::len);
    ensure!(replicas == 3 && line["together_cpu_percent"].is_number() && line["client_cpu_percent"].is_number(), "{line}");
    Ok(())
}
