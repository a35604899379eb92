//! Feeds committed entries to what is replicated, and snapshots it. The only writer of the applied state.
//!
//! An entry that cannot be decoded stops the replica: skipping it would make this replica's state differ from the others' for ever.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    entry::RaftEntry as _,
    storage::{EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;
use tenure_lease::{LeaseTable, Outcome, RaftLeaderId};
use tokio::sync::watch;

use super::{
    outgoing::Hurry,
    snapshot::{SnapshotFile, Snapshots},
    types::{LogId, Outcomes, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, core_leader},
};
use crate::{disk::offloaded, failpoint, replica::Applications};

/// Writes out a frozen state; runs on a blocking thread.
pub(crate) type Freezer = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send + Sync>;

/// What applying an entry came to.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Of its commands, in order.
    pub(crate) outcomes: Vec<Outcome>,
    /// Somebody at another replica may wait for it, who will not be told by an outcome.
    pub(crate) awaited: bool,
}

/// The state that is replicated, as consensus sees it.
pub(crate) trait Replicated: Send + Sync + 'static {
    /// Applies a committed entry; `None`: it carries no commands (blank, membership). An error stops the replica.
    fn apply(&self, index: u64, committed_by: RaftLeaderId, entry: Option<&Bytes>) -> io::Result<Effects>;
    /// The state as it is now, cheaply; what is applied later is not in it.
    fn freeze(&self) -> Freezer;
    /// Replaces the state by what a [`Freezer`] wrote. Blocking.
    fn replace(&self, index: u64, leader: RaftLeaderId, body: &mut dyn Read) -> io::Result<()>;
}

impl Replicated for Applications {
    fn apply(&self, index: u64, committed_by: RaftLeaderId, entry: Option<&Bytes>) -> io::Result<Effects> {
        let entry = match entry {
            None => None,
            Some(bytes) => Some(crate::write::codec::decode_entry(bytes).map_err(|error| {
                let why = format!("entry {index} of the log cannot be decoded ({error}): it was written by a newer tenured, or is damaged");
                io::Error::new(io::ErrorKind::InvalidData, why)
            })?),
        };
        Ok(Self::apply(self, index, committed_by, entry))
    }

    fn freeze(&self) -> Freezer {
        let frozen = self.table.read().freeze();
        Box::new(move |out| frozen.write_to(out))
    }

    fn replace(&self, index: u64, leader: RaftLeaderId, body: &mut dyn Read) -> io::Result<()> {
        let table = LeaseTable::restore(body).map_err(io::Error::other)?;
        // The footer comes after the table: only now is all of it known to be right.
        io::copy(body, &mut io::sink())?;
        Self::replace(self, index, leader, table);
        Ok(())
    }
}

/// openraft's side of [`Replicated`].
pub(crate) struct StateMachine {
    state: Arc<dyn Replicated>,
    last: Option<LogId>,
    membership: StoredMembership,
    snapshots: Snapshots,
    /// The newest verified one; shared with the task that builds the next.
    newest: Arc<Mutex<Option<SnapshotFile>>>,
    hurry: Hurry,
    /// The leader id of the last applied entry; told only when it changes.
    applied_leader: watch::Sender<RaftLeaderId>,
}

impl StateMachine {
    /// `state` holds what `newest` holds.
    pub(crate) fn new(state: Arc<dyn Replicated>, snapshots: Snapshots, newest: Option<SnapshotFile>, hurry: Hurry) -> Self {
        let meta = newest.as_ref().map(|file| file.meta.clone()).unwrap_or_default();
        Self {
            state,
            applied_leader: watch::Sender::new(meta.last_log_id.as_ref().map(core_leader).unwrap_or_default()),
            last: meta.last_log_id,
            membership: meta.last_membership,
            snapshots,
            newest: Arc::new(Mutex::new(newest)),
            hurry,
        }
    }

    pub(crate) fn applied_leader(&self) -> watch::Receiver<RaftLeaderId> {
        self.applied_leader.subscribe()
    }

    fn applied(&mut self, id: LogId) {
        let leader = core_leader(&id);
        self.applied_leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
        self.last = Some(id);
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id();
            let bytes = match &entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(blob) => Some(&blob.0),
                EntryPayload::Membership(membership) => {
                    failpoint::pass("membership_before_apply");
                    self.membership = StoredMembership::new(Some(id), membership.clone());
                    None
                }
            };
            failpoint::pass("apply_before_one");
            let effects = self.state.apply(id.index(), core_leader(&id), bytes).inspect_err(|error| tracing::error!(%error, "this replica stops"))?;
            self.applied(id);
            failpoint::pass("apply_after_one");
            if matches!(entry.payload, EntryPayload::Membership(_)) {
                failpoint::pass("membership_after_apply");
            }
            if let Some(responder) = responder {
                responder.send(Outcomes(effects.outcomes));
            }
            if effects.awaited {
                self.hurry.now();
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // The caller is also the only one who applies: state, last id and membership belong together.
        Builder {
            write: Some(self.state.freeze()),
            meta: SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() },
            snapshots: self.snapshots.clone(),
            newest: Arc::clone(&self.newest),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        failpoint::pass("install_before_replace");
        let last = meta.last_log_id;
        let (state, file) = (Arc::clone(&self.state), snapshot.clone());
        offloaded(&**self.snapshots.disk(), move || {
            let mut body = file.body().map_err(io::Error::other)?;
            state.replace(last.map_or(0, |id| id.index()), last.as_ref().map(core_leader).unwrap_or_default(), &mut body)
        })
        .await??;
        failpoint::pass("install_after_replace");
        if let Some(last) = last {
            self.applied(last);
        }
        self.last = last;
        self.membership = meta.last_membership.clone();
        *self.newest.lock() = Some(snapshot);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let newest = self.newest.lock().clone();
        Ok(newest.map(|file| Snapshot { meta: file.meta.clone(), snapshot: file }))
    }
}

/// Writes one snapshot, beside apply.
pub(crate) struct Builder {
    write: Option<Freezer>,
    meta: SnapshotMeta,
    snapshots: Snapshots,
    newest: Arc<Mutex<Option<SnapshotFile>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let write = self.write.take().ok_or_else(|| io::Error::other("this snapshot was built already"))?;
        let (meta, snapshots) = (self.meta.clone(), self.snapshots.clone());
        failpoint::pass("snapshot_before_build");
        let file = match offloaded(&**self.snapshots.disk(), move || snapshots.write(&meta, write)).await.map_err(io::Error::from).flatten() {
            Ok(file) => file,
            Err(error) => {
                // The log goes on, only longer. openraft would take an error for a reason to stop; an older snapshot it passes over.
                tracing::error!(%error, "cannot write a snapshot; the log is kept, the next attempt comes with more of it");
                let newest = self.newest.lock().clone().unwrap_or_else(|| self.snapshots.none());
                return Ok(Snapshot { meta: newest.meta.clone(), snapshot: newest });
            }
        };
        tracing::info!(path = %file.path.display(), bytes = file.size, "snapshot written");
        let mut newest = self.newest.lock();
        // One received meanwhile may be newer.
        if newest.as_ref().is_none_or(|known| known.meta.last_log_id <= file.meta.last_log_id) {
            *newest = Some(file.clone());
        }
        Ok(Snapshot { meta: file.meta.clone(), snapshot: file })
    }
}
