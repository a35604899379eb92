//! Doors for the fuzz targets (tests/fuzz): what reads bytes from clients, peers and disks, without a replica around it. In no release, and with
//! no logic of its own: a door calls what the replica calls.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "for one crate, which has them all in one place")]

use tenure_lease::{Entry, LeaseTime, Outcome, RaftLeaderId, UnixMillis};
use tenure_proto::peer::v1 as peer;

pub use crate::{
    consensus::fuzzing::{LOG_RECORD_SUM, PEER_MESSAGES, log_payload, log_record_sum, log_records, peer_message, readable, snapshot},
    service::fuzzing::{Asked, REQUESTS, limits, page_token, patience, request},
};
use crate::{
    history, identity,
    write::{codec, rules},
};

/// An entry of the log.
pub fn entry(bytes: &[u8]) -> Result<Entry, String> {
    codec::decode_entry(bytes).map_err(|error| error.to_string())
}

/// The bytes of an entry.
#[must_use]
pub fn entry_bytes(proposer: RaftLeaderId, stamp: LeaseTime, commands: &[peer::Command]) -> Vec<u8> {
    codec::encode_entry(proposer, stamp, UnixMillis(1_800_000_000_000), commands.iter(), 0).to_vec()
}

/// Whether a command from another replica is let into the log.
#[must_use]
pub fn may_pass(command: &peer::Command) -> bool {
    rules::check(command, &limits()).is_ok()
}

/// Whether it could be read from the log.
#[must_use]
pub fn can_be_logged(command: &peer::Command) -> bool {
    codec::can_be_logged(command)
}

/// As an outcome travels.
#[must_use]
pub fn outcome(outcome: Outcome, now: LeaseTime) -> peer::Outcome {
    codec::outcome_to_wire(outcome, now)
}

/// An identity file.
pub fn identity(bytes: &[u8]) -> Result<(), String> {
    identity::readable(bytes).map_err(|error| format!("{error:#}"))
}

/// A hold as the history keeps it.
pub fn past_hold(bytes: &[u8]) -> Result<Vec<u8>, String> {
    history::rewritten(bytes).map_err(|error| format!("{error:#}"))
}
