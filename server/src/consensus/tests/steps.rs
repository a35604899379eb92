//! Snapshots are made durable while they are written: whoever syncs anything on a journaling file system waits for what others have not.

use std::{
    any::Any,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    consensus::{receive, snapshot::Snapshots, types::SnapshotMeta},
    disk::{Disk, Expected, NewFile, OpenedLog, SharedDisk, SystemDisk},
};

const MIB: usize = 1 << 20;
/// A step, and what one write adds to it.
const AT_MOST: usize = 5 * MIB;

/// The machine's, and the most that was written to a file of it and not synced.
#[derive(Clone, Debug, Default)]
struct Watched(Arc<AtomicUsize>);

struct WatchedFile {
    file: Box<dyn NewFile>,
    unsynced: usize,
    most: Arc<AtomicUsize>,
}

impl Write for WatchedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written;
        self.most.fetch_max(self.unsynced, Ordering::Relaxed);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for WatchedFile {
    fn sync_all(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync_all()
    }
}

impl Disk for Watched {
    fn offload(&self, work: Box<dyn FnOnce() + Send>) {
        SystemDisk.offload(work);
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        SystemDisk.sync_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        SystemDisk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        SystemDisk.open(path)
    }
    fn size(&self, path: &Path) -> io::Result<u64> {
        SystemDisk.size(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(WatchedFile { file: SystemDisk.create(path)?, unsynced: 0, most: Arc::clone(&self.0) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send>> {
        SystemDisk.lock(path)
    }
    fn open_log(&self, dir: &Path, expected: Expected) -> anyhow::Result<OpenedLog> {
        SystemDisk.open_log(dir, expected)
    }
}

#[tokio::test]
async fn snapshot_is_synced_while_it_is_written_and_while_it_is_received() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let watched = Watched::default();
    let disk: SharedDisk = Arc::new(watched.clone());
    let most = || watched.0.swap(0, Ordering::Relaxed);
    let snapshots = Snapshots::open(Arc::clone(&disk), dir.path()).expect("a new directory");
    let body = |out: &mut dyn Write| (0..12).try_for_each(|n| out.write_all(&vec![n; MIB]));
    let written = snapshots.write(&SnapshotMeta::default(), body).expect("written");
    assert!(written.size > 12 * MIB as u64);
    let unsynced = most();
    assert!((MIB..AT_MOST).contains(&unsynced), "{unsynced} bytes of what is written were not yet durable");

    let chunks = (1..12).map(|n| Ok(tenure_proto::peer::v1::SnapshotChunk { head: None, data: vec![n; MIB].into() }));
    let path = dir.path().join("received");
    receive::store(&disk, &path, Bytes::from(vec![0; MIB]), futures::stream::iter(chunks), 12 * MIB as u64).await.expect("received");
    assert_eq!(disk.size(&path).expect("it is there"), 12 * MIB as u64);
    let unsynced = most();
    assert!((MIB..AT_MOST).contains(&unsynced), "{unsynced} bytes of what came were not yet durable");
}
