//! Requests of clients: decoded, checked, turned into commands.
//!
//! What is refused must be refused in an answer that every client can take. What is taken must keep to the rules as they are written down here once
//! more, must come out of the log as it went in, and must do the table no harm.

use tenure_lease::{LeaseKey, check_annotations, check_labels};
use tenure_proto::peer::v1::{Acquire, Command, Key, Put, Release, Renew, command::Kind};
use tenure_server::fuzzing::{self as door, Asked, REQUESTS};
use tonic::{Code, Status};

use super::{LEASE_WORDS, Shape, Target, table};

pub(super) const TARGET: Target =
    Target { name: "requests", reads: "requests of clients, and their validation", shape: Shape::Messages, words: LEASE_WORDS, mutations: 9_000, run };

/// Headers of an answer; grpc-java takes 8 KiB of them, others more.
const MOST_HEADERS: usize = 8_000;

fn run(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    match door::request(usize::from(*kind) % REQUESTS.len(), bytes) {
        None => false,
        Some(Err(refusal)) => {
            is_an_answer(&refusal);
            false
        }
        Some(Ok(Asked::Question)) => true,
        Some(Ok(Asked::Command(mut command))) => {
            keeps_to_the_rules(&command);
            if let Some(Kind::Acquire(acquire)) = &mut command.kind
                && acquire.request_id.is_empty()
            {
                acquire.request_id = "minted".into();
            }
            assert!(door::may_pass(&command), "what this replica sends, the raft leader takes: {command:?}");
            table::take(&[*command]);
            true
        }
    }
}

fn is_an_answer(refusal: &Status) {
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(!refusal.message().is_empty());
    let mut headers = http::HeaderMap::new();
    refusal.add_header(&mut headers).expect("a status can be sent");
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(size <= MOST_HEADERS, "a refusal takes {size} bytes of headers");
}

fn keeps_to_the_rules(command: &Command) {
    match command.kind.as_ref().expect("a command of some kind") {
        Kind::Acquire(Acquire { key, holder, duration_ms, request_id, wait_ms, holder_data, retention_ms, labels, annotations, session, .. }) => {
            is_a_name(key.as_ref());
            assert!((1..=256).contains(&holder.len()) && request_id.len() <= 128 && holder_data.len() <= 4096);
            lasts(*duration_ms);
            assert!(*wait_ms <= 86_400_000 && *retention_ms <= 10 * 365 * 86_400_000 && *session == 0);
            check_labels(&table::labels(labels)).expect("good labels");
            check_annotations(&table::labels(annotations)).expect("good annotations");
        }
        Kind::Renew(Renew { tokens, durations_ms, keys }) => {
            assert!(tokens.len() <= 10_000 && tokens.iter().all(|token| *token != 0));
            durations_ms.iter().filter(|ms| **ms != 0).for_each(|ms| lasts(*ms));
            keys.iter().filter(|key| !key.name.is_empty()).for_each(|key| is_a_name(Some(key)));
        }
        Kind::Release(Release { key, token, holder, request_id, undelivered }) => {
            is_a_name(key.as_ref());
            assert!(!undelivered, "only a replica says that");
            assert!(if *token == 0 { !request_id.is_empty() && !holder.is_empty() } else { request_id.is_empty() });
        }
        Kind::Put(Put { key, labels, annotations, if_revision, must_not_exist, .. }) => {
            is_a_name(key.as_ref());
            check_labels(&table::labels(labels)).expect("good labels");
            check_annotations(&table::labels(annotations)).expect("good annotations");
            assert!(!(*must_not_exist && *if_revision != 0));
        }
        Kind::Delete(delete) => is_a_name(delete.key.as_ref()),
        Kind::KeepSession(_) | Kind::Detach(_) | Kind::Bootstrap(_) => panic!("no client asks for this: {command:?}"),
    }
}

fn is_a_name(key: Option<&Key>) {
    let Key { namespace, name } = key.expect("a command names its lease");
    LeaseKey::new(namespace, name).expect("a good name");
}

fn lasts(ms: u32) {
    let limits = door::limits();
    assert!((limits.min_duration.as_millis()..=limits.max_duration.as_millis()).contains(&u128::from(ms)), "{ms} ms");
}
