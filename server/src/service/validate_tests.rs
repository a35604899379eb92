//! A table of bad requests: each names the field, and says all that is wrong at once.

use tenure_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::validate;
use crate::{config::ServiceLimits, watch::Start};

fn duration(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

fn good() -> v1::AcquireRequest {
    v1::AcquireRequest { name: "db".into(), holder: "node-1".into(), duration: duration(15, 0), ..Default::default() }
}

/// The fields that an error names.
fn fields(error: &Status) -> Vec<String> {
    assert_eq!(error.code(), Code::InvalidArgument);
    let found = error.get_details_bad_request().expect("violations");
    assert_eq!(error.get_details_error_info().expect("a reason").reason, "INVALID_REQUEST");
    for violation in &found.field_violations {
        assert!(error.message().contains(&violation.description), "{}", error.message());
    }
    found.field_violations.into_iter().map(|violation| violation.field).collect()
}

fn acquire(change: impl FnOnce(&mut v1::AcquireRequest)) -> Result<tenure_proto::peer::v1::Acquire, Status> {
    let mut request = good();
    change(&mut request);
    validate::acquire(request, &ServiceLimits::default())
}

fn pair(key: &str, value: &str) -> std::collections::HashMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

#[test]
fn acquire_fills_in_its_defaults() {
    let acquire = acquire(|_| {}).unwrap();
    assert_eq!(acquire.key.unwrap().namespace, "default");
    assert_eq!((acquire.duration_ms, acquire.wait_ms, acquire.retention_ms), (15_000, 0, 3_600_000));
}

#[test]
fn every_bad_field_of_an_acquire_is_named() {
    type Change = fn(&mut v1::AcquireRequest);
    let cases: &[(&str, Change)] = &[
        ("namespace", |r| r.namespace = "Not_A_Label".into()),
        ("namespace", |r| r.namespace = "a".repeat(64)),
        ("name", |r| r.name.clear()),
        ("name", |r| r.name = "-db".into()),
        ("name", |r| r.name = "a".repeat(254)),
        ("name", |r| r.name = "a\0b".into()),
        ("holder", |r| r.holder.clear()),
        ("holder", |r| r.holder = "h".repeat(257)),
        ("duration", |r| r.duration = None),
        ("duration", |r| r.duration = duration(0, 0)),
        ("duration", |r| r.duration = duration(0, 999_000_000)),
        ("duration", |r| r.duration = duration(-1, 0)),
        ("duration", |r| r.duration = duration(86_400, 1)),
        ("duration", |r| r.duration = duration(i64::MAX, 999_999_999)),
        ("duration", |r| r.duration = duration(i64::MIN, i32::MIN)),
        ("duration", |r| r.duration = duration(1, -1)),
        ("request_id", |r| r.request_id = "r".repeat(129)),
        ("wait_for", |r| r.wait_for = duration(-1, 0)),
        ("wait_for", |r| r.wait_for = duration(86_401, 0)),
        ("holder_data", |r| r.holder_data = vec![0; 4_097].into()),
        ("retention", |r| r.retention = duration(0, -1)),
        ("retention", |r| r.retention = duration(i64::MAX, 0)),
        ("labels", |r| r.labels = pair("a b", "x")),
        ("labels", |r| r.labels = pair("a", &"x".repeat(64))),
        ("annotations", |r| r.annotations = pair("a", &"x".repeat(17 << 10))),
    ];
    for (n, (field, change)) in cases.iter().enumerate() {
        assert_eq!(fields(&acquire(change).unwrap_err()), [*field], "case {n}");
    }
}

#[test]
fn values_at_their_limits_are_taken() {
    acquire(|r| r.holder = "h".repeat(256)).unwrap();
    acquire(|r| r.request_id = "r".repeat(128)).unwrap();
    acquire(|r| r.holder_data = vec![0; 4_096].into()).unwrap();
    assert_eq!(acquire(|r| r.duration = duration(1, 0)).unwrap().duration_ms, 1_000);
    assert_eq!(acquire(|r| r.duration = duration(86_400, 0)).unwrap().duration_ms, 86_400_000);
    assert_eq!(acquire(|r| r.duration = duration(1, 1)).unwrap().duration_ms, 1_001, "rounded up: never shorter than the holder believes");
    assert_eq!(acquire(|r| r.wait_for = duration(86_400, 0)).unwrap().wait_ms, 86_400_000);
}

#[test]
fn all_violations_come_at_once() {
    let error = validate::acquire(v1::AcquireRequest::default(), &ServiceLimits::default()).unwrap_err();
    assert_eq!(fields(&error), ["name", "holder", "duration"]);
}

#[test]
fn missing_duration_is_explained_by_example() {
    assert!(acquire(|r| r.duration = None).unwrap_err().message().contains("\"15s\""));
}

fn item(token: u64) -> v1::RenewItem {
    v1::RenewItem { token, ..Default::default() }
}

#[test]
fn bad_renewals_are_named_by_their_place() {
    let limits = ServiceLimits::default();
    let items = vec![
        item(1),
        item(0),
        v1::RenewItem { duration: duration(0, 1), ..item(2) },
        v1::RenewItem { namespace: "x".into(), ..item(3) },
        v1::RenewItem { name: "Bad".into(), ..item(4) },
    ];
    let error = validate::renew(v1::RenewRequest { items }, &limits).unwrap_err();
    assert_eq!(fields(&error), ["items[1].token", "items[2].duration", "items[3].name", "items[4].name"]);
    let error = validate::renew(v1::RenewRequest { items: vec![item(1); 10_001] }, &limits).unwrap_err();
    assert_eq!(fields(&error), ["items"]);
    let error = validate::renew(v1::RenewRequest { items: vec![item(0); 10_000] }, &limits).unwrap_err();
    assert_eq!(fields(&error).len(), 16, "the rest would not fit into a header");
}

#[test]
fn refusal_of_long_things_fits_into_headers_that_every_client_takes() {
    let long = |c: &str| c.repeat(100_000);
    let error = acquire(|request| {
        request.namespace = long("N");
        request.name = long("é");
        request.labels = pair(&long("\u{1}"), &long("b"));
        request.annotations = pair(&long("/"), "");
    })
    .expect_err("nothing of it is right");
    let named = error.get_details_bad_request().expect("violations").field_violations;
    assert_eq!(named.iter().map(|violation| &violation.field).take(2).collect::<Vec<_>>(), ["namespace", "name"]);
    let mut headers = http::HeaderMap::new();
    error.add_header(&mut headers).expect("can be sent");
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(size < 8_000, "{size}");
}

#[test]
fn renewals_are_columns_as_short_as_can_be() {
    let limits = ServiceLimits::default();
    let plain = validate::renew(v1::RenewRequest { items: vec![item(1), item(2)] }, &limits).unwrap();
    assert_eq!((plain.tokens, plain.durations_ms, plain.keys.len()), (vec![1, 2], vec![], 0));
    let items = vec![item(1), v1::RenewItem { duration: duration(2, 0), name: "db".into(), ..item(2) }];
    let full = validate::renew(v1::RenewRequest { items }, &limits).unwrap();
    assert_eq!(full.durations_ms, [0, 2_000]);
    assert_eq!(full.keys.iter().map(|key| (key.namespace.as_str(), key.name.as_str())).collect::<Vec<_>>(), [("", ""), ("default", "db")]);
}

#[test]
fn release_names_exactly_one_hold() {
    let release = |token, request_id: &str, holder: &str| {
        validate::release(v1::ReleaseRequest { name: "db".into(), token, request_id: request_id.into(), holder: holder.into(), ..Default::default() })
    };
    release(5, "", "").unwrap();
    release(0, "r", "h").unwrap();
    assert_eq!(fields(&release(0, "", "").unwrap_err()), ["token"]);
    assert_eq!(fields(&release(0, "r", "").unwrap_err()), ["holder"]);
    assert_eq!(fields(&release(5, "r", "h").unwrap_err()), ["request_id"]);
}

#[test]
fn put_sets_what_its_mask_says_and_everything_without_one() {
    let put = |paths: &[&str]| {
        let update_mask = Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        validate::put(
            v1::PutRequest { name: "db".into(), labels: pair("a", "b"), retention: duration(5, 0), update_mask, ..Default::default() },
            &ServiceLimits::default(),
        )
    };
    let all = put(&[]).unwrap();
    assert!(all.set_labels && all.set_annotations && all.set_retention);
    assert_eq!(all.retention_ms, Some(5_000));
    let labels = put(&["labels"]).unwrap();
    assert_eq!((labels.set_labels, labels.set_annotations, labels.set_retention, labels.retention_ms), (true, false, false, None));
    assert_eq!(fields(&put(&["labels", "holder"]).unwrap_err()), ["update_mask"]);
}

#[test]
fn put_cannot_ask_for_absence_and_a_revision() {
    let error =
        validate::put(v1::PutRequest { name: "db".into(), if_revision: 3, must_not_exist: true, ..Default::default() }, &ServiceLimits::default()).unwrap_err();
    assert_eq!(fields(&error), ["if_revision"]);
}

#[test]
fn lists_and_histories_have_sizes() {
    let list = |page_size, label_selector: &str| validate::list(&v1::ListRequest { page_size, label_selector: label_selector.into(), ..Default::default() });
    assert_eq!(list(0, "").unwrap().1, 1_000);
    assert_eq!(list(10_000, "app=web").unwrap().1, 10_000);
    assert_eq!(fields(&list(10_001, "app in (").unwrap_err()), ["label_selector", "page_size"]);
    let history = |limit| validate::history(v1::HistoryRequest { name: "db".into(), limit, ..Default::default() });
    assert_eq!(history(0).unwrap().1, 100);
    assert_eq!(fields(&history(1_001).unwrap_err()), ["limit"]);
}

#[test]
fn watch_starts_in_one_way() {
    let watch = |after_revision, send_initial| validate::watch(v1::WatchRequest { after_revision, send_initial, ..Default::default() }).map(|(_, start)| start);
    assert_eq!(watch(0, false).unwrap(), Start::Now);
    assert_eq!(watch(7, false).unwrap(), Start::After(7));
    assert_eq!(watch(0, true).unwrap(), Start::Initial);
    assert_eq!(fields(&watch(7, true).unwrap_err()), ["after_revision"]);
    let everywhere = v1::WatchRequest { all_namespaces: true, name: "db".into(), label_selector: "!!".into(), ..Default::default() };
    assert_eq!(fields(&validate::watch(everywhere).unwrap_err()), ["name", "label_selector"]);
}

#[test]
fn members_are_named_by_number_and_address() {
    let add = |node_id, peer_addr: &str| validate::add_member(v1::AddMemberRequest { node_id, peer_addr: peer_addr.into(), learner_only: false });
    add(4, "10.0.0.4:7401").unwrap();
    add(4, "[::1]:7401").unwrap();
    for address in ["", "host", "host:", ":7401", "host:0", "host:70000", "a b:1"] {
        assert_eq!(fields(&add(0, address).unwrap_err()), ["node_id", "peer_addr"], "{address:?}");
    }
    assert_eq!(fields(&validate::remove_member(&v1::RemoveMemberRequest::default()).unwrap_err()), ["node_id"]);
}

#[test]
fn durations_out_of_range_are_told_as_people_write_them() {
    let told = |seconds, nanos| acquire(|r| r.duration = duration(seconds, nanos)).unwrap_err().message().to_owned();
    assert_eq!(told(0, 10_000_000), "duration is 10ms; it must be 1s to 24h");
    assert_eq!(told(172_800, 0), "duration is 48h; it must be 1s to 24h");
    assert_eq!(told(90_001, 0), "duration is 90001s; it must be 1s to 24h");
    let error = acquire(|r| r.wait_for = duration(8_639_999, 999_970_579)).unwrap_err();
    assert_eq!(error.message(), "wait_for is 2400h; it must be 0s to 24h");
}
