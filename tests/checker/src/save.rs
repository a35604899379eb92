//! Where histories and their reports are kept: `NAME.jsonl`, beside it `NAME.html` and `NAME.json`.

use std::{
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use crate::{history::History, report::Report, timeline};

/// Writes a history into a folder, with its page and report; says where the history is.
///
/// # Errors
/// When a file cannot be written.
pub fn all(history: &History, verdict: &Report, dir: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = if verdict.name.is_empty() { "history".into() } else { verdict.name.chars().map(plain).collect() };
    let file = dir.join(if verdict.seed == 0 { format!("{name}.jsonl") } else { format!("{name}-{}.jsonl", verdict.seed) });
    history.write(BufWriter::new(File::create(&file)?))?;
    report(history, verdict, &file)?;
    Ok(file)
}

/// Writes the page and the report beside a history's file.
///
/// # Errors
/// When a file cannot be written.
pub fn report(history: &History, report: &Report, file: &Path) -> io::Result<()> {
    fs::write(file.with_extension("html"), timeline::html(history, report))?;
    fs::write(file.with_extension("json"), report.json())
}
