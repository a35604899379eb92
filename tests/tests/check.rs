//! Data directories: what `tenured check` says that one holds, and who may look into it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use tenure_tests::{Cluster, Settings, api, binaries};

fn check(dir: &Path) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(binaries::tenured()?).arg("check").arg("--data-dir").arg(dir).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)))
}

/// The directory, and every directory and file below it.
fn tree(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(path) = paths.get(at).cloned() {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                paths.push(entry?.path());
            }
        }
        at += 1;
    }
    Ok(paths)
}

/// Every file's bytes, by path.
fn content(dir: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    tree(dir)?.into_iter().filter(|path| path.is_file()).map(|path| Ok((path.display().to_string(), fs::read(&path)?))).collect()
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
    ensure!(code == Some(2) && said.contains("BUSY") && said.contains("in use") && !said.contains("DAMAGED"), "while it runs: {said}");

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
    cluster.passed()
}

#[test]
fn what_is_no_replicas_data_is_neither_sound_nor_damaged() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let says = |path: &Path, words: &[&str]| -> anyhow::Result<()> {
        let before = content(dir.path())?;
        let (code, said) = check(path)?;
        ensure!(code == Some(2) && words.iter().all(|word| said.contains(word)), "{} is {code:?}: {said}", path.display());
        ensure!(["sound", "DAMAGED", "starts"].iter().all(|word| !said.contains(word)), "{}: {said}", path.display());
        ensure!(content(dir.path())? == before, "it changed something");
        Ok(())
    };
    says(&dir.path().join("nowhere"), &["nowhere does not exist"])?;
    says(Path::new("/etc"), &["/etc: no replica's data here"])?;
    // Empty, and as `tenured dev` has it.
    says(dir.path(), &["no replica's data here"])?;
    for node in 1..=3 {
        fs::create_dir_all(dir.path().join(format!("node-{node}/raft-log")))?;
    }
    fs::create_dir(dir.path().join("lost+found"))?;
    fs::write(dir.path().join("file"), "")?;
    says(dir.path(), &["no replica's data here (node-1, node-2, node-3 lie below"])?;
    says(&dir.path().join("file"), &["file is not a directory"])?;
    // What is below is looked at when asked for: this one lost its identity file.
    fs::write(dir.path().join("node-2/raft-log/something"), "")?;
    let (code, said) = check(&dir.path().join("node-2"))?;
    ensure!(code == Some(1) && said.contains("identity.json is missing"), "{said}");
    Ok(())
}

/// Fails unless others than the owner have no right to anything in it.
fn private(dir: &Path) -> anyhow::Result<()> {
    for path in tree(dir)? {
        // Log files and snapshots come and go while it runs.
        let Ok(found) = fs::metadata(&path) else { continue };
        let (mode, wanted) = (found.permissions().mode() & 0o7777, if found.is_dir() { 0o700 } else { 0o600 });
        ensure!(mode == wanted, "{} is {mode:04o}", path.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_writes_is_its_owners_alone_and_a_wider_directory_is_said_at_the_start() -> anyhow::Result<()> {
    let mut cluster = Cluster::prepare("private", Settings { replicas: 1, snapshot_log_bytes: "64KiB", ..Settings::default() })?;
    let dir = cluster.replica(1)?.data_dir.clone();
    // Started by somebody who shares all that he makes.
    cluster.replica(1)?.wrapper = ["sh", "-c", "umask 0; exec \"$@\"", "sh"].map(Into::into).into();
    cluster.start_all().await?;
    let (api, lease) = (cluster.api(), "default");
    for at in 0.. {
        let granted = api.grant(api::acquire(lease, "lease", &format!("holder-{at}"), 5000)).await?;
        api.release(lease, "lease", granted.token).await?;
        // Several files of the log, snapshots, and whatever was written aside before.
        let snapshots = tree(&dir)?.iter().filter(|path| path.extension().is_some_and(|extension| extension == "snap")).count();
        if snapshots > 1 {
            break;
        }
        ensure!(at < 5000, "there is no second snapshot");
    }
    let paths = tree(&dir)?;
    for part in ["LOCK", "identity.json", "raft-log.synced", ".wal", ".snap", "history/"] {
        ensure!(paths.iter().any(|path| path.to_string_lossy().contains(part)), "there is no {part}");
    }
    private(&dir)?;
    cluster.replica(1)?.terminate().await?;
    private(&dir)?;
    ensure!(!cluster.replica(1)?.log_text()?.contains("chmod"), "it complains about what it made itself");

    // As an earlier version, or a volume, has it.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    cluster.start_all().await?;
    let (said, advice) = (cluster.replica(1)?.log_text()?, format!("chmod 700 {}", dir.display()));
    ensure!(said.matches(&advice).count() == 1 && said.contains("0755"), "{said}");
    cluster.passed()
}
