//! The `check` binary: what its exit code says.

use std::process::Command;

use tenure_checker::{History, Record, history::What, judge, model::Model, save};

fn check(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_check")).args(arguments).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn violation_in_any_saved_history_ends_with_one() {
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("check-binary");
    std::fs::remove_dir_all(&dir).ok();
    let place = dir.to_str().expect("is text");
    std::fs::create_dir_all(&dir).expect("can be made");
    assert_eq!(check(&["--report", place]).0, Some(2), "there is nothing to check");

    let history = Model::history(7, 300);
    let file = save::all(&history, &judge(&history), &dir).expect("can be written");
    std::fs::remove_file(file.with_extension("html")).expect("was written");
    let (code, said) = check(&["--report", place]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.starts_with("1 histories: ") && line.ends_with(" 0 violations")), "{said}");
    assert!(file.with_extension("html").exists() && file.with_extension("json").exists());

    let mut records = history.records;
    records.retain(|record| !matches!(record.what, What::WatchEvent { .. }));
    let broken = History::sorted(records.into_iter().chain([Record { at: 0, what: What::Calm }]).collect());
    broken.write(std::fs::File::create(dir.join("broken.jsonl")).expect("can be made")).expect("can be written");
    let (code, said) = check(&["--quiet", "--report", place]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("broken.jsonl") && said.contains("W5"), "{said}");
}
