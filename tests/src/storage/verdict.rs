//! What a replica says of a data directory: offline, by `tenured check`, and by starting from it.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    Cluster, binaries, clock,
    storage::{damage::Damage, load::Ledger},
};

/// How long `tenured check` may take on a busy machine.
const CHECK: Duration = Duration::from_secs(60);

/// What `tenured check` found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// A replica would start from it.
    pub starts: bool,
    /// All that it said.
    pub said: String,
}

impl Checked {
    /// The newest term in which the replica has voted, by its log.
    #[must_use]
    pub fn voted(&self) -> Option<u64> {
        let (_, rest) = self.said.split_once("vote for node ")?;
        rest.split_once(" in term ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

/// Panics that are not sled's own, which are caught.
pub fn no_panic(said: &str) -> anyhow::Result<()> {
    match said.lines().find(|line| line.contains("panicked at") && !line.contains("/sled-")) {
        Some(line) => bail!("a panic: {line}\n{said}"),
        None => Ok(()),
    }
}

/// Runs `tenured check`.
pub async fn check(dir: &Path) -> anyhow::Result<Checked> {
    let mut child = Command::new(binaries::tenured()?)
        .arg("check")
        .arg("--data-dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start tenured")?;
    let begun = clock::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if clock::since(begun) > CHECK {
            child.kill()?;
            bail!("tenured check of {} hangs", dir.display());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    no_panic(&said)?;
    let starts = said.contains("verdict    starts");
    ensure!(starts || said.contains("verdict    REFUSED"), "no verdict, {status}: {said}");
    ensure!(status.success() != said.contains("DAMAGED"), "{status}, and it says: {said}");
    ensure!(starts || !status.success(), "{status}, and it says: {said}");
    Ok(Checked { starts, said })
}

/// A refusal must say what is wrong, where, and what to do.
pub fn helpful(said: &str, damage: &Damage) -> anyhow::Result<()> {
    ensure!(damage.names.iter().any(|name| said.contains(name)), "the refusal names none of {:?}: {said}", damage.names);
    let advice = ["Remove this member", "remove this member", "Restore the file"];
    ensure!(advice.iter().any(|advice| said.contains(advice)), "the refusal does not say what to do: {said}");
    Ok(())
}

/// Starts a cluster's only replica from a directory; `true`: it serves, with everything; `false`: it refuses, and says why.
pub async fn start(cluster: &mut Cluster, dir: &Path, ledger: &Ledger, namespace: &str, damage: Option<&Damage>) -> anyhow::Result<bool> {
    let replica = cluster.replica(1)?;
    dir.clone_into(&mut replica.data_dir);
    std::fs::write(&replica.log, "")?;
    let replica = cluster.replicas.first().context("there is one")?;
    cluster.configure(replica, &[(1, replica.peer.addr())], true)?;
    let replica = cluster.replica(1)?;
    replica.spawn()?;
    match replica.ready_or_ended().await? {
        None => {
            let verified = ledger.verify_at(&replica.api, namespace).await;
            replica.kill()?;
            no_panic(&replica.log_text()?)?;
            verified.with_context(|| format!("it serves\n{}", replica.log_tail(20)))?;
            Ok(true)
        }
        Some(status) => {
            let said = replica.log_text()?;
            no_panic(&said)?;
            ensure!(!status.success() && status.code().is_some(), "it ended, {status}: {said}");
            if let Some(damage) = damage {
                helpful(&said, damage)?;
            }
            Ok(false)
        }
    }
}
