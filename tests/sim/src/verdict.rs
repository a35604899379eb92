//! What a run comes to: the judge's word on its history and what was seen while it ran; in words, and in one line for a campaign to read.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;

use crate::{bugs, run::Report, world::Broken};

/// Begins the line that a campaign reads.
pub(crate) const MARK: &str = "tenure-sim: ";
/// Begins the part of it that says which rules and properties were broken.
pub(crate) const BROKEN: &str = "broken=";

/// Tells, and says whether all was well.
///
/// # Errors
/// The history cannot be written.
pub(crate) fn tell(run: &Report, history: Option<PathBuf>) -> anyhow::Result<bool> {
    let world = &run.world;
    let (recorded, seed) = (world.recorder.history(), world.plan.seed);
    let judged = tenure_checker::judge(&recorded);
    let seen = world.violations();
    let violations = judged.violations() + seen.len() as u64;
    println!("{:?}", world.plan);
    let mut broken = BTreeSet::new();
    for Broken { at, rule, text } in &seen {
        broken.insert(*rule);
        println!("VIOLATION of {rule} at {at}: {text}");
    }
    for (id, violation) in judged.told() {
        broken.insert(id);
        println!("VIOLATION of {id} at {} {}: {}", violation.at, violation.lease, violation.text);
    }
    let bad = violations > 0;
    let path = history.or_else(|| bad.then(|| std::env::temp_dir().join(format!("tenure-sim-{seed}.jsonl"))));
    if let Some(path) = path {
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(File::create(&path)?);
            recorded.write(&mut out)?;
            out.flush()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        println!("history: {}", path.display());
    }
    if bad {
        println!("REPRODUCE WITH: {} --seed {seed} --verbose", bugs::command());
    }
    let coverage: Vec<String> = world.coverage().iter().map(|(what, times)| format!("{what}={times}")).collect();
    println!(
        "{MARK}seed={seed};{BROKEN}{};operations={};unknown={};changes={};faults={};checks={};violations={violations};simulated_ms={};lines={};trace={:016x};{}",
        broken.into_iter().collect::<Vec<_>>().join(" "),
        judged.operations,
        judged.unknown,
        judged.changes,
        run.faults,
        judged.checked(),
        run.elapsed.as_millis(),
        run.lines,
        run.hash,
        coverage.join(";")
    );
    Ok(!bad)
}
