//! `tenured check`: says what a directory holds, finds damage, and changes nothing.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use tenure_tests::{Cluster, Settings, api, binaries};

fn check(dir: &Path) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(binaries::tenured()?).arg("check").arg("--data-dir").arg(dir).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)))
}

/// Every file's bytes, by path.
fn content(dir: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.display().to_string(), fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reads_everything_finds_damage_and_changes_nothing() -> anyhow::Result<()> {
    let mut cluster = Cluster::start("check", Settings { replicas: 1, ..Settings::default() }).await?;
    let dir = cluster.replica(1)?.data_dir.clone();
    for at in 0..20 {
        let granted = cluster.api().grant(api::acquire("default", "lease", &format!("holder-{at}"), 5000)).await?;
        cluster.api().release("default", "lease", granted.token).await?;
    }
    let (code, said) = check(&dir)?;
    ensure!(code == Some(1) && said.contains("in use"), "while it runs: {said}");

    // kill -9: as a crash leaves it.
    cluster.replica(1)?.kill()?;
    let before = content(&dir)?;
    let (code, said) = check(&dir)?;
    ensure!(code == Some(0) && ["identity", "log", "history"].iter().all(|part| said.contains(part)) && !said.contains("DAMAGED"), "{said}");
    ensure!(content(&dir)? == before, "it changed something");

    // One bit in the middle of the log.
    let (path, bytes) = before.iter().find(|(path, bytes)| path.ends_with(".wal") && !bytes.is_empty()).context("a log file")?;
    let mut flipped = bytes.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    fs::write(path, &flipped)?;
    let (code, said) = check(&dir)?;
    ensure!(code == Some(1) && said.contains("DAMAGED") && said.contains(path.as_str()), "{said}");
    fs::write(path, bytes)?;

    fs::write(dir.join("identity.json"), "{}")?;
    let (code, said) = check(&dir)?;
    ensure!(code == Some(1) && said.contains("identity.json"), "{said}");
    let (code, said) = check(&dir.join("nowhere"))?;
    ensure!(code == Some(1) && said.contains("nowhere"), "{said}");
    cluster.passed()
}
