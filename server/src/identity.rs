//! Who this replica is: the identity file of its data directory.
//!
//! `<data_dir>/identity.json`: format version, node id, replica id (a UUID made with the directory), cluster id (once it belongs to one).
//! Written tmp, fsync, rename, fsync of the directory. A directory of another node id is refused with a message that says what to do.
//! `<data_dir>/LOCK` keeps a second process out for as long as this one lives.

use std::{
    any::Any,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::{
    disk::{Disk, SharedDisk, SystemDisk, offloaded},
    failpoint,
};

const FORMAT: u32 = 1;
const FILE: &str = "identity.json";

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    disk: SharedDisk,
    data_dir: PathBuf,
    node_id: u64,
    replica_id: String,
    cluster_id: RwLock<Option<Arc<str>>>,
    lock: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    format: u32,
    node_id: u64,
    replica_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    /// Of the other fields: a digit of an id that changed is still an id. Files of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32c: Option<u32>,
}

impl OnDisk {
    fn new(node_id: u64, replica_id: String, cluster_id: Option<String>) -> Self {
        let mut this = Self { format: FORMAT, node_id, replica_id, cluster_id, crc32c: None };
        this.crc32c = Some(this.checksum());
        this
    }

    fn checksum(&self) -> u32 {
        let Self { format, node_id, replica_id, cluster_id, crc32c: _ } = self;
        crc32c::crc32c(format!("{format} {node_id} {replica_id} {}", cluster_id.as_deref().unwrap_or_default()).as_bytes())
    }
}

