//! Requests as the wire has them in, commands and questions that hold to every rule out. Every field of every request is looked at here; the rules of
//! what becomes a command are those of the command (`write/rules.rs`).

use std::sync::Arc;

use tenure_lease::{LeaseKey, Scope, Selector, quoted};
use tenure_proto::{
    peer::v1::{self as peer, Command, command::Kind},
    v1,
};
use tonic::Status;

use super::fields::{self, Violations};
use crate::{
    config::ServiceLimits,
    watch::{Filter, Start},
    write::rules,
};

/// Of a lease that Acquire creates.
const DEFAULT_RETENTION_MS: u64 = 3_600_000;
const PAGE_SIZE: (u32, u32) = (1_000, 10_000);
const HISTORY_LIMIT: (u32, u32) = (100, 1_000);

/// `peer::Acquire` without what the replica adds: session and, if it is empty, request id.
pub(super) fn acquire(request: v1::AcquireRequest, limits: &ServiceLimits) -> Result<peer::Acquire, Status> {
    let mut wrong = Violations::default();
    let acquire = peer::Acquire {
        key: Some(fields::key(request.namespace, request.name)),
        holder: request.holder,
        duration_ms: wrong.duration_ms("duration", request.duration, limits),
        request_id: request.request_id,
        wait_ms: wrong.ms("wait_for", request.wait_for).unwrap_or(0),
        reclaim: request.reclaim,
        holder_data: request.holder_data,
        session: 0,
        retention_ms: wrong.ms("retention", request.retention).unwrap_or(DEFAULT_RETENTION_MS),
        labels: request.labels,
        annotations: request.annotations,
    };
    rules::acquire(&mut wrong, &acquire, limits);
    wrong.none(acquire)
}

/// In columns, as short as can be.
pub(super) fn renew(request: v1::RenewRequest, limits: &ServiceLimits) -> Result<peer::Renew, Status> {
    let mut wrong = Violations::default();
    let n = request.items.len();
    let mut renew = peer::Renew { tokens: Vec::with_capacity(n), durations_ms: Vec::new(), keys: Vec::new() };
    for (i, item) in request.items.into_iter().enumerate() {
        renew.tokens.push(item.token);
        if item.duration.is_some() {
            let field = format!("items[{i}].duration");
            renew.durations_ms.resize(n, 0);
            renew.durations_ms[i] = wrong.duration_ms(&field, item.duration, limits);
            if renew.durations_ms[i] == 0 {
                // In a column that means: as before.
                wrong.duration(field, 0, limits);
            }
        }
        if !item.name.is_empty() {
            renew.keys.resize(n, peer::Key::default());
            renew.keys[i] = fields::key(item.namespace, item.name);
        } else if !item.namespace.is_empty() {
            renew.keys.resize(n, peer::Key::default());
            renew.keys[i].namespace = item.namespace;
        }
    }
    rules::renew(&mut wrong, &renew, limits);
    wrong.none(renew)
}

pub(super) fn release(request: v1::ReleaseRequest) -> Result<peer::Release, Status> {
    let mut wrong = Violations::default();
    let v1::ReleaseRequest { namespace, name, token, request_id, holder } = request;
    let release = peer::Release { key: Some(fields::key(namespace, name)), token, holder, request_id, undelivered: false };
    rules::release(&mut wrong, &release);
    wrong.none(release)
}

/// What Put calls the fields that it can set.
const PUT_PATHS: [&str; 3] = ["labels", "annotations", "retention"];

/// `peer::Put`; if it declares a hold without a request id, the replica adds one.
pub(super) fn put(request: v1::PutRequest, limits: &ServiceLimits) -> Result<peer::Put, Status> {
    let mut wrong = Violations::default();
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    for path in paths.iter().filter(|path| !PUT_PATHS.contains(&path.as_str())) {
        wrong.add("update_mask", format!("{} cannot be set; the paths are labels, annotations and retention", quoted(path)));
    }
    let sets = |path: &str| paths.is_empty() || paths.iter().any(|given| given == path);
    let mut put = peer::Put {
        key: Some(fields::key(request.namespace, request.name)),
        set_labels: sets("labels"),
        set_annotations: sets("annotations"),
        set_retention: sets("retention"),
        labels: request.labels,
        annotations: request.annotations,
        retention_ms: wrong.ms("retention", request.retention),
        if_revision: request.if_revision,
        must_not_exist: request.must_not_exist,
        hold: request.hold.map(|hold| peer::PutHold {
            holder: hold.holder,
            duration_ms: wrong.duration_ms("hold.duration", hold.duration, limits),
            request_id: hold.request_id,
            holder_data: hold.holder_data.into(),
        }),
    };
    rules::put(&mut wrong, &put, limits);
    // What is not set is checked all the same, and not sent on.
    if !put.set_labels {
        put.labels.clear();
    }
    if !put.set_annotations {
        put.annotations.clear();
    }
    put.retention_ms = put.retention_ms.filter(|_| put.set_retention);
    wrong.none(put)
}

pub(super) fn delete(request: v1::DeleteRequest) -> Result<peer::Delete, Status> {
    let mut wrong = Violations::default();
    let delete = peer::Delete { key: Some(fields::key(request.namespace, request.name)), if_revision: request.if_revision, force: request.force };
    rules::delete(&mut wrong, &delete);
    wrong.none(delete)
}

pub(super) fn get(request: &v1::GetRequest) -> Result<LeaseKey, Status> {
    let mut wrong = Violations::default();
    let key = fields::key(request.namespace.clone(), request.name.clone());
    wrong.key("", Some(&key));
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
        let key = fields::key(String::new(), request.name);
        wrong.key("", Some(&key));
        Some(Arc::from(key.name))
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
    let key = fields::key(request.namespace, request.name);
    wrong.key("", Some(&key));
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
    if all_namespaces {
        return Scope::All;
    }
    let namespace = fields::namespace(namespace);
    wrong.namespace("namespace", &namespace);
    Scope::Namespace(namespace.into())
}

pub(super) fn trusted(key: peer::Key) -> LeaseKey {
    LeaseKey::trusted(key.namespace, key.name)
}

pub(super) fn command(kind: Kind) -> Command {
    Command { kind: Some(kind) }
}
