//! Doors for the fuzz targets (tests/fuzz) to what reads peers' messages, the log, and snapshots.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "for one crate, which has them all in one place")]

use std::{
    io::{self, Read as _, Write as _},
    path::Path,
};

use prost::Message;
use raft_log::{
    RaftLogRecord,
    chunked_wal::types::Checksum,
    codeq::{Decode as _, config::CodeqConfig as _},
};

use super::{
    snapshot,
    system_log::DiskTypes,
    wire::{self, WireError},
};
use crate::disk::{Record, SharedDisk};

/// What [`peer_message`] knows, by its number.
pub const PEER_MESSAGES: [&str; 8] =
    ["AppendRequest", "AppendResponse", "VoteRequest", "VoteResponse", "TransferLeaderRequest", "SnapshotMeta", "LogEntry", "Membership"];

/// A message of a peer, to openraft's types and back. `None`: not even protobuf.
#[must_use]
pub fn peer_message(kind: usize, bytes: &[u8]) -> Option<Result<Vec<u8>, String>> {
    match kind {
        0 => through(bytes, wire::append_from, wire::append_to),
        1 => through(bytes, wire::appended_from, |result| wire::appended_to(&result)),
        2 => through(bytes, wire::vote_request_from, |request| wire::vote_request_to(&request)),
        3 => through(bytes, wire::vote_response_from, |response| wire::vote_response_to(&response)),
        4 => through(bytes, wire::transfer_from, |request| wire::transfer_to(&request)),
        5 => through(bytes, wire::snapshot_meta_from, |meta| wire::snapshot_meta_to(&meta)),
        6 => through(bytes, wire::entry_from, |entry| wire::entry_to(&entry)),
        _ => through(bytes, wire::membership_from, |membership| wire::membership_to(&membership)),
    }
}

fn through<M, T>(bytes: &[u8], from: impl FnOnce(M) -> Result<T, WireError>, to: impl FnOnce(T) -> M) -> Option<Result<Vec<u8>, String>>
where
    M: Message + Default,
{
    let message = M::decode(bytes).ok()?;
    Some(from(message).map(|known| to(known).encode_to_vec()).map_err(|error| error.to_string()))
}

/// How many bytes [`log_record_sum`] has.
pub const LOG_RECORD_SUM: usize = 8;

/// What ends a record of the log that has these bytes.
#[must_use]
pub fn log_record_sum(record: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Checksum::new_writer(&mut out);
    writer.write_all(record).expect("a vector has room");
    writer.write_checksum().expect("a vector has room");
    out.split_off(record.len())
}

/// Lengths of the good records at the beginning.
#[must_use]
pub fn log_records(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    loop {
        let before = bytes.len();
        if RaftLogRecord::<DiskTypes>::decode(&mut bytes).is_err() {
            return lengths;
        }
        lengths.push(before - bytes.len());
    }
}

/// An entry's payload as it is on disk, behind its length.
pub fn log_payload(mut bytes: &[u8]) -> io::Result<Record> {
    Record::decode(&mut bytes)
}

/// Whether openraft would get an entry out of a record.
pub fn readable(record: Record) -> io::Result<()> {
    record.payload().map(drop)
}

/// A snapshot file: its head as it is understood, and its content.
pub fn snapshot(disk: &SharedDisk, path: &Path) -> Result<(Vec<u8>, Vec<u8>), String> {
    let file = snapshot::verify(disk, path).map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    let mut body = file.body().map_err(|error| format!("verified, and then: {error}"))?;
    body.read_to_end(&mut content).map_err(|error| format!("verified, and then: {error}"))?;
    Ok((wire::snapshot_meta_to(&file.meta).encode_to_vec(), content))
}
