//! Doors for the fuzz targets (tests/fuzz) to what reads clients' requests.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "for one crate, which has them all in one place")]

use std::{sync::Arc, time::Duration};

use prost::Message;
use tenure_lease::{LeaseTime, Scope, Selector};
use tenure_proto::{
    peer::v1::{Command, command::Kind},
    v1,
};
use tonic::{Status, metadata::MetadataMap};

use super::{
    pages::{Listed, Pages},
    validate::{self, Query},
};
use crate::config::ServiceLimits;

/// What [`request`] knows, by its number.
pub const REQUESTS: [&str; 11] = [
    "AcquireRequest",
    "RenewRequest",
    "ReleaseRequest",
    "PutRequest",
    "DeleteRequest",
    "GetRequest",
    "ListRequest",
    "WatchRequest",
    "HistoryRequest",
    "AddMemberRequest",
    "RemoveMemberRequest",
];

/// What became of a request that keeps to every rule.
#[derive(Debug)]
pub enum Asked {
    /// For the log.
    Command(Box<Command>),
    /// Changes no lease.
    Question,
}

/// What is asked of [`request`]'s durations.
#[must_use]
pub fn limits() -> ServiceLimits {
    ServiceLimits::default()
}

/// A request. `None`: not even protobuf.
#[must_use]
pub fn request(kind: usize, bytes: &[u8]) -> Option<Result<Asked, Status>> {
    let limits = limits();
    match kind {
        0 => checked(bytes, |request| command(validate::acquire(request, &limits), Kind::Acquire)),
        1 => checked(bytes, |request| command(validate::renew(request, &limits), Kind::Renew)),
        2 => checked(bytes, |request| command(validate::release(request), Kind::Release)),
        3 => checked(bytes, |request| command(validate::put(request, &limits), Kind::Put)),
        4 => checked(bytes, |request| command(validate::delete(request), Kind::Delete)),
        5 => checked(bytes, |request: v1::GetRequest| question(validate::get(&request))),
        6 => checked(bytes, |request: v1::ListRequest| question(validate::list(&request))),
        7 => checked(bytes, |request| question(validate::watch(request))),
        8 => checked(bytes, |request| question(validate::history(request))),
        9 => checked(bytes, |request| question(validate::add_member(request))),
        _ => checked(bytes, |request: v1::RemoveMemberRequest| question(validate::remove_member(&request))),
    }
}

fn checked<M: Message + Default>(bytes: &[u8], check: impl FnOnce(M) -> Result<Asked, Status>) -> Option<Result<Asked, Status>> {
    M::decode(bytes).ok().map(check)
}

fn command<T>(checked: Result<T, Status>, kind: impl FnOnce(T) -> Kind) -> Result<Asked, Status> {
    checked.map(|checked| Asked::Command(Box::new(validate::command(kind(checked)))))
}

fn question<T>(checked: Result<T, Status>) -> Result<Asked, Status> {
    checked.map(|_| Asked::Question)
}

/// The page that a token asks for, as a token: of the first list of replica 7.
pub fn page_token(text: &str) -> Result<String, Status> {
    let query = Query { scope: Scope::All, selector: Selector::default() };
    let pages = Pages::with(7 << 64, Arc::new(Listed { query: query.clone(), leases: Vec::new(), revision: 3, now: LeaseTime(0) }));
    let (id, _, offset) = pages.resume(text, &query, None)?;
    Ok(Pages::token(id, offset))
}

/// How long a call with this `grpc-timeout` may take.
#[must_use]
pub fn patience(timeout: &str) -> Option<Duration> {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-timeout", timeout.parse().ok()?);
    Some(super::patience(&metadata))
}
