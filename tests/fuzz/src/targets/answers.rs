//! Answers of a server, on the client's side: shown by the command line, concluded from by the SDK.
//!
//! An observer of an election must never be led back to a smaller token, whatever it is told.

use prost::Message as _;
use tenure_client::fuzzing as sdk;
use tenure_proto::v1::{Event, ListResponse, WatchResponse, event::Type};

use super::{LEASE_WORDS, Shape, Target};

pub(super) const TARGET: Target =
    Target { name: "answers", reads: "answers of a server, in SDK and command line", shape: Shape::Messages, words: LEASE_WORDS, mutations: 12_000, run };

fn run(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    match kind % 4 {
        0 => ListResponse::decode(bytes).is_ok_and(|answer| {
            for lease in answer.leases {
                let event = Event { lease: Some(lease.clone()), r#type: lease.state, reason: lease.state, revision: lease.revision, ..Event::default() };
                assert!(!tenure_cli::fuzzing::shown(&lease, &event).is_empty());
                let _condition = sdk::condition(lease);
            }
            true
        }),
        1 => WatchResponse::decode(bytes).is_ok_and(|answer| {
            let states: Vec<_> = answer.events.into_iter().filter_map(|event| Some((event.lease.clone()?, event.r#type() == Type::Deleted))).collect();
            let tokens: Vec<u64> = sdk::observed(&states).into_iter().flatten().collect();
            assert!(tokens.is_sorted_by(|one, next| one < next), "never back, nor twice: {tokens:?}");
            true
        }),
        n => {
            let (shown, concluded) = sdk::failure(i32::from(*kind / 4), if n == 2 { "no" } else { "" }, bytes);
            // Whatever is not said in so many words is not concluded.
            assert!(!shown.is_empty() && !concluded.is_empty());
            bytes.len() > 2
        }
    }
}
