//! Corpora: the committed one of each target, and what a campaign has found since, under the target folder.
//!
//! `valid-…` must be taken for valid for ever; `seen-…` once reached something new; everything else once broke something.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::targets::Target;

/// One input and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Of the file.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Where the committed corpus of a target is.
#[must_use]
pub fn committed(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// Where campaigns leave what they find.
#[must_use]
pub fn scratch(target: &Target) -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    // Tests are in deps/, below the folder of their profile.
    let profile = exe.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    profile.and_then(Path::parent).unwrap_or(Path::new("target")).join("fuzz-corpus").join(target.name)
}

/// Everything in a folder, by name; empty if there is none.
///
/// # Errors
/// Those of the file system.
pub fn load(folder: &Path) -> io::Result<Vec<Input>> {
    let mut inputs = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(inputs),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            inputs.push(Input { name, bytes: fs::read(path)? });
        }
    }
    inputs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(inputs)
}

/// Writes an input beside the others, under a name made of its content; returns its path.
///
/// # Errors
/// Those of the file system.
pub fn save(folder: &Path, kind: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{kind}-{:08x}", crc32c::crc32c(bytes)));
    fs::write(&path, bytes)?;
    Ok(path)
}
