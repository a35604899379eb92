//! Where `tenured`, `tenure` and the rest are: beside the running test, built when missing or stale (cargo decides).

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, ensure};

/// The folder of the running profile: `target/debug`, for instance.
#[must_use]
pub fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    let dir = exe.parent().expect("a file is in a folder");
    // Tests are in deps/, binaries beside it.
    if dir.ends_with("deps") { dir.parent().expect("deps is in a folder").to_owned() } else { dir.to_owned() }
}

/// A folder under the target folder for what tests leave behind.
#[must_use]
pub fn scratch() -> PathBuf {
    let dir = profile_dir().join("tenure-tests");
    std::fs::create_dir_all(&dir).expect("the target folder can be written");
    dir
}

/// The root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in the repository")
}

/// The folder that holds both. `TENURE_BIN_DIR` names one that is used as it is.
pub fn bin_dir() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build(&["--bin", "tenured", "--bin", "tenure", "--bin", "tenure-bench"]).map_err(|error| format!("{error:#}"))) {
        Ok(dir) => Ok(dir),
        Err(error) => Err(anyhow::anyhow!(error.clone())),
    }
}

/// Path of `tenured` built to die at named places; see `server/src/failpoint.rs`.
pub fn tenured_failpoints() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let targets = ["--features", "tenure-server/failpoints", "--bin", "tenured-failpoints"];
    match BUILT.get_or_init(|| build(&targets).map_err(|error| format!("{error:#}"))) {
        Ok(dir) => Ok(dir.join("tenured-failpoints")),
        Err(error) => Err(anyhow::anyhow!(error.clone())),
    }
}

/// The folder of the SDK's examples; built as [`bin_dir`] is.
pub fn examples() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build(&["--workspace", "--examples"]).map_err(|error| format!("{error:#}"))) {
        Ok(dir) => Ok(dir.join("examples")),
        Err(error) => Err(anyhow::anyhow!(error.clone())),
    }
}

fn build(targets: &[&str]) -> anyhow::Result<PathBuf> {
    if let Ok(dir) = std::env::var("TENURE_BIN_DIR") {
        return Ok(dir.into());
    }
    let dir = profile_dir();
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => "dev",
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = dir.parent().context("a profile's folder is in the target folder")?;
    let output = Command::new(cargo)
        .current_dir(repository())
        .args(["build", "--quiet", "--offline", "--profile", profile])
        .args(targets)
        .arg("--target-dir")
        .arg(target)
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cannot build {targets:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(dir)
}

/// Path of `tenured`.
pub fn tenured() -> anyhow::Result<PathBuf> {
    Ok(bin_dir()?.join("tenured"))
}

/// Path of `tenure`.
pub fn tenure() -> anyhow::Result<PathBuf> {
    Ok(bin_dir()?.join("tenure"))
}

/// Path of `tenure-bench`.
pub fn bench() -> anyhow::Result<PathBuf> {
    Ok(bin_dir()?.join("tenure-bench"))
}
