//! What is wrong on disk is told apart: an unfinished write is repaired, everything else refuses to start.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::cluster::Cluster;

/// A replica that wrote some entries and was stopped.
async fn stopped(snapshot_log_bytes: u64, entries: usize) -> Cluster {
    let mut cluster = Cluster::founded(1, snapshot_log_bytes).await;
    for n in 0..entries {
        cluster.write(&format!("entry {n} {}", "x".repeat(600))).await;
    }
    cluster.stop().await;
    cluster
}

fn newest(dir: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(dir).expect("there").map(|entry| entry.expect("readable").path()).filter(|path| path.extension().is_some()).collect();
    files.sort();
    files.pop().expect("a file")
}

fn log_file(cluster: &mut Cluster) -> PathBuf {
    newest(&cluster.replica(1).path().join("raft-log"))
}

async fn refusal(cluster: &mut Cluster) -> String {
    format!("{:#}", cluster.replica(1).try_start().await.expect_err("it must not start"))
}

#[tokio::test]
async fn torn_tail_is_cut_off() {
    let mut cluster = stopped(1 << 30, 10).await;
    let file = log_file(&mut cluster);
    let whole = fs::read(&file).expect("readable");
    // Half a record: a length that is not there yet.
    let mut torn = whole.clone();
    torn.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    fs::write(&file, &torn).expect("written");
    cluster.replica(1).start().await;
    cluster.write("after").await;
    assert_eq!(cluster.replica(1).run().tape.entries().len(), 11);
    cluster.stop().await;
    cluster.replica(1).start().await;
    assert_eq!(cluster.replica(1).run().tape.entries().len(), 11);
    cluster.stop().await;
}

#[tokio::test]
async fn sectors_that_never_reached_the_disk_are_a_torn_tail() {
    let mut cluster = stopped(1 << 30, 10).await;
    let file = log_file(&mut cluster);
    let mut bytes = fs::read(&file).expect("readable");
    bytes.extend_from_slice(&[0; 2048]);
    fs::write(&file, &bytes).expect("written");
    cluster.replica(1).start().await;
    cluster.write("after").await;
    cluster.stop().await;
}

#[tokio::test]
async fn flipped_bit_in_the_middle_of_the_log_refuses_to_start() {
    let mut cluster = stopped(1 << 30, 10).await;
    let file = log_file(&mut cluster);
    let whole = fs::read(&file).expect("readable");
    let at = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[at] ^= 0x10;
    fs::write(&file, &flipped).expect("written");
    let why = refusal(&mut cluster).await;
    assert!(why.contains("the Raft log is damaged") && why.contains("add the replica anew"), "{why}");
    assert_eq!(fs::read(&file).expect("readable"), flipped, "nothing was touched");
    fs::write(&file, &whole).expect("written");
    cluster.replica(1).start().await;
    assert_eq!(cluster.replica(1).run().tape.entries().len(), 10);
    cluster.stop().await;
}

/// What the log holds, or why it is refused; changes nothing.
fn inspect(file: &Path, snapshot_index: Option<u64>) -> Result<u64, String> {
    let dir = file.parent().expect("in a directory");
    let expected = crate::disk::Expected { member: true, snapshot_index, ..Default::default() };
    crate::consensus::log_check::inspect(dir, expected).map(|found| found.records).map_err(|error| error.to_string())
}

#[tokio::test]
async fn any_flipped_byte_of_what_was_synced_is_refused() {
    let mut cluster = stopped(1 << 30, 3).await;
    let file = log_file(&mut cluster);
    let whole = fs::read(&file).expect("readable");
    inspect(&file, None).expect("whole");
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        fs::write(&file, &flipped).expect("written");
        let why = inspect(&file, None).expect_err("damage");
        assert!(why.contains("is damaged") && why.contains("add the replica anew"), "byte {at} of {}: {why}", whole.len());
    }
}

