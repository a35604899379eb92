//! What the other replicas ask of this one's Raft. Their messages are decoded and checked here; a bad one is a `Status`, never a panic.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use openraft::errors::Fatal;
use parking_lot::Mutex;
use tenure_proto::peer::v1 as pb;
use tonic::Status;

use super::{
    Consensus,
    snapshot::SnapshotError,
    types::{Snapshot, SnapshotMeta, TypeConfig, Vote},
    wire::{self, WireError},
};
use crate::{
    disk::{NewFile as _, SharedDisk, Stepwise, offloaded},
    failpoint,
};

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this replica's Raft has stopped: {error}"))
}

fn bad(error: WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

impl Consensus {
    /// Appends as they come, answers in order. Ends at the first request that is refused.
    pub(crate) fn append<S>(&self, requests: S) -> BoxStream<'static, Result<pb::AppendResponse, Status>>
    where
        S: Stream<Item = Result<pb::AppendRequest, Status>> + Send + Unpin + 'static,
    {
        let wrong: Arc<Mutex<Option<Status>>> = Arc::default();
        let told = Arc::clone(&wrong);
        let requests = requests.scan((), move |(), request| {
            // A broken connection ends the stream quietly: there is nobody to tell.
            let decoded = request.ok().and_then(|request| wire::append_from(request).map_err(|error| *told.lock() = Some(bad(error))).ok());
            futures::future::ready(decoded)
        });
        let inner = Arc::clone(&self.inner);
        let answers = inner.raft.stream_append(requests).map(move |answer| match answer {
            Ok(result) => {
                if result.is_ok() {
                    inner.contact.note();
                }
                Ok(wire::appended_to(&result))
            }
            Err(fatal) => Err(stopped(fatal)),
        });
        let last = futures::stream::once(async move { wrong.lock().take() }).filter_map(|status| futures::future::ready(status.map(Err)));
        Box::pin(answers.chain(last))
    }

    pub(crate) async fn vote(&self, request: pb::VoteRequest) -> Result<pb::VoteResponse, Status> {
        let request = wire::vote_request_from(request).map_err(bad)?;
        self.inner.raft.vote(request).await.map(|response| wire::vote_response_to(&response)).map_err(stopped)
    }

    pub(crate) async fn pre_vote(&self, request: pb::VoteRequest) -> Result<pb::VoteResponse, Status> {
        let request = wire::vote_request_from(request).map_err(bad)?;
        self.inner.raft.pre_vote(request).await.map(|response| wire::vote_response_to(&response)).map_err(stopped)
    }

    /// The raft leader would like this replica, or another, to lead.
    pub(crate) async fn take_over(&self, request: pb::TransferLeaderRequest) -> Result<pb::TransferLeaderResponse, Status> {
        let request = wire::transfer_from(request).map_err(bad)?;
        let taken = self.inner.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        taken.map_err(|error| Status::aborted(error.to_string()))?;
        Ok(pb::TransferLeaderResponse {})
    }

    /// Receives a snapshot into a file, verifies it, and installs it.
    pub(crate) async fn install_snapshot<S>(&self, mut chunks: S) -> Result<pb::SnapshotResponse, Status>
    where
        S: Stream<Item = Result<pb::SnapshotChunk, Status>> + Send + Unpin,
    {
        let first = chunks.next().await.ok_or_else(|| Status::invalid_argument("a snapshot without a head"))??;
        let head = first.head.ok_or_else(|| Status::invalid_argument("a snapshot without a head"))?;
        let vote = wire::vote_from(head.vote).map_err(bad)?;
        let meta = wire::snapshot_meta_from(head.meta.unwrap_or_default()).map_err(bad)?;
        self.could_be(&vote, &meta)?;
        if head.size > MAX_SNAPSHOT {
            return Err(Status::invalid_argument(format!("a snapshot of {} bytes was announced; at most {MAX_SNAPSHOT} are received", head.size)));
        }

        // A raft leader sends one; a second comes from the next raft leader, after the first has gone.
        let _one_at_a_time = self.inner.receiving.lock().await;
        let tmp = self.inner.snapshots.received(&meta);
        let disk = Arc::clone(self.inner.snapshots.disk());
        if let Err(status) = store(&disk, &tmp, first.data, chunks, head.size).await {
            // Of no use, and in the way of what needs the space. The next start sweeps what stays.
            let of_no_use = Arc::clone(&disk);
            drop(offloaded(&*disk, move || of_no_use.remove(&tmp)).await);
            return Err(status);
        }

        failpoint::pass("install_before_adopt");
        let snapshots = self.inner.snapshots.clone();
        let adopted = offloaded(&*disk, move || snapshots.adopt(&tmp)).await.map_err(|error| Status::internal(error.to_string()))?;
        let file = adopted.map_err(|error: SnapshotError| Status::data_loss(error.to_string()))?;
        if file.meta != meta {
            return Err(Status::invalid_argument("the snapshot is another than announced"));
        }
        tracing::info!(path = %file.path.display(), bytes = file.size, "snapshot received");
        failpoint::pass("install_after_adopt");
        let installed = self.inner.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: file }).await;
        let response = installed.map_err(|fatal: Fatal<TypeConfig>| stopped(fatal))?;
        self.inner.contact.note();
        Ok(pb::SnapshotResponse { vote: Some(wire::vote_to(&response.vote)) })
    }

    /// openraft panics on a snapshot that no cluster following the protocol can produce. A peer can send anything.
    fn could_be(&self, vote: &Vote, meta: &SnapshotMeta) -> Result<(), Status> {
        let Some(last) = meta.last_log_id else {
            return Err(Status::invalid_argument("a snapshot of nothing"));
        };
        if !vote.is_committed() || *last.committed_leader_id() > *vote.leader_id() {
            return Err(Status::invalid_argument("a snapshot from after its sender's own term"));
        }
        let committed = self.inner.committed_here();
        if committed.is_some_and(|committed| last > committed && last.index() <= committed.index()) {
            return Err(Status::failed_precondition("the snapshot contradicts what is committed here"));
        }
        Ok(())
    }
}

