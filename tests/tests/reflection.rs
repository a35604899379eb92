//! Everything a human with grpcurl needs: Python drives each port by reflection alone.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use tenure_tests::{Cluster, binaries, disk::skipped};

/// A virtual environment with grpcio and grpcio-reflection, made once.
fn python() -> anyhow::Result<PathBuf> {
    let venv = binaries::scratch().join("venv");
    let python = venv.join("bin/python");
    let ready = Command::new(&python).args(["-c", "import grpc, grpc_reflection"]).output().is_ok_and(|output| output.status.success());
    if !ready {
        for (program, args) in [
            ("python3", vec!["-m", "venv", "--clear"]),
            ("", vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "grpcio", "grpcio-reflection"]),
        ] {
            let mut command = if program.is_empty() { Command::new(&python) } else { Command::new(program) };
            command.args(&args);
            if !program.is_empty() {
                command.arg(&venv);
            }
            let output = command.output().context("cannot run python3")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(python)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_drives_every_port_by_reflection_alone() -> anyhow::Result<()> {
    let python = match tokio::task::spawn_blocking(python).await? {
        Ok(python) => python,
        Err(error) => {
            skipped("python_drives_every_port_by_reflection_alone", &error);
            return Ok(());
        }
    };
    let cluster = Cluster::three("reflection").await?;
    let script = binaries::repository().join("tests/grpc_by_reflection.py");
    for replica in &cluster.replicas {
        let output = tokio::task::spawn_blocking({
            let mut command = Command::new(&python);
            command.arg(&script).arg(replica.client.addr());
            move || command.output()
        })
        .await??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}");
        println!("{}", said.trim());
    }
    cluster.passed()
}
