//! What CI asks of the simulation: one seed is one run, old seeds stay good, and some new ones.
//!
//! Each run is a process of its own; longer campaigns are `cargo run -p tenure-sim -- --seeds A..B`.

use std::{fs, path::Path, process::Command};

fn sim() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tenure-sim"))
}

/// Tells what it said, if it failed.
fn run(mut command: Command) {
    let output = command.output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let tail = out.lines().count().saturating_sub(200);
    println!("{}{err}", out.lines().skip(tail).collect::<Vec<_>>().join("\n"));
    assert!(output.status.success(), "{command:?} failed");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let traces: Vec<Vec<u8>> = ["first", "second"]
        .iter()
        .map(|name| {
            let path = dir.path().join(name);
            let mut command = sim();
            // Whoever looks at it changes nothing.
            command.args(if *name == "second" { &["--verbose"][..] } else { &[] });
            command.args(["--seed", "7", "--trace"]).arg(&path).arg("--history").arg(dir.path().join("history"));
            run(command);
            fs::read(path).expect("the trace")
        })
        .collect();
    assert!(traces[0].len() > 100_000, "a trace of everything on the network is long");
    let differs = traces[0].iter().zip(&traces[1]).position(|(one, other)| one != other);
    assert_eq!(differs, None, "they differ from this byte on");
    assert_eq!(traces[0].len(), traces[1].len());
}

#[test]
fn seeds_that_found_something_once_find_nothing_now() {
    let mut command = sim();
    command.arg("--regressions").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions.txt"));
    run(command);
}

#[test]
fn new_seeds_find_nothing() {
    let mut command = sim();
    // As many as fit: a busy machine runs fewer, and says how many.
    command.args(["--seeds", "1000..1010", "--jobs", "2", "--within", "60"]);
    run(command);
}
