//! Get, List, History: answered by this replica, after a read index unless the caller takes a stale answer.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tenure_lease::{Hold, LeaseKey};
use tenure_proto::v1;
use tonic::{Request, Status};

use super::{
    Service,
    header::hold_to_wire,
    pages::{Listed, Pages},
    patience, status,
    validate::{self, Query},
};
use crate::{admission::Caller, disk::offloaded, write::codec::lease_to_wire};

/// Scopes with more leases are listed from a frozen table on another thread, so that apply does not wait.
const MODERATE: u64 = 5_000;
/// A page ends before it is larger, whatever its `page_size`: most gRPC clients take 4 MiB.
const PAGE_BYTES: usize = 3 << 20;

/// When this returns, the table shows what the caller may expect.
async fn caught_up(service: &Service, min_revision: u64, stale: bool, patience: Duration) -> Result<(), Status> {
    let reads = &service.parts.reads;
    if !stale {
        reads.barrier(patience).await.map_err(|error| status::read(&error))?;
    }
    if min_revision > 0 {
        reads.revision(min_revision, patience).await.map_err(|error| status::read(&error))?;
    }
    Ok(())
}

pub(super) async fn get(service: &Service, request: Request<v1::GetRequest>) -> Result<v1::GetResponse, Status> {
    let patience = patience(request.metadata());
    let request = request.into_inner();
    let key = validate::get(&request)?;
    caught_up(service, request.min_revision, request.stale, patience).await?;
    let (found, holds, now, revision) = {
        let table = service.parts.applications.table.read();
        (table.get(&key), table.recent_holds(&key), table.clock(), table.revision())
    };
    let found = found.ok_or_else(|| status::not_found(&format!("{}/{}", key.namespace, key.name)))?;
    let mut lease = lease_to_wire(&found, Some(now));
    lease.recent_holds = holds.iter().map(hold_to_wire).collect();
    Ok(v1::GetResponse { header: service.headers.at(revision), lease: Some(lease) })
}

pub(super) async fn list(service: &Service, request: Request<v1::ListRequest>) -> Result<v1::ListResponse, Status> {
    let patience = patience(request.metadata());
    let source = request.extensions().get::<Caller>().and_then(Caller::source);
    let request = request.into_inner();
    let (query, page_size) = validate::list(&request)?;
    let (kept, listed, offset) = if request.page_token.is_empty() {
        caught_up(service, request.min_revision, request.stale, patience).await?;
        (None, listed(service, query).await?, 0)
    } else {
        let (id, listed, offset) = service.pages.resume(&request.page_token, &query, source.as_ref())?;
        (Some(id), listed, offset)
    };
    let rest = listed.leases.get(offset..).unwrap_or_default();
    let mut leases = Vec::with_capacity(rest.len().min(page_size));
    let mut bytes = 0;
    for lease in rest.iter().take(page_size) {
        let lease = lease_to_wire(lease, Some(listed.now));
        bytes += lease.encoded_len();
        if bytes > PAGE_BYTES && !leases.is_empty() {
            break;
        }
        leases.push(lease);
    }
    let next_page_token = if leases.len() < rest.len() {
        let id = kept.unwrap_or_else(|| service.pages.keep(listed.clone(), source));
        Pages::token(id, offset + leases.len())
    } else {
        String::new()
    };
    Ok(v1::ListResponse { header: service.headers.at(listed.revision), leases, next_page_token })
}

async fn listed(service: &Service, query: Query) -> Result<Arc<Listed>, Status> {
    let (frozen, now) = {
        let table = service.parts.applications.table.read();
        let (revision, now) = (table.revision(), table.clock());
        if table.count(&query.scope) <= MODERATE {
            let leases = table.list(&query.scope, &query.selector);
            return Ok(Arc::new(Listed { query, leases, revision, now }));
        }
        (table.freeze(), now)
    };
    let listing = offloaded(&*service.parts.disk, move || {
        let leases = frozen.list(&query.scope, &query.selector);
        Arc::new(Listed { leases, revision: frozen.revision(), now, query })
    });
    // Cancelled only when the runtime goes down.
    listing.await.map_err(|_| status::shutting_down())
}

pub(super) async fn history(service: &Service, request: Request<v1::HistoryRequest>) -> Result<v1::HistoryResponse, Status> {
    let patience = patience(request.metadata());
    let (key, limit) = validate::history(request.into_inner())?;
    caught_up(service, 0, false, patience).await?;
    let (recent, created, revision) = {
        let table = service.parts.applications.table.read();
        (table.recent_holds(&key), table.get(&key).map(|lease| lease.create_revision), table.revision())
    };
    let (holds, complete_since) = match recorded(service, &key, limit).await {
        Some(recorded) => {
            // Before the question to the recorder: it may have ended since, and then the recorder says so.
            let present = recent.into_iter().find(|hold| hold.end_reason.is_none());
            let present = present.filter(|present| recorded.holds.first().is_none_or(|newest| newest.token != present.token));
            (present.into_iter().chain(recorded.holds).collect(), recorded.complete_since)
        }
        None => {
            let complete_since = recent_is_complete_since(&recent, created, revision);
            (recent, complete_since)
        }
    };
    let holds: Vec<Hold> = holds;
    if holds.is_empty() && created.is_none() {
        return Err(status::not_found(&format!("{}/{}", key.namespace, key.name)));
    }
    let holds = holds.iter().take(limit).map(hold_to_wire).collect();
    Ok(v1::HistoryResponse { header: service.headers.at(revision), holds, complete_since })
}

/// `None`: history is off, or cannot be read.
async fn recorded(service: &Service, key: &LeaseKey, limit: usize) -> Option<crate::history::Holds> {
    let history = service.parts.history.as_ref()?;
    match history.of(key, limit).await {
        Ok(holds) => Some(holds),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "the history cannot be read: answered with the last few holds");
            None
        }
    }
}

/// What the table itself keeps: the last few holds of this incarnation.
fn recent_is_complete_since(recent: &[Hold], created: Option<u64>, revision: u64) -> u64 {
    const KEPT: usize = 8;
    match created {
        None => revision,
        Some(created) if recent.len() < KEPT => created,
        Some(created) => recent.last().map_or(created, |oldest| oldest.end_revision),
    }
}
