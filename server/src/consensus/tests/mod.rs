//! Consensus by itself: what is replicated here is a tape of the entries, so that every claim is about Raft, log and snapshots.

mod cluster;
mod conformance;
mod damage;
mod full_files;
mod replication;
mod steps;

use std::io::{self, Read, Write};

use bytes::Bytes;
use parking_lot::Mutex;
use tenure_lease::RaftLeaderId;

use super::{Effects, Replicated, state_machine::Freezer};

/// Remembers every entry that it was given.
#[derive(Debug, Default)]
pub(super) struct Tape(Mutex<Vec<Bytes>>);

impl Tape {
    pub(super) fn entries(&self) -> Vec<Bytes> {
        self.0.lock().clone()
    }

    fn read(body: &mut dyn Read) -> io::Result<Vec<Bytes>> {
        let mut all = Vec::new();
        body.read_to_end(&mut all)?;
        let mut rest = Bytes::from(all);
        let mut entries = Vec::new();
        while rest.len() >= 4 {
            let length = u32::from_be_bytes(rest.split_to(4)[..].try_into().expect("four bytes"));
            entries.push(rest.split_to(length as usize));
        }
        Ok(entries)
    }

    pub(super) fn restore(body: &mut dyn Read) -> io::Result<Self> {
        Ok(Self(Mutex::new(Self::read(body)?)))
    }
}

impl Replicated for Tape {
    fn apply(&self, _: u64, _: RaftLeaderId, entry: Option<&Bytes>) -> io::Result<Effects> {
        if let Some(entry) = entry {
            if &entry[..] == b"undecodable" {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry that cannot be decoded"));
            }
            self.0.lock().push(entry.clone());
        }
        Ok(Effects::default())
    }

    fn freeze(&self) -> Freezer {
        let entries = self.entries();
        Box::new(move |out: &mut dyn Write| {
            for entry in entries {
                out.write_all(&u32::try_from(entry.len()).expect("short").to_be_bytes())?;
                out.write_all(&entry)?;
            }
            Ok(())
        })
    }

    fn replace(&self, _: u64, _: RaftLeaderId, body: &mut dyn Read) -> io::Result<()> {
        *self.0.lock() = Self::read(body)?;
        Ok(())
    }
}
