//! What other replicas send: Raft's messages, and commands that they pass on.
//!
//! What is taken must mean the same when it is written and read again. A command that is let into the log must come out of it.

use prost::Message as _;
use tenure_lease::{LeaseTime, RaftLeaderId};
use tenure_proto::peer::v1::{ForwardRequest, ForwardResponse};
use tenure_server::fuzzing::{self as door, PEER_MESSAGES};

use super::{LEASE_WORDS, Shape, Target, table};

pub(super) const TARGET: Target = Target {
    name: "peers",
    reads: "messages of other replicas, and commands that they pass on",
    shape: Shape::Messages,
    words: LEASE_WORDS,
    mutations: 12_000,
    run,
};

fn run(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    let kind = usize::from(*kind) % (PEER_MESSAGES.len() + 2);
    if kind == PEER_MESSAGES.len() {
        return passed_on(bytes);
    }
    if kind > PEER_MESSAGES.len() {
        return ForwardResponse::decode(bytes).is_ok();
    }
    let Some(Ok(known)) = door::peer_message(kind, bytes) else { return false };
    let again = door::peer_message(kind, &known).expect("what is written is protobuf").expect("what was taken once is taken again");
    assert_eq!(again, known, "{} means the same again", PEER_MESSAGES[kind]);
    true
}

fn passed_on(bytes: &[u8]) -> bool {
    let Ok(request) = ForwardRequest::decode(bytes) else { return false };
    let mut taken = Vec::new();
    for command in request.jobs.into_iter().filter_map(|job| job.command) {
        let logged = door::entry_bytes(RaftLeaderId { term: 1, node: 1 }, LeaseTime(1), std::slice::from_ref(&command));
        let read = door::entry(&logged);
        assert_eq!(door::can_be_logged(&command), read.is_ok(), "{command:?}: {read:?}");
        assert!(read.is_ok() || !door::may_pass(&command), "what the raft leader takes can be read from the log: {command:?}");
        // Of a member that is no honest one, a table stands more than the raft leader lets in.
        if read.is_ok() {
            taken.push(command);
        }
    }
    table::take(&taken);
    !taken.is_empty()
}
