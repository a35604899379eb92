//! openraft's own suite, on the log and the snapshots as they are in production.

use std::sync::Arc;

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::Tape;
use crate::{
    consensus::{log_store::LogStore, snapshot::Snapshots, state_machine::StateMachine, types::TypeConfig},
    disk::{Disk as _, Expected, SystemDisk},
};

struct Fresh;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = SystemDisk.open_log(&dir.path().join("raft-log"), Expected::default()).expect("a new log");
        let log = LogStore::new(SystemDisk::shared(), log, 1 << 20);
        let snapshots = Snapshots::open(SystemDisk::shared(), dir.path()).expect("a new directory");
        Ok((dir, log, StateMachine::new(Arc::new(Tape::default()), snapshots, None)))
    }
}

#[tokio::test]
async fn log_store_and_snapshots_pass_openrafts_suite() {
    Suite::test_all(Fresh).await.expect("every case");
}
