//! Every target takes its whole corpus, and some mutations of it, without harm.

use std::path::Path;

use tenure_fuzz::{
    ALL, Target,
    campaign::{Budget, Campaign},
    corpus, run,
    targets::named,
};

/// `TENURE_TEST_SEED` repeats a run.
fn seed() -> u64 {
    let given = std::env::var("TENURE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| u64::from(std::process::id()))
}

fn target(name: &str) -> &'static Target {
    named(name).expect("there is such a target")
}

/// One after the other: a panic is known by the hook, which all threads share.
#[test]
fn corpora_and_mutations_of_them_break_nothing() {
    let seed = seed();
    eprintln!("seed {seed}: TENURE_TEST_SEED={seed} repeats this run");
    for target in ALL {
        let (mut taken, mut refused) = (0, 0);
        for input in corpus::load(&corpus::committed(target)).expect("a corpus") {
            let place = format!("corpus/{}/{}", target.name, input.name);
            match run(target, &input.bytes) {
                Ok(true) => taken += 1,
                Ok(false) => {
                    assert!(!input.name.starts_with("valid-"), "{place} was valid once, and must be for ever");
                    refused += 1;
                }
                Err(violation) => panic!("{place}: {violation}"),
            }
        }
        assert!(taken > 0, "{}: a corpus with nothing valid in it shows nothing", target.name);
        let campaign = Campaign::begin(target, seed, false).expect("a corpus");
        let tally = campaign.go_on(Budget::Inputs(target.mutations)).expect("nothing is written");
        eprintln!("{:<10} {taken} valid and {refused} other inputs of its corpus; {} runs, {} valid", target.name, tally.inputs, tally.taken);
        if let Some((violation, input)) = tally.violations.into_values().next() {
            let left = corpus::save(&corpus::scratch(target), "broke", &input).expect("the target folder can be written");
            panic!("{}, seed {seed}: {violation}\nwith {}: copy it to {}", target.name, left.display(), corpus::committed(target).display());
        }
    }
}

#[test]
fn every_folder_of_corpora_is_of_a_target() {
    let folder = corpus::committed(target("requests"));
    let folder = folder.parent().unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(folder).expect("the corpora are there") {
        let name = entry.expect("readable").file_name();
        assert!(named(&name.to_string_lossy()).is_some(), "no target has the corpus {name:?}");
    }
}