impl Identity {
    /// Reads the identity, or makes a new one in an empty directory. `fresh_replica_id` is used only then.
    pub(crate) fn open(disk: SharedDisk, data_dir: &Path, node_id: u64, fresh_replica_id: uuid::Uuid) -> anyhow::Result<Self> {
        disk.create_dir_all(data_dir).with_context(|| format!("cannot create the data directory {}", data_dir.display()))?;
        // So that a new directory outlives a power loss. One that may not be opened was not made by us.
        drop(disk.sync_dir(&data_dir.join("..")));
        let lock = lock(&*disk, data_dir)?;
        let path = data_dir.join(FILE);
        let known = match content(&*disk, &path) {
            Ok(bytes) => read(&path, &bytes, node_id)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_leftovers(&*disk, data_dir)?;
                let fresh = OnDisk::new(node_id, fresh_replica_id.to_string(), None);
                write(&*disk, data_dir, &fresh)?;
                fresh
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let inner = Inner {
            disk,
            data_dir: data_dir.into(),
            node_id,
            replica_id: known.replica_id,
            cluster_id: RwLock::new(known.cluster_id.map(Into::into)),
            lock: Mutex::new(Some(lock)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.inner.node_id
    }

    pub(crate) fn replica_id(&self) -> &str {
        &self.inner.replica_id
    }

    /// `None`: belongs to no cluster yet.
    pub(crate) fn cluster_id(&self) -> Option<Arc<str>> {
        self.inner.cluster_id.read().clone()
    }

    /// Joins a cluster, durably; an error if it belongs to another.
    pub(crate) async fn join(&self, cluster_id: &str) -> anyhow::Result<()> {
        let (identity, cluster_id) = (self.clone(), cluster_id.to_owned());
        offloaded(&*self.inner.disk, move || identity.join_blocking(&cluster_id)).await.context("joining the cluster")?
    }

    /// Once in a replica's life.
    fn join_blocking(&self, cluster_id: &str) -> anyhow::Result<()> {
        let mut mine = self.inner.cluster_id.write();
        match mine.as_deref() {
            Some(known) if known == cluster_id => return Ok(()),
            Some(known) => bail!("this replica belongs to cluster {known}, not to {cluster_id}"),
            None => {}
        }
        let on_disk = OnDisk::new(self.inner.node_id, self.inner.replica_id.clone(), Some(cluster_id.into()));
        write(&*self.inner.disk, &self.inner.data_dir, &on_disk)?;
        tracing::info!(cluster = cluster_id, node = self.inner.node_id, replica = self.inner.replica_id, "joined a cluster");
        *mine = Some(cluster_id.into());
        Ok(())
    }

    /// Lets another process have the directory. The last thing a replica does.
    pub(crate) fn unlock(&self) {
        drop(self.inner.lock.lock().take());
    }
}

/// What an identity file says, for people; changes nothing. And whether the replica belongs to a cluster.
pub(crate) fn inspect(data_dir: &Path) -> anyhow::Result<(String, bool)> {
    let path = data_dir.join(FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse_leftovers(&SystemDisk, data_dir)?;
            return Ok(("none yet: the next start makes this a new replica".to_owned(), false));
        }
        bytes => bytes.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let node_id = serde_json::from_slice::<OnDisk>(&bytes).map_or(0, |known| known.node_id);
    let known = read(&path, &bytes, node_id)?;
    let cluster = known.cluster_id.as_deref().unwrap_or("(none yet)");
    Ok((format!("node {node_id}, replica {}, cluster {cluster}", known.replica_id), known.cluster_id.is_some()))
}

/// Whether a replica uses the directory now.
pub(crate) fn in_use(data_dir: &Path) -> bool {
    matches!(File::open(data_dir.join("LOCK")).map(|file| file.try_lock()), Ok(Err(TryLockError::WouldBlock)))
}

/// For the fuzz target: reads what an identity file holds, whichever node it is of.
#[cfg(feature = "fuzzing")]
pub(crate) fn readable(bytes: &[u8]) -> anyhow::Result<()> {
    let node_id = serde_json::from_slice::<OnDisk>(bytes).map_or(0, |known| known.node_id);
    read(Path::new("identity.json"), bytes, node_id).map(drop)
}

fn content(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    disk.open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn lock(disk: &dyn Disk, data_dir: &Path) -> anyhow::Result<Box<dyn Any + Send>> {
    let path = data_dir.join("LOCK");
    match disk.lock(&path) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("the data directory {} is in use by another tenured: stop that one, or give this replica a directory of its own", data_dir.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn read(path: &Path, bytes: &[u8], node_id: u64) -> anyhow::Result<OnDisk> {
    let path = path.display();
    let damaged = |why: &dyn std::fmt::Display| {
        anyhow::anyhow!(
            "{path} is damaged ({why}). Without it this replica cannot prove which member it is, so it will not start. Restore the file from a copy, or \
             remove this member from the cluster, move the data directory away, and add the replica anew with an empty one"
        )
    };
    let known: OnDisk = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    if known.format != FORMAT {
        bail!("{path} has format {}; this build knows {FORMAT}: use a newer tenured", known.format);
    }
    if uuid::Uuid::parse_str(&known.replica_id).is_err() {
        return Err(damaged(&"the replica id is not a UUID"));
    }
    if known.crc32c.is_some_and(|crc32c| crc32c != known.checksum()) {
        return Err(damaged(&"wrong checksum"));
    }
    if known.node_id != node_id {
        bail!(
            "{path} says that this is the data directory of node {}, but the configuration says node {node_id}: correct node_id or data_dir; two nodes \
             must never share or swap directories",
            known.node_id
        );
    }
    Ok(known)
}

/// A directory with a log or snapshots but no identity has lost it: a new one would make the replica forget its votes.
fn refuse_leftovers(disk: &dyn Disk, data_dir: &Path) -> anyhow::Result<()> {
    for name in ["raft-log", "snapshots"] {
        let dir = data_dir.join(name);
        if disk.list(&dir).is_ok_and(|found| !found.is_empty()) {
            bail!(
                "{} has content but {} is missing: this is not an empty data directory, and nobody can tell whose it is. Restore the file from a copy, or \
                 remove this member from the cluster, move the data directory away, and add the replica anew with an empty one",
                dir.display(),
                data_dir.join(FILE).display()
            );
        }
    }
    Ok(())
}

fn write(disk: &dyn Disk, data_dir: &Path, identity: &OnDisk) -> anyhow::Result<()> {
    let path = data_dir.join(FILE);
    let write = || -> anyhow::Result<()> {
        failpoint::pass("identity_before_write");
        let tmp = data_dir.join("identity.json.tmp");
        let mut file = disk.create(&tmp)?;
        file.write_all(&serde_json::to_vec_pretty(identity)?)?;
        file.sync_all()?;
        failpoint::pass("identity_before_rename");
        disk.rename(&tmp, &path)?;
        failpoint::pass("identity_after_rename");
        disk.sync_dir(data_dir)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
