//! A little of each layer of the storage campaign; all of it: `cargo run -p tenure-tests --bin storage`.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::Context as _;
use tenure_tests::{
    binaries,
    clock::Rng,
    disk::skipped,
    storage::{Layer, Round, Skipped, enospc, failpoints, offline, points::POINTS, powerloss, quorum, slow, syscalls},
};

/// A round of its own, whose seed is printed.
fn round(test: &str) -> Round {
    Round::new(Rng::seeded(test).bits())
}

/// What this machine does not allow is seen, and is no failure.
fn possible(test: &str, result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.is::<Skipped>() => {
            skipped(test, &error);
            Ok(())
        }
        result => result,
    }
}

/// Dies at each of these, one after the other.
async fn die_at(test: &str, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        let point = POINTS.iter().find(|point| point.name == *name).context("a failpoint")?;
        let mut round = round(test);
        let result = failpoints::at(&mut round, *point).await;
        println!("{}: {}", round.what, round.counts);
        result.context(round.what)?;
    }
    Ok(())
}

#[test]
fn every_failpoint_of_the_source_is_in_the_campaign_and_the_other_way_round() {
    fn find(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                find(&path, found);
            } else {
                let text = fs::read_to_string(&path).expect("a source file");
                found.extend(text.split("failpoint::pass(\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned));
            }
        }
    }
    let mut found = BTreeSet::new();
    find(&binaries::repository().join("server/src"), &mut found);
    let known: BTreeSet<String> = POINTS.iter().map(|point| point.name.to_owned()).collect();
    assert_eq!(found, known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_dies_while_it_writes_its_log_or_a_vote_forgets_nothing() -> anyhow::Result<()> {
    let names = ["vote_after_save", "log_before_fsync", "log_after_fsync", "truncate_before", "repair_before_cut"];
    die_at("replica_that_dies_while_it_writes_its_log_or_a_vote_forgets_nothing", &names).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_dies_around_a_snapshot_or_its_founding_comes_back_whole() -> anyhow::Result<()> {
    let names = ["snapshot_before_dirsync", "install_after_adopt", "purge_before", "found_before_initialize", "identity_before_rename"];
    die_at("replica_that_dies_around_a_snapshot_or_its_founding_comes_back_whole", &names).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_dies_anywhere_comes_back_whole() -> anyhow::Result<()> {
    let test = "replica_that_dies_anywhere_comes_back_whole";
    // Others in every run.
    let mut rng = Rng::seeded(test);
    let names = [rng.pick(POINTS).name, rng.pick(POINTS).name, rng.pick(POINTS).name];
    die_at(test, &names).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_are_refused_or_cost_nothing() -> anyhow::Result<()> {
    let mut round = round("flipped_bits_are_refused_or_cost_nothing");
    offline::round(&mut round, Layer::Bitflips, 40).await?;
    quorum::round(&mut round, Layer::Bitflips, 3).await?;
    println!("{}", round.counts);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_cut_gone_swapped_or_old_are_refused_or_cost_nothing() -> anyhow::Result<()> {
    let mut round = round("files_that_are_cut_gone_swapped_or_old_are_refused_or_cost_nothing");
    offline::round(&mut round, Layer::Truncation, 40).await?;
    quorum::round(&mut round, Layer::Truncation, 3).await?;
    println!("{}", round.counts);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_system_call_stops_the_replica_or_harms_nobody() -> anyhow::Result<()> {
    let test = "failed_system_call_stops_the_replica_or_harms_nobody";
    // Of an fsync; of removing a file, which has the log's writer end without a word; the last thing it does; while it starts.
    for name in ["serving error=EIO at fdatasync", "serving error=EIO at unlink", "serving signal=SIGKILL at fdatasync", "starting error=EIO at read"] {
        let mut round = round(test);
        let case = syscalls::CASES.iter().position(|case| case.to_string().starts_with(name)).context("a case")?;
        let result = syscalls::at(&mut round, case).await;
        println!("{}: {}", round.what, round.counts);
        possible(test, result).context(round.what)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_leader_whose_fsync_hangs_is_succeeded_and_harms_nobody() -> anyhow::Result<()> {
    let test = "raft_leader_whose_fsync_hangs_is_succeeded_and_harms_nobody";
    let mut round = round(test);
    let result = slow::with(&mut round, Duration::from_secs(8)).await;
    println!("{}", round.what);
    possible(test, result)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_and_lost_power_of_any_number_of_replicas_take_nothing() -> anyhow::Result<()> {
    let test = "full_disks_and_lost_power_of_any_number_of_replicas_take_nothing";
    let mut full = round(test);
    let result = enospc::round(&mut full).await;
    println!("{}", full.what);
    possible(test, result).context(full.what)?;
    let mut lost = round(test);
    let result = powerloss::round(&mut lost).await;
    println!("{}", lost.what);
    possible(test, result).context(lost.what)
}
