//! Claims about `codec.rs`, over a table of samples.

use tenure_lease::Lost;

use super::*;

const PROPOSER: RaftLeaderId = RaftLeaderId { term: 7, node: 2 };

fn wire_key() -> Option<peer::Key> {
    Some(peer::Key { namespace: "default".to_owned(), name: "db".to_owned() })
}

fn core_key() -> LeaseKey {
    LeaseKey::trusted("default", "db")
}

fn wire_labels() -> HashMap<String, String> {
    HashMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "front".to_owned())])
}

fn core_labels() -> Arc<Labels> {
    Arc::new(Labels::from([("app".into(), "web".into()), ("tier".into(), "front".into())]))
}

fn through_the_log(kind: peer::command::Kind) -> Result<Command, DecodeError> {
    let command = peer::Command { kind: Some(kind) };
    let bytes = encode_entry(PROPOSER, LeaseTime(42), UnixMillis(1_700_000_000_000), [&command].into_iter(), command.encoded_len());
    let decoded = decode_entry(&bytes);
    assert_eq!(can_be_logged(&command), decoded.is_ok(), "what is let into the log can be read from it, and nothing else is: {command:?}");
    let entry = decoded?;
    assert_eq!(entry.proposer, PROPOSER);
    assert_eq!(entry.stamp, LeaseTime(42));
    assert_eq!(entry.wall, UnixMillis(1_700_000_000_000));
    assert_eq!(entry.commands.len(), 1);
    Ok(entry.commands.into_iter().next().unwrap())
}

/// Commands have no `PartialEq`: their `Debug` says it all.
fn assert_reads(kind: peer::command::Kind, expected: &Command) {
    assert_eq!(format!("{:?}", through_the_log(kind).unwrap()), format!("{expected:?}"));
}

#[test]
fn every_command_survives_the_log() {
    use peer::command::Kind;
    assert_reads(
        Kind::Release(peer::Release { key: wire_key(), token: 9, holder: String::new(), request_id: String::new(), undelivered: false }),
        &Command::Release(Box::new(Release { key: core_key(), by: ReleaseBy::Token(9) })),
    );
    assert_reads(
        Kind::Release(peer::Release { key: wire_key(), token: 9, undelivered: true, ..Default::default() }),
        &Command::Release(Box::new(Release { key: core_key(), by: ReleaseBy::Undelivered(9) })),
    );
    assert_reads(
        Kind::Release(peer::Release { key: wire_key(), token: 0, holder: "a".to_owned(), request_id: "r".to_owned(), undelivered: false }),
        &Command::Release(Box::new(Release { key: core_key(), by: ReleaseBy::Request { holder: "a".into(), request_id: "r".into() } })),
    );
    assert_reads(Kind::KeepSession(peer::KeepSession { session: u64::MAX, close: true }), &Command::KeepSession { session: SessionId(u64::MAX), close: true });
    assert_reads(
        Kind::Acquire(peer::Acquire {
            key: wire_key(),
            holder: "a".to_owned(),
            duration_ms: 15_000,
            request_id: "r".to_owned(),
            wait_ms: 60_000,
            reclaim: true,
            holder_data: Bytes::from_static(b"10.0.0.1"),
            session: 5,
            retention_ms: 3_600_000,
            labels: wire_labels(),
            annotations: wire_labels(),
        }),
        &Command::Acquire(Box::new(Acquire {
            key: core_key(),
            holder: "a".into(),
            duration_ms: 15_000,
            request_id: "r".into(),
            wait_ms: 60_000,
            reclaim: true,
            holder_data: Arc::from(&b"10.0.0.1"[..]),
            session: SessionId(5),
            retention_ms: 3_600_000,
            labels: core_labels(),
            annotations: core_labels(),
        })),
    );
    assert_reads(
        Kind::Detach(peer::Detach { key: wire_key(), session: 5, waiter: 6 }),
        &Command::Detach(Box::new(Detach { key: core_key(), session: SessionId(5), waiter: WaiterId(6) })),
    );
    assert_reads(
        Kind::Delete(peer::Delete { key: wire_key(), if_revision: 3, force: true }),
        &Command::Delete(Box::new(Delete { key: core_key(), if_revision: Some(3), force: true })),
    );
    assert_reads(
        Kind::Bootstrap(peer::Bootstrap { counter_start: 1 << 50, leases_per_namespace: 10, waiters_per_lease: 20 }),
        &Command::Bootstrap { counter_start: 1 << 50, limits: Limits { leases_per_namespace: 10, waiters_per_lease: 20 } },
    );
}

