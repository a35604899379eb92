//! Requests as the wire has them in, commands and questions that hold to every rule out. Every field of every request is looked at here and nowhere else.

use std::sync::Arc;

use tenure_lease::{LeaseKey, Scope, Selector, quoted};
use tenure_proto::{
    peer::v1::{self as peer, Command, command::Kind},
    v1,
};
use tonic::Status;

use super::fields::Violations;
use crate::{
    config::ServiceLimits,
    watch::{Filter, Start},
};

/// Of a lease that Acquire creates.
const DEFAULT_RETENTION_MS: u64 = 3_600_000;
const RENEW_ITEMS_MAX: usize = 10_000;
const PAGE_SIZE: (u32, u32) = (1_000, 10_000);
const HISTORY_LIMIT: (u32, u32) = (100, 1_000);

/// `peer::Acquire` without what the replica adds: session and, if it is empty, request id.
pub(super) fn acquire(request: v1::AcquireRequest, limits: &ServiceLimits) -> Result<peer::Acquire, Status> {
    let mut wrong = Violations::default();
    let key = wrong.key(request.namespace, request.name);
    wrong.holder("", &request.holder);
    let duration_ms = wrong.duration("duration", request.duration, limits);
    wrong.request_id("", &request.request_id);
    let wait_ms = wrong.wait_for(request.wait_for);
    wrong.holder_data("", &request.holder_data);
    let retention_ms = wrong.retention(request.retention).unwrap_or(DEFAULT_RETENTION_MS);
    wrong.labels(&request.labels);
    wrong.annotations(&request.annotations);
    wrong.none(peer::Acquire {
        key: Some(key),
        holder: request.holder,
        duration_ms,
        request_id: request.request_id,
        wait_ms,
        reclaim: request.reclaim,
        holder_data: request.holder_data,
        session: 0,
        retention_ms,
        labels: request.labels,
        annotations: request.annotations,
    })
}

/// In columns, as short as can be.
pub(super) fn renew(request: v1::RenewRequest, limits: &ServiceLimits) -> Result<peer::Renew, Status> {
    let mut wrong = Violations::default();
    let n = request.items.len();
    if n > RENEW_ITEMS_MAX {
        wrong.add("items", format!("{n} items; a message may renew at most {RENEW_ITEMS_MAX}: send more messages"));
        return wrong.none(peer::Renew::default());
    }
    let mut renew = peer::Renew { tokens: Vec::with_capacity(n), durations_ms: Vec::new(), keys: Vec::new() };
    for (i, item) in request.items.into_iter().enumerate() {
        if item.token == 0 {
            wrong.add(format!("items[{i}].token"), "token must be given: the one that Acquire answered");
        }
        renew.tokens.push(item.token);
        if item.duration.is_some() {
            renew.durations_ms.resize(n, 0);
            renew.durations_ms[i] = wrong.duration(&format!("items[{i}].duration"), item.duration, limits);
        }
        if !item.name.is_empty() {
            renew.keys.resize(n, peer::Key::default());
            renew.keys[i] = wrong.key_at(&format!("items[{i}]."), item.namespace, item.name);
        } else if !item.namespace.is_empty() {
            wrong.add(format!("items[{i}].name"), "name must go with namespace: both are checked, or neither");
        }
    }
    wrong.none(renew)
}

pub(super) fn release(request: v1::ReleaseRequest) -> Result<peer::Release, Status> {
    let mut wrong = Violations::default();
    let key = wrong.key(request.namespace, request.name);
    match (request.token, request.request_id.is_empty()) {
        (0, true) => wrong.add("token", "token must be given, or request_id and holder when the token never arrived"),
        (0, false) => {
            wrong.holder("", &request.holder);
            wrong.request_id("", &request.request_id);
        }
        (_, true) => {}
        (_, false) => wrong.add("request_id", "request_id must be empty when token is given: a release names one hold"),
    }
    wrong.none(peer::Release { key: Some(key), token: request.token, holder: request.holder, request_id: request.request_id, undelivered: false })
}

/// What Put calls the fields that it can set.
const PUT_PATHS: [&str; 3] = ["labels", "annotations", "retention"];

