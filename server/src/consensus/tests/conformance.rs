//! openraft's own suite, on the log and the snapshots as they are in production.

use std::sync::Arc;

use openraft::{
    RaftLogReader as _, StorageError,
    entry::RaftEntry as _,
    storage::{RaftLogStorage as _, RaftLogStorageExt as _},
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::Tape;
use crate::{
    consensus::{
        log_store::LogStore,
        outgoing::Hurry,
        snapshot::Snapshots,
        state_machine::StateMachine,
        types::{Entry, TypeConfig, log_id},
    },
    disk::{Disk as _, Expected, SystemDisk},
};

struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = SystemDisk.open_log(&dir.path().join("raft-log"), Expected::default()).expect("a new log");
        let log = LogStore::new(SystemDisk::shared(), log, 1 << 20, 0);
        let snapshots = Snapshots::open(SystemDisk::shared(), dir.path()).expect("a new directory");
        Ok((dir, log, StateMachine::new(Arc::new(Tape::default()), snapshots, None, Hurry::default())))
    }
}

#[tokio::test]
async fn entries_after_a_purged_beginning_are_no_answer_to_who_asks_for_it() {
    let (_dir, mut log, _) = Fresh.build().await.expect("a new log");
    log.blocking_append((0..10).map(|index| Entry::new_blank(log_id(1, 1, index)))).await.expect("appended");
    log.purge(log_id(1, 1, 5)).await.expect("purged");
    let mut read = async |from, to| log.limited_get_log_entries(from, to).await.expect("read").iter().map(|entry| entry.index()).collect::<Vec<_>>();
    assert_eq!(read(6, 9).await, [6, 7, 8]);
    // A follower that was given these would have a gap in its log, or stop at it.
    assert!(read(4, 9).await.is_empty());
}

#[tokio::test]
async fn log_store_and_snapshots_pass_openrafts_suite() {
    Suite::test_all(Fresh).await.expect("every case");
}