#[test]
fn put_keeps_untouched_fields_apart_from_emptied_ones() {
    use peer::command::Kind;
    let nothing = Put { key: core_key(), labels: None, annotations: None, retention_ms: None, if_revision: None, must_not_exist: false, hold: None };
    assert_reads(Kind::Put(peer::Put { key: wire_key(), ..peer::Put::default() }), &Command::Put(Box::new(nothing.clone())));
    assert_reads(
        Kind::Put(peer::Put { key: wire_key(), set_labels: true, set_annotations: true, set_retention: true, ..peer::Put::default() }),
        &Command::Put(Box::new(Put { labels: Some(Arc::default()), annotations: Some(Arc::default()), retention_ms: Some(None), ..nothing.clone() })),
    );
    let put = peer::Put {
        key: wire_key(),
        set_labels: true,
        labels: wire_labels(),
        set_retention: true,
        retention_ms: Some(5),
        if_revision: 4,
        must_not_exist: true,
        ..peer::Put::default()
    };
    let expected = Put { labels: Some(core_labels()), retention_ms: Some(Some(5)), if_revision: Some(4), must_not_exist: true, ..nothing };
    assert_reads(Kind::Put(put), &Command::Put(Box::new(expected)));
}

#[test]
fn renewals_are_columns_and_short_forms_mean_as_before() {
    use peer::command::Kind;
    let item = |token, duration_ms, key| RenewItem { token, duration_ms, key };
    let bare = peer::Renew { tokens: vec![1, 2], durations_ms: vec![], keys: vec![] };
    assert_reads(Kind::Renew(bare), &Command::Renew(Renew { items: vec![item(1, None, None), item(2, None, None)] }));
    let full = peer::Renew { tokens: vec![1, 2], durations_ms: vec![0, 500], keys: vec![wire_key().unwrap(), peer::Key::default()] };
    let items = vec![item(1, None, Some(Box::new(core_key()))), item(2, Some(500), None)];
    assert_reads(Kind::Renew(full), &Command::Renew(Renew { items }));
    assert_reads(Kind::Renew(peer::Renew::default()), &Command::Renew(Renew { items: vec![] }));
}

#[test]
fn thousand_renewals_take_little_more_than_their_tokens() {
    let command = peer::Command { kind: Some(peer::command::Kind::Renew(peer::Renew { tokens: (0..1_000).collect(), ..peer::Renew::default() })) };
    let bytes = encode_entry(PROPOSER, LeaseTime(1), UnixMillis(1), [&command].into_iter(), 0);
    assert!(bytes.len() < 8_000 + 64, "{}", bytes.len());
}

#[test]
fn renewal_columns_of_different_lengths_are_refused() {
    use peer::command::Kind;
    let durations = peer::Renew { tokens: vec![1, 2], durations_ms: vec![5], keys: vec![] };
    assert!(matches!(through_the_log(Kind::Renew(durations)), Err(DecodeError::Damaged(_))));
    let keys = peer::Renew { tokens: vec![1], durations_ms: vec![], keys: vec![peer::Key::default(), peer::Key::default()] };
    assert!(matches!(through_the_log(Kind::Renew(keys)), Err(DecodeError::Damaged(_))));
}

#[test]
fn command_without_a_lease_is_refused() {
    use peer::command::Kind;
    assert!(matches!(through_the_log(Kind::Acquire(peer::Acquire::default())), Err(DecodeError::Damaged(_))));
    assert!(matches!(through_the_log(Kind::Delete(peer::Delete::default())), Err(DecodeError::Damaged(_))));
}

#[test]
fn cluster_that_begins_beyond_the_last_number_is_refused() {
    use peer::command::Kind;
    let begin = |counter_start| through_the_log(Kind::Bootstrap(peer::Bootstrap { counter_start, ..peer::Bootstrap::default() }));
    assert!(begin(COUNTER_END - 1).is_ok());
    assert!(matches!(begin(COUNTER_END), Err(DecodeError::Damaged(_))));
}

#[test]
fn unknown_kinds_and_versions_are_errors_not_gaps() {
    let mut bytes = peer::Entry { version: VERSION, ..peer::Entry::default() }.encode_to_vec();
    assert!(decode_entry(&bytes).unwrap().commands.is_empty());
    // A command whose only field has number 15, as a later build might write.
    bytes.extend_from_slice(&[0x32, 0x02, 0x7a, 0x00]);
    assert!(matches!(decode_entry(&bytes), Err(DecodeError::UnknownCommand(0))));
    for version in [0, VERSION + 1] {
        let bytes = peer::Entry { version, ..peer::Entry::default() }.encode_to_vec();
        assert!(matches!(decode_entry(&bytes), Err(DecodeError::Version(v)) if v == version));
    }
    assert!(matches!(decode_entry(&[0xff; 9]), Err(DecodeError::Malformed(_))));
}

#[test]
fn no_truncation_of_an_entry_panics() {
    let command = peer::Command { kind: Some(peer::command::Kind::Delete(peer::Delete { key: wire_key(), if_revision: 3, force: true })) };
    let bytes = encode_entry(PROPOSER, LeaseTime(42), UnixMillis(1), [&command, &command].into_iter(), 0);
    for end in 0..bytes.len() {
        drop(decode_entry(&bytes[..end]));
    }
}