/// Of a snapshot that is received. A million leases with names of usual length are 0.1 to 0.4 GiB of it, and one Raft group is for twenty million at
/// the most (docs/performance.md), so no table comes near; who announces more would only fill the disk.
const MAX_SNAPSHOT: u64 = 16 << 30;

/// Writes what comes to a file, and fsyncs it.
pub(super) async fn store<S>(disk: &SharedDisk, path: &Path, mut data: Bytes, mut chunks: S, size: u64) -> Result<(), Status>
where
    S: Stream<Item = Result<pb::SnapshotChunk, Status>> + Send + Unpin,
{
    let failed = |error: io::Error| Status::internal(format!("cannot store the snapshot: {error}"));
    let (creating, path) = (Arc::clone(disk), path.to_owned());
    let mut file = blocking(disk, move || creating.create(&path).map(Stepwise::new)).await.map_err(failed)?;
    let mut received = 0;
    loop {
        received += data.len() as u64;
        if received > size {
            return Err(Status::invalid_argument("a snapshot longer than announced"));
        }
        file = blocking(disk, move || file.write_all(&data).map(|()| file)).await.map_err(failed)?;
        failpoint::pass("install_while_receiving");
        match chunks.next().await {
            Some(chunk) => data = chunk?.data,
            None => break,
        }
    }
    if received != size {
        return Err(Status::invalid_argument(format!("a snapshot of {received} bytes, {size} were announced")));
    }
    blocking(disk, move || file.sync_all()).await.map_err(failed)
}

async fn blocking<T: Send + 'static>(disk: &SharedDisk, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    offloaded(&**disk, work).await?
}