#[tokio::test]
async fn log_that_lost_its_end_is_refused_wherever_it_was_cut() {
    let mut cluster = stopped(1 << 30, 3).await;
    let file = log_file(&mut cluster);
    let whole = fs::read(&file).expect("readable");
    for length in 0..whole.len() {
        fs::write(&file, &whole[..length]).expect("written");
        let why = inspect(&file, None).expect_err("damage");
        assert!(why.contains("its end is missing") && why.contains("add the replica anew"), "{length} of {}: {why}", whole.len());
    }
    fs::write(&file, &whole[..whole.len() - 100]).expect("written");
    let why = refusal(&mut cluster).await;
    assert!(why.contains("its end is missing"), "{why}");
    fs::write(&file, &whole).expect("written");
    cluster.replica(1).start().await;
    assert_eq!(cluster.replica(1).run().tape.entries().len(), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn mark_that_is_damaged_or_missing_costs_nothing_while_the_log_is_whole() {
    let mut cluster = stopped(1 << 30, 3).await;
    let file = log_file(&mut cluster);
    let mark = crate::consensus::log_mark::path(file.parent().expect("in a directory"));
    let whole = fs::read(&mark).expect("readable");
    for damaged in [Some(&whole[..40]), Some(&[0; 84][..]), None] {
        match damaged {
            Some(bytes) => fs::write(&mark, bytes).expect("written"),
            None => fs::remove_file(&mark).expect("removed"),
        }
        cluster.replica(1).start().await;
        assert_eq!(cluster.replica(1).run().tape.entries().len(), 3);
        cluster.stop().await;
        assert!(matches!(crate::consensus::log_mark::read(&mark), Ok(crate::consensus::log_mark::Known::Synced(_))), "it is made anew");
    }
    // But then nobody knows whether a torn tail was acknowledged.
    let log = fs::read(&file).expect("readable");
    fs::write(&file, &log[..log.len() - 3]).expect("written");
    fs::remove_file(&mark).expect("removed");
    let why = refusal(&mut cluster).await;
    assert!(why.contains("raft-log.synced"), "{why}");
}

#[tokio::test]
async fn log_that_is_gone_refuses_to_start() {
    let mut cluster = stopped(1 << 30, 3).await;
    fs::remove_dir_all(cluster.replica(1).path().join("raft-log")).expect("removed");
    let why = refusal(&mut cluster).await;
    assert!(why.contains("is gone although this replica belongs to a cluster"), "{why}");
}

#[tokio::test]
async fn damaged_snapshot_refuses_to_start() {
    let mut cluster = stopped(64 << 10, 400).await;
    let file = newest(&cluster.replica(1).path().join("snapshots"));
    let whole = fs::read(&file).expect("readable");
    for at in [0, 20, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&file, &flipped).expect("written");
        let why = refusal(&mut cluster).await;
        assert!(why.contains("is damaged"), "{why}");
    }
    fs::write(&file, &whole[..whole.len() - 5]).expect("written");
    let why = refusal(&mut cluster).await;
    assert!(why.contains("is damaged"), "{why}");
    fs::write(&file, &whole).expect("written");
    cluster.replica(1).start().await;
    assert_eq!(cluster.replica(1).run().tape.entries().len(), 400);
    cluster.stop().await;

    // All gone, or one under another's name.
    let dir = file.parent().expect("in a directory");
    for snapshot in fs::read_dir(dir).expect("there") {
        fs::remove_file(snapshot.expect("readable").path()).expect("removed");
    }
    let why = refusal(&mut cluster).await;
    assert!(why.contains("were removed from it because a snapshot had them") && why.contains("add the replica anew"), "{why}");
    fs::write(dir.join("9999999-9.snap"), &whole).expect("written");
    let why = refusal(&mut cluster).await;
    assert!(why.contains("another state") && why.contains("9999999-9.snap"), "{why}");
}

#[tokio::test]
async fn directory_of_another_node_or_in_use_is_refused() {
    let mut cluster = stopped(1 << 30, 1).await;
    let dir = cluster.replica(1).path();
    let fresh = uuid::Uuid::from_u128(7);
    let why = format!("{:#}", crate::identity::Identity::open(crate::disk::SystemDisk::shared(), &dir, 2, fresh).expect_err("another node"));
    assert!(why.contains("data directory of node 1, but the configuration says node 2"), "{why}");
    cluster.replica(1).start().await;
    let why = format!("{:#}", crate::identity::Identity::open(crate::disk::SystemDisk::shared(), &dir, 1, fresh).expect_err("in use"));
    assert!(why.contains("in use by another tenured"), "{why}");
    cluster.stop().await;
    fs::write(dir.join("identity.json"), "{ half").expect("written");
    let why = format!("{:#}", crate::identity::Identity::open(crate::disk::SystemDisk::shared(), &dir, 1, fresh).expect_err("damaged"));
    assert!(why.contains("identity.json is damaged"), "{why}");
    fs::remove_file(dir.join("identity.json")).expect("removed");
    let why = format!("{:#}", crate::identity::Identity::open(crate::disk::SystemDisk::shared(), &dir, 1, fresh).expect_err("missing"));
    assert!(why.contains("this is not an empty data directory"), "{why}");
}

#[tokio::test]
async fn any_flipped_bit_of_the_identity_is_refused_or_changes_nothing() {
    let mut cluster = stopped(1 << 30, 1).await;
    let dir = cluster.replica(1).path();
    let file = dir.join("identity.json");
    let whole = fs::read(&file).expect("readable");
    let open = || {
        let identity = crate::identity::Identity::open(crate::disk::SystemDisk::shared(), &dir, 1, uuid::Uuid::from_u128(7))?;
        anyhow::Ok((identity.replica_id().to_owned(), identity.cluster_id()))
    };
    let known = open().expect("sound");
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, &flipped).expect("written");
        match open() {
            Ok(opened) => assert_eq!(opened, known, "{}", String::from_utf8_lossy(&flipped)),
            Err(error) => assert!(format!("{error:#}").contains("identity.json"), "{error:#}"),
        }
    }
}