fn sample_lease() -> Arc<Lease> {
    Arc::new(Lease {
        namespace: "default".into(),
        name: "db".into(),
        uid: 0x0011_2233_4455_8677_8899_aabb_ccdd_eeff,
        labels: core_labels(),
        annotations: Arc::default(),
        state: LeaseState::Held,
        holder: Some("a".into()),
        last_holder: None,
        holder_data: Arc::from(&b"x"[..]),
        token: 77,
        duration_ms: 15_500,
        deadline: Some(LeaseTime(20_000)),
        unclaimed: false,
        create_time: UnixMillis(1_000),
        acquire_time: Some(UnixMillis(2_500)),
        renew_time: None,
        transitions: 3,
        retention_ms: Some(3_600_000),
        waiters: 1,
        revision: 77,
        renew_revision: 80,
        create_revision: 70,
    })
}

#[test]
fn lease_shows_every_field_and_expires_in_only_when_asked() {
    let wire = lease_to_wire(&sample_lease(), Some(LeaseTime(18_999)));
    assert_eq!(wire.uid, "00112233-4455-8677-8899-aabbccddeeff");
    assert_eq!(wire.labels, wire_labels());
    assert_eq!(wire.state(), v1::lease::State::Held);
    assert_eq!((wire.holder.as_str(), wire.last_holder.as_str()), ("a", ""));
    assert_eq!(wire.duration, Some(prost_types::Duration { seconds: 15, nanos: 500_000_000 }));
    assert_eq!(wire.expires_in, Some(prost_types::Duration { seconds: 1, nanos: 1_000_000 }));
    assert_eq!(wire.acquire_time, Some(prost_types::Timestamp { seconds: 2, nanos: 500_000_000 }));
    assert_eq!(wire.renew_time, None);
    assert_eq!((wire.token, wire.revision, wire.renew_revision, wire.create_revision), (77, 77, 80, 70));
    assert_eq!(lease_to_wire(&sample_lease(), None).expires_in, None);
    let past = lease_to_wire(&sample_lease(), Some(LeaseTime(30_000))).expires_in;
    assert_eq!(past, Some(prost_types::Duration { seconds: 0, nanos: 0 }));
}

#[test]
fn denied_says_how_long_the_holder_has_left() {
    let outcome = outcome_to_wire(Outcome::Denied { lease: sample_lease() }, LeaseTime(19_000));
    let Some(peer::outcome::Kind::Denied(lease)) = outcome.kind else { panic!("{outcome:?}") };
    assert_eq!(lease.expires_in, Some(prost_types::Duration { seconds: 1, nanos: 0 }));
}

#[test]
fn lost_renewals_are_zeros_with_details_in_order() {
    let lost = |token| RenewResult::Lost(Box::new(Lost { reason: EndReason::Expired, holder: Some("b".into()), token }));
    let results = vec![lost(1), RenewResult::Renewed { duration_ms: 500 }, lost(3)];
    let outcome = outcome_to_wire(Outcome::Renewed(results), LeaseTime(0));
    let Some(peer::outcome::Kind::Renewed(renewed)) = outcome.kind else { panic!("{outcome:?}") };
    assert_eq!(renewed.durations_ms, [0, 500, 0]);
    assert_eq!(renewed.lost.iter().map(|lost| lost.token).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(renewed.lost[0].reason(), v1::EndReason::Expired);
}

#[test]
fn end_reasons_have_the_same_numbers_on_the_wire() {
    use EndReason as Core;
    use v1::EndReason as Wire;
    let pairs = [
        (Core::Released, Wire::Released),
        (Core::Expired, Wire::Expired),
        (Core::Reclaimed, Wire::Reclaimed),
        (Core::Revoked, Wire::Revoked),
        (Core::Unclaimed, Wire::Unclaimed),
        (Core::Barred, Wire::Barred),
        (Core::Detached, Wire::Detached),
        (Core::UnknownToken, Wire::UnknownToken),
        (Core::WrongLease, Wire::WrongLease),
    ];
    for (core, wire) in pairs {
        assert_eq!(reason_to_wire(core), i32::from(wire));
    }
}

#[test]
fn refusals_survive_the_wire() {
    let all = [
        Refusal::Inert,
        Refusal::NotBootstrapped,
        Refusal::NotFound,
        Refusal::AlreadyExists,
        Refusal::RevisionMismatch { current: 1 },
        Refusal::InUse { until: None },
        Refusal::InUse { until: Some(LeaseTime(0)) },
        Refusal::RequestMismatch,
        Refusal::NamespaceFull { limit: 2 },
        Refusal::QueueFull { limit: 3 },
        Refusal::TooManyEnded { retry_ms: 4 },
    ];
    for refusal in all {
        assert_eq!(refusal_from_wire(refusal_to_wire(refusal.clone())), Some(refusal));
    }
    assert_eq!(refusal_from_wire(peer::Refusal { kind: 99, ..peer::Refusal::default() }), None);
}
