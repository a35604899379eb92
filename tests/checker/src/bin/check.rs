//! Checks saved histories again: `cargo run -p tenure-checker --bin check -- --report DIR`.
//!
//! Takes every `*.jsonl` under DIR (or the files given), prints a verdict for each, writes the page and the report beside it, and ends with 1 if
//! anything was violated, with 2 if something cannot be read. With `--quiet` only what is wrong is printed. `--example OPERATIONS` first writes a
//! made-up history there, to look at.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
    process::ExitCode,
};

use tenure_checker::{History, judge, model::Model, save};

fn main() -> ExitCode {
    let mut quiet = false;
    let mut example = None;
    let mut places = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--example" => example = args.next().and_then(|count| count.parse().ok()),
            "--report" => {}
            "--quiet" => quiet = true,
            "--help" | "-h" => {
                println!("check [--quiet] [--example OPERATIONS] --report DIR | FILE.jsonl …");
                return ExitCode::SUCCESS;
            }
            place => places.push(PathBuf::from(place)),
        }
    }
    if let (Some(operations), Some(dir)) = (example, places.first()) {
        let written = fs::create_dir_all(dir).and_then(|()| Model::history(1, operations).write(BufWriter::new(File::create(dir.join("example.jsonl"))?)));
        if let Err(error) = written {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    }
    match check(&places, quiet) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// How many violations there are.
fn check(places: &[PathBuf], quiet: bool) -> Result<u64, Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    for place in places {
        find(place, &mut files)?;
    }
    files.sort();
    if files.is_empty() {
        return Err("no histories (*.jsonl) there".into());
    }
    let (mut operations, mut changes, mut faults, mut checks, mut violations) = (0, 0, 0, 0, 0);
    for file in &files {
        let history = History::read(BufReader::new(File::open(file)?)).map_err(|error| format!("{}: {error}", file.display()))?;
        let report = judge(&history);
        if !quiet || report.violations() > 0 {
            println!("== {}\n{report}\n", file.display());
        }
        save::report(&history, &report, file)?;
        operations += report.operations;
        changes += report.changes;
        faults += report.faults;
        checks += report.checked();
        violations += report.violations();
    }
    println!("{} histories: {operations} operations, {changes} changes, {faults} faults, {checks} checks, {violations} violations", files.len());
    Ok(violations)
}

fn find(place: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if place.is_dir() {
        for entry in fs::read_dir(place)? {
            let path = entry?.path();
            if path.is_dir() || path.extension().is_some_and(|extension| extension == "jsonl") {
                find(&path, files)?;
            }
        }
    } else {
        files.push(place.to_owned());
    }
    Ok(())
}
