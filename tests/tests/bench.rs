//! The benchmark command starts its own cluster and reports what it says it does. No times are asserted: those are for people.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tenure_tests::binaries;

fn run(args: &[&str]) -> anyhow::Result<(String, String)> {
    let output = Command::new(binaries::bench()?).args(args).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "tenure-bench {}: {} {stderr}", args.join(" "), output.status);
    Ok((String::from_utf8(output.stdout)?, stderr))
}

fn measured(args: &[&str]) -> anyhow::Result<Vec<Value>> {
    let (stdout, _) = run(&[&["--start", "--json", "--seconds", "1"], args].concat())?;
    stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn times(line: &Value) -> anyhow::Result<(u64, [f64; 3])> {
    let of = |name: &str| line[name].as_f64().with_context(|| format!("{name} is missing: {line}"));
    Ok((line["n"].as_u64().with_context(|| format!("n is missing: {line}"))?, [of("p50_ms")?, of("p99_ms")?, of("max_ms")?]))
}

#[test]
fn handover_and_takeover_count_every_change_of_hands() -> anyhow::Result<()> {
    let lines = measured(&["handover", "--waiters", "1,3", "--rounds-each", "5"])?;
    ensure!(lines.len() == 2, "{lines:?}");
    for line in &lines {
        let (n, times) = times(line)?;
        ensure!(n == 5 && times[0] > 0.0 && times.is_sorted(), "{line}");
    }
    let lines = measured(&["takeover", "--elections", "2", "--rounds-each", "2"])?;
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

/// All that `compare` measures, at sizes that say nothing about speed. It checks every answer and every count by itself; etcd is not at hand here.
#[test]
fn compare_measures_every_row_of_the_goals() -> anyhow::Result<()> {
    let out = tempfile::tempdir_in(binaries::scratch())?;
    let (stdout, stderr) = run(&["compare", "--quick", "--out", out.path().to_str().context("a path in UTF-8")?])?;
    ensure!(stderr.contains("no --etcd-bin"), "it must say that nothing was compared: {stderr}");
    let report: Value = serde_json::from_str(&fs::read_to_string(out.path().join("compare.json"))?)?;
    let rows = report["rows"].as_array().context("rows")?;
    ensure!(rows.len() > 25, "{report}");
    let (elections, rows_of_goals) = rows.split_last().context("rows")?;
    for row in rows_of_goals {
        ensure!(row["tenure"].as_f64().is_some_and(|value| value > 0.0) && row["etcd"].is_null() && row["verdict"] == "not judged", "{row}");
    }
    ensure!(elections["tenure"].is_number(), "{elections}");
    let markdown = fs::read_to_string(out.path().join("compare.md"))?;
    ensure!(markdown.lines().count() == rows.len() + 4 && stdout.contains(rows[0]["what"].as_str().context("what")?), "{markdown}\n{stdout}");
    Ok(())
}