/// `peer::Put`; if it declares a hold without a request id, the replica adds one.
pub(super) fn put(request: v1::PutRequest, limits: &ServiceLimits) -> Result<peer::Put, Status> {
    let mut wrong = Violations::default();
    let key = wrong.key(request.namespace, request.name);
    wrong.labels(&request.labels);
    wrong.annotations(&request.annotations);
    let retention_ms = wrong.retention(request.retention);
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    for path in paths.iter().filter(|path| !PUT_PATHS.contains(&path.as_str())) {
        wrong.add("update_mask", format!("{} cannot be set; the paths are labels, annotations and retention", quoted(path)));
    }
    let sets = |path: &str| paths.is_empty() || paths.iter().any(|given| given == path);
    if request.must_not_exist && request.if_revision != 0 {
        wrong.add("if_revision", "if_revision must be 0 with must_not_exist: what is not there has no revision");
    }
    let hold = request.hold.map(|hold| declared_hold(&mut wrong, hold, limits));
    let (set_labels, set_annotations, set_retention) = (sets("labels"), sets("annotations"), sets("retention"));
    wrong.none(peer::Put {
        key: Some(key),
        set_labels,
        set_annotations,
        set_retention,
        labels: if set_labels { request.labels } else { Default::default() },
        annotations: if set_annotations { request.annotations } else { Default::default() },
        retention_ms: retention_ms.filter(|_| set_retention),
        if_revision: request.if_revision,
        must_not_exist: request.must_not_exist,
        hold,
    })
}

fn declared_hold(wrong: &mut Violations, hold: v1::DeclaredHold, limits: &ServiceLimits) -> peer::PutHold {
    wrong.holder("hold.", &hold.holder);
    let duration_ms = wrong.duration("hold.duration", hold.duration, limits);
    wrong.holder_data("hold.", &hold.holder_data);
    wrong.request_id("hold.", &hold.request_id);
    peer::PutHold { holder: hold.holder, duration_ms, request_id: hold.request_id, holder_data: hold.holder_data.into() }
}

pub(super) fn delete(request: v1::DeleteRequest) -> Result<peer::Delete, Status> {
    let mut wrong = Violations::default();
    let key = wrong.key(request.namespace, request.name);
    wrong.none(peer::Delete { key: Some(key), if_revision: request.if_revision, force: request.force })
}

pub(super) fn get(request: &v1::GetRequest) -> Result<LeaseKey, Status> {
    let mut wrong = Violations::default();
    let key = wrong.key(request.namespace.clone(), request.name.clone());
    wrong.none(trusted(key))
}

/// What a list shows; the same for all of its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) scope: Scope,
    pub(super) selector: Selector,
}

pub(super) fn list(request: &v1::ListRequest) -> Result<(Query, usize), Status> {
    let mut wrong = Violations::default();
    let scope = scope(&mut wrong, request.all_namespaces, request.namespace.clone());
    let selector = wrong.selector(&request.label_selector);
    let page_size = wrong.size("page_size", request.page_size, PAGE_SIZE.0, PAGE_SIZE.1);
    wrong.none((Query { scope, selector }, page_size))
}

pub(super) fn watch(request: v1::WatchRequest) -> Result<(Filter, Start), Status> {
    let mut wrong = Violations::default();
    let scope = scope(&mut wrong, request.all_namespaces, request.namespace);
    let name = if request.name.is_empty() {
        None
    } else {
        if request.all_namespaces {
            wrong.add("name", "name must be empty with all_namespaces: a lease is named within its namespace");
        }
        Some(Arc::from(wrong.key(String::new(), request.name).name))
    };
    let selector = wrong.selector(&request.label_selector);
    let start = match (request.after_revision, request.send_initial) {
        (0, true) => Start::Initial,
        (0, false) => Start::Now,
        (after, false) => Start::After(after),
        (after, true) => {
            wrong.add("after_revision", format!("after_revision is {after}; it must be 0 with send_initial, which starts with what is there now"));
            Start::Initial
        }
    };
    wrong.none((Filter { scope, name, selector, renewals: request.include_renewals }, start))
}

pub(super) fn history(request: v1::HistoryRequest) -> Result<(LeaseKey, usize), Status> {
    let mut wrong = Violations::default();
    let key = wrong.key(request.namespace, request.name);
    let limit = wrong.size("limit", request.limit, HISTORY_LIMIT.0, HISTORY_LIMIT.1);
    wrong.none((trusted(key), limit))
}

pub(super) fn add_member(request: v1::AddMemberRequest) -> Result<v1::AddMemberRequest, Status> {
    let mut wrong = Violations::default();
    wrong.node_id(request.node_id);
    wrong.address("peer_addr", &request.peer_addr);
    wrong.none(request)
}

pub(super) fn remove_member(request: &v1::RemoveMemberRequest) -> Result<u64, Status> {
    let mut wrong = Violations::default();
    wrong.node_id(request.node_id);
    wrong.none(request.node_id)
}

fn scope(wrong: &mut Violations, all_namespaces: bool, namespace: String) -> Scope {
    if all_namespaces { Scope::All } else { Scope::Namespace(wrong.namespace("namespace", namespace).into()) }
}

pub(super) fn trusted(key: peer::Key) -> LeaseKey {
    LeaseKey::trusted(key.namespace, key.name)
}

pub(super) fn command(kind: Kind) -> Command {
    Command { kind: Some(kind) }
}
