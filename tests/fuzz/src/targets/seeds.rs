//! Valid inputs, made by what writes them in the product; `main --seeds` puts them into the corpora. From then on the files count: what was written once
//! must be readable for ever.

use std::fs;

use prost::Message;
use tenure_lease::{Entry, LeaseTime, RaftLeaderId};
use tenure_proto::{
    peer::v1::{self as peer, command::Kind},
    v1,
};
use tenure_server::{
    disk::{Disk as _, Expected, LogPosition, SavedVote, SystemDisk},
    fuzzing as door,
};

use tonic_types::StatusExt as _;

use super::{Target, log, table};

const RAFT_LEADER: RaftLeaderId = RaftLeaderId { term: 1, node: 1 };

type Named = Vec<(&'static str, Vec<u8>)>;

/// Of a target; those of texts are files that were written by hand.
#[must_use]
pub fn of(target: &Target) -> Named {
    match target.name {
        "requests" => requests(),
        "peers" => peers(),
        "entries" => vec![("some-of-everything", chosen(0, &some_of_everything())), ("tick", chosen(0, &entry(9_000, &[])))],
        "leases" => vec![("a-busy-minute", (0..200_u8).map(|n| n.wrapping_mul(37)).collect()), ("two-rounds", vec![3, 1, 8, 0, 0, 0, 0, 0, 0, 14, 5, 0, 0])],
        "log" => logs(),
        "snapshot" => snapshots(),
        "table" => vec![("some-of-everything", table::bytes(&table::furnished())), ("empty", table::bytes(&tenure_lease::LeaseTable::new()))],
        "answers" => answers(),
        "files" => vec![
            ("identity", [&[0][..], br#"{"format":1,"node_id":3,"replica_id":"6f1c9a4e-1c1b-4f0e-9d55-0123456789ab","cluster_id":"c"}"#].concat()),
            ("hold", [&[1, 1][..], &[10, 1, b'a', 16, 7, 24, 5, 32, 9, 40, 2, 48, 8]].concat()),
        ],
        _ => Vec::new(),
    }
}

/// Entries after which a table has some of everything in it.
#[must_use]
pub fn entries() -> Vec<Entry> {
    [some_of_everything(), entry(2_000, &[keep(7)])].iter().map(|bytes| door::entry(bytes).expect("what was written can be read")).collect()
}

fn entry(stamp: u64, commands: &[Kind]) -> Vec<u8> {
    let commands: Vec<_> = commands.iter().map(|kind| peer::Command { kind: Some(kind.clone()) }).collect();
    door::entry_bytes(RAFT_LEADER, LeaseTime(stamp), &commands)
}

const START: u64 = 1_000_000;

fn some_of_everything() -> Vec<u8> {
    let bootstrap = peer::Bootstrap { counter_start: START, leases_per_namespace: 6, waiters_per_lease: 3 };
    entry(
        1_000,
        &[
            Kind::Bootstrap(bootstrap),
            acquire("job", "worker-1", "r-1", 0),
            acquire("job", "worker-2", "r-2", 30_000),
            acquire("job", "worker-3", "r-3", 60_000),
            acquire("other", "worker-1", "r-4", 0),
            acquire("gone", "worker-1", "r-5", 0),
            Kind::Delete(peer::Delete { key: key("gone"), if_revision: 0, force: true }),
            Kind::Release(peer::Release { key: key("late"), holder: "worker-9".into(), request_id: "r-9".into(), ..Default::default() }),
            Kind::Renew(peer::Renew { tokens: vec![START + 1, 5], durations_ms: vec![0, 2_000], keys: Vec::new() }),
            Kind::Detach(peer::Detach { key: key("job"), session: 7, waiter: START + 3 }),
            Kind::Put(peer::Put {
                key: key("put"),
                set_labels: true,
                labels: [("app".into(), "web".into())].into(),
                set_annotations: true,
                annotations: [("example.com/note".into(), "any text".into())].into(),
                set_retention: true,
                ..Default::default()
            }),
            keep(8),
        ],
    )
}

fn key(name: &str) -> Option<peer::Key> {
    Some(peer::Key { namespace: "default".into(), name: name.into() })
}

fn keep(session: u64) -> Kind {
    Kind::KeepSession(peer::KeepSession { session, close: false })
}

fn acquire(name: &str, holder: &str, request_id: &str, wait_ms: u64) -> Kind {
    Kind::Acquire(peer::Acquire {
        key: key(name),
        holder: holder.into(),
        duration_ms: 15_000,
        request_id: request_id.into(),
        wait_ms,
        holder_data: "10.0.0.1:80".into(),
        session: if wait_ms == 0 { 0 } else { 7 },
        retention_ms: 3_600_000,
        labels: [("app".into(), "web".into())].into(),
        ..Default::default()
    })
}

/// Behind the byte that chooses it.
fn chosen(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn requests() -> Named {
    let (namespace, name, holder) = ("default".to_owned(), "job".to_owned(), "worker-1".to_owned());
    let acquire = v1::AcquireRequest {
        namespace: namespace.clone(),
        name: name.clone(),
        holder: holder.clone(),
        duration: seconds(15),
        request_id: "r-1".into(),
        wait_for: seconds(30),
        reclaim: true,
        holder_data: "10.0.0.1:80".into(),
        retention: seconds(3_600),
        labels: [("app".into(), "web".into())].into(),
        annotations: [("example.com/note".into(), "any text".into())].into(),
    };
    let item = v1::RenewItem { token: START + 1, duration: seconds(20), namespace: namespace.clone(), name: name.clone() };
    let put = v1::PutRequest {
        namespace: namespace.clone(),
        name: name.clone(),
        labels: [("app".into(), "web".into())].into(),
        retention: seconds(60),
        update_mask: Some(prost_types::FieldMask { paths: vec!["labels".into(), "retention".into()] }),
        if_revision: START + 1,
        ..Default::default()
    };
    let list = v1::ListRequest { namespace: namespace.clone(), label_selector: "app in (web,db),!old".into(), page_size: 10, ..Default::default() };
    let watch = v1::WatchRequest { all_namespaces: true, label_selector: "app=web".into(), send_initial: true, include_renewals: true, ..Default::default() };
    vec![
        ("acquire", chosen(0, &acquire.encode_to_vec())),
        ("renew", chosen(1, &v1::RenewRequest { items: vec![item, v1::RenewItem { token: 5, ..Default::default() }] }.encode_to_vec())),
        ("release", chosen(2, &v1::ReleaseRequest { name: name.clone(), token: START + 1, ..Default::default() }.encode_to_vec())),
        ("release-by-request", chosen(2, &v1::ReleaseRequest { name: name.clone(), holder, request_id: "r-1".into(), ..Default::default() }.encode_to_vec())),
        ("put", chosen(3, &put.encode_to_vec())),
        ("delete", chosen(4, &v1::DeleteRequest { namespace: namespace.clone(), name: name.clone(), force: true, ..Default::default() }.encode_to_vec())),
        ("get", chosen(5, &v1::GetRequest { namespace: namespace.clone(), name: name.clone(), min_revision: 7, stale: true }.encode_to_vec())),
        ("list", chosen(6, &list.encode_to_vec())),
        ("watch", chosen(7, &watch.encode_to_vec())),
        (
            "watch-one",
            chosen(7, &v1::WatchRequest { namespace: namespace.clone(), name: name.clone(), after_revision: 9, ..Default::default() }.encode_to_vec()),
        ),
        ("history", chosen(8, &v1::HistoryRequest { namespace, name, limit: 20 }.encode_to_vec())),
        ("add-member", chosen(9, &v1::AddMemberRequest { node_id: 4, peer_addr: "10.0.0.4:7401".into(), learner_only: true }.encode_to_vec())),
        ("remove-member", chosen(10, &v1::RemoveMemberRequest { node_id: 4 }.encode_to_vec())),
    ]
}

fn peers() -> Named {
    let log_id = |index| peer::LogId { term: 3, node: 2, index };
    let vote = Some(peer::Vote { term: 3, node: 2, committed: true });
    let node = |id: u64| peer::MemberNode { id, peer_addr: "10.0.0.1:7401".into(), replica_id: "6f1c9a4e".into(), ..Default::default() };
    let membership =
        peer::Membership { configs: vec![peer::NodeSet { ids: vec![1, 2] }, peer::NodeSet { ids: vec![1, 2, 3] }], nodes: (1..=3).map(node).collect() };
    let payloads = [
        peer::log_entry::Payload::Blank(true),
        peer::log_entry::Payload::Normal(entry(1, &[]).into()),
        peer::log_entry::Payload::Membership(membership.clone()),
    ];
    let entries: Vec<_> =
        payloads.into_iter().zip(5..).map(|(payload, index)| peer::LogEntry { log_id: Some(log_id(index)), payload: Some(payload) }).collect();
    let append = peer::AppendRequest { vote, prev: Some(log_id(4)), leader_commit: Some(log_id(4)), entries: entries.clone() };
    let answered = |result| peer::AppendResponse { result: Some(result) }.encode_to_vec();
    let meta = peer::SnapshotMeta { last_log_id: Some(log_id(9)), membership_log_id: Some(log_id(2)), membership: Some(membership.clone()) };
    let job = |(id, kind): (u64, Kind)| peer::Job { id, command: Some(peer::Command { kind: Some(kind) }) };
    let jobs = [acquire("job", "worker-4", "r-8", 1_000), keep(7), Kind::Renew(peer::Renew { tokens: vec![START + 1], ..Default::default() })];
    let outcome = peer::Outcome { kind: Some(peer::outcome::Kind::Renewed(peer::RenewOutcome { durations_ms: vec![0, 5], lost: vec![v1::Lost::default()] })) };
    let result = peer::JobResult { id: 1, result: Some(peer::job_result::Result::Outcome(outcome)) };
    vec![
        ("append", chosen(0, &append.encode_to_vec())),
        ("appended", chosen(1, &answered(peer::append_response::Result::Appended(peer::Appended { last: Some(log_id(7)) })))),
        ("conflict", chosen(1, &answered(peer::append_response::Result::Conflict(log_id(3))))),
        ("vote", chosen(2, &peer::VoteRequest { vote, last_log_id: Some(log_id(7)), leadership_transfer: true }.encode_to_vec())),
        ("voted", chosen(3, &peer::VoteResponse { vote, last_log_id: None, granted: true }.encode_to_vec())),
        ("transfer", chosen(4, &peer::TransferLeaderRequest { from: vote, to: 3, last_log_id: Some(log_id(7)) }.encode_to_vec())),
        ("snapshot-meta", chosen(5, &meta.encode_to_vec())),
        ("entry", chosen(6, &entries[1].encode_to_vec())),
        ("membership", chosen(7, &membership.encode_to_vec())),
        ("forward", chosen(8, &peer::ForwardRequest { jobs: (1..).zip(jobs).map(job).collect() }.encode_to_vec())),
        ("forwarded", chosen(9, &peer::ForwardResponse { results: vec![result] }.encode_to_vec())),
    ]
}

fn answers() -> Named {
    let table = table::furnished();
    let lease = table.list(&tenure_lease::Scope::All, &tenure_lease::Selector::default()).into_iter().find(|lease| &*lease.name == "job").expect("is there");
    let outcome = door::outcome(tenure_lease::Outcome::Denied { lease }, table.clock());
    let Some(peer::outcome::Kind::Denied(mut lease)) = outcome.kind else { unreachable!("as it was made") };
    let ended = v1::Hold { holder: "worker-0".into(), token: 9, end_reason: 2, end_revision: 10, ..Default::default() };
    lease.recent_holds = vec![ended, v1::Hold { acquire_time: lease.acquire_time, ..Default::default() }];
    let event = |revision| v1::Event { revision, r#type: 2, reason: 1, lease: Some(v1::Lease { token: revision, ..lease.clone() }), ..Default::default() };
    let refusal = tonic_types::ErrorDetails::with_error_info("OVERLOADED", "tenure.dev", [("limit".to_owned(), "5".to_owned())]);
    let refusal = tonic::Status::with_error_details(tonic::Code::ResourceExhausted, "full", refusal);
    vec![
        ("leases", chosen(0, &v1::ListResponse { leases: vec![lease.clone()], ..Default::default() }.encode_to_vec())),
        ("events", chosen(1, &v1::WatchResponse { events: vec![event(5), event(4), event(9)], bookmark: 9, header: None }.encode_to_vec())),
        ("refusal", chosen(2 + 4 * 8, refusal.details())),
    ]
}

fn snapshots() -> Named {
    let head = peer::SnapshotMeta { last_log_id: Some(peer::LogId { term: 3, node: 2, index: 9 }), ..Default::default() }.encode_to_vec();
    let length = u16::try_from(head.len()).expect("a short one").to_be_bytes();
    let parts = [&length[..], &head, &table::bytes(&table::furnished())].concat();
    vec![("parts", chosen(2, &parts)), ("file", chosen(0, &super::snapshot::sealed(&parts)))]
}

fn logs() -> Named {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("raft-log");
    let mut opened = SystemDisk.open_log(&log, Expected::default()).expect("a new log").log;
    let done = || -> tenure_server::disk::Flushed { Box::new(|result| result.expect("flushed")) };
    opened.save_vote(SavedVote { term: 1, node: 2, committed: true }).expect("written");
    let at = |index| LogPosition { term: 1, node: 2, index };
    // A record is made of bytes only; those of an entry are a length, the format, the kind, and the entry.
    let record = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 2).expect("a short one").to_be_bytes();
        door::log_payload(&[&length[..], &[1, kind], body].concat()).expect("as it is written")
    };
    let membership = peer::Membership { configs: vec![peer::NodeSet { ids: vec![2] }], nodes: vec![peer::MemberNode { id: 2, ..Default::default() }] };
    let records = [record(2, &membership.encode_to_vec()), record(0, &[]), record(1, &some_of_everything()), record(1, &entry(2_000, &[keep(7)]))];
    opened.append(&mut records.into_iter().zip(0..).map(|(record, index)| (at(index), record))).expect("written");
    opened.save_committed(at(2)).expect("written");
    opened.truncate(3).expect("written");
    opened.purge(at(0)).expect("written");
    opened.flush(done()).expect("flushed");
    drop(opened);
    let files: Vec<_> = fs::read_dir(&log).expect("readable").map(|file| file.expect("readable").path()).filter(|path| path.extension().is_some()).collect();
    assert_eq!(files.len(), 1, "one file: {files:?}");
    let file = fs::read(&files[0]).expect("readable");
    let mut parts = Vec::new();
    let mut from = 0;
    for length in door::log_records(&file) {
        let record = &file[from..from + length - door::LOG_RECORD_SUM];
        parts.extend(u16::try_from(record.len()).expect("a short one").to_be_bytes());
        parts.extend(record);
        from += length;
    }
    assert_eq!(from, file.len(), "good records to the end");
    let whole = log::sealed(&parts);
    assert_eq!(whole, [(0, file.clone())], "as raft-log writes it");
    vec![("file", chosen(0, &file)), ("records", chosen(2, &parts))]
}
