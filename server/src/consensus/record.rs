//! One entry of the Raft log as a record: its format on disk, and what it costs.

use std::io::{self, Read as _};

use bytes::Bytes;
use openraft::EntryPayload;
use prost::Message as _;
use raft_log::codeq::{Decode, Encode};
use tenure_proto::peer::v1 as pb;

use super::{
    types::{Blob, Payload},
    wire,
};

/// What an entry costs besides its bytes: cache and index, in memory; record framing, on disk.
pub(super) const ENTRY_OVERHEAD: u64 = 200;
/// No entry is larger: a message between replicas is at most this long.
const MAX_PAYLOAD: u32 = 64 << 20;

/// Where an entry is in the log, and the raft leader that appended it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The raft leader's term,
    pub term: u64,
    /// and node.
    pub node: u64,
    /// Counts up by one.
    pub index: u64,
}

/// A log payload on disk: length, format, kind, body.
#[derive(Clone, Debug)]
pub struct Record {
    kind: Kind,
    body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blank = 0,
    Normal = 1,
    Membership = 2,
}

const FORMAT: u8 = 1;

impl Encode for Record {
    fn encode<W: io::Write>(&self, mut w: W) -> io::Result<usize> {
        let length = u32::try_from(self.body.len() + 2).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an entry of 4 GiB"))?;
        w.write_all(&length.to_be_bytes())?;
        w.write_all(&[FORMAT, self.kind as u8])?;
        w.write_all(&self.body)?;
        Ok(6 + self.body.len())
    }
}

impl Decode for Record {
    fn decode<R: io::Read>(mut r: R) -> io::Result<Self> {
        let mut head = [0; 6];
        r.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if !(2..=MAX_PAYLOAD).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an entry of {length} bytes")));
        }
        let kind = match (head[4], head[5]) {
            (FORMAT, 0) => Kind::Blank,
            (FORMAT, 1) => Kind::Normal,
            (FORMAT, 2) => Kind::Membership,
            (format, kind) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an entry of format {format}, kind {kind}: not known to this build")));
            }
        };
        // Grows with what is there, not with what is announced.
        let mut body = Vec::new();
        io::Read::take(&mut r, u64::from(length) - 2).read_to_end(&mut body)?;
        if body.len() as u64 != u64::from(length) - 2 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { kind, body: body.into() })
    }
}

impl Record {
    /// What it takes, in memory and on disk.
    pub(super) fn cost(&self) -> u64 {
        self.body.len() as u64 + ENTRY_OVERHEAD
    }

    /// Bytes of its body.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    pub(super) fn new(payload: &Payload) -> Self {
        match payload {
            EntryPayload::Blank => Self { kind: Kind::Blank, body: Bytes::new() },
            EntryPayload::Normal(blob) => Self { kind: Kind::Normal, body: blob.0.clone() },
            EntryPayload::Membership(m) => Self { kind: Kind::Membership, body: wire::membership_to(m).encode_to_vec().into() },
        }
    }

    pub(super) fn payload(self) -> io::Result<Payload> {
        Ok(match self.kind {
            Kind::Blank => EntryPayload::Blank,
            Kind::Normal => EntryPayload::Normal(Blob(self.body)),
            Kind::Membership => {
                let decoded = pb::Membership::decode(self.body).map_err(io::Error::other)?;
                EntryPayload::Membership(wire::membership_from(decoded).map_err(io::Error::other)?)
            }
        })
    }
}
