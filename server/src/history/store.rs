//! sled: how holds lie in it. One tree, so that a batch is all or nothing; keys are facts of the log, and what [`Marks::through`] covers is not
//! recorded again.
//!
//! Many holds are one value: a key of its own for each cost ten times as much. `b end-revision-of-the-last` → a block of holds, in the order in which
//! they ended; `l namespace 0 name 0 end-revision-of-the-last` → that block has holds of this lease; `m` → the numbers in [`Marks`]. Earlier builds
//! wrote `h namespace 0 name 0 token` → a hold and `r end-revision` → the key of that hold: older than every block, read and dropped as before.

use std::{
    collections::BTreeSet,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use prost::Message;
use tenure_lease::{EndReason, Hold, LeaseKey, UnixMillis};

/// Of a value. Others are refused, not guessed at.
const FORMAT: u8 = 1;
/// Holds kept; the oldest go first.
pub(super) const KEPT_HOLDS: u64 = 4_000_000;
/// Dropped at a time, about.
const PRUNED_HOLDS: u64 = 1_024;
const CACHE_BYTES: u64 = 8 << 20;
const FLUSH_EVERY_MS: u64 = 500;
const MARKS: &[u8] = b"m";

pub(super) struct Store {
    db: sled::Db,
    pub(super) marks: Marks,
}

/// What the store knows about itself.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Marks {
    /// Nothing that ended after this change is missing, unless it ended after `through`.
    #[prost(uint64, tag = "1")]
    pub(super) complete_since: u64,
    /// Recorded up to this change.
    #[prost(uint64, tag = "2")]
    pub(super) through: u64,
    #[prost(uint64, tag = "3")]
    pub(super) holds: u64,
}

/// On disk for ever: add fields, never change one.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(string, tag = "1")]
    holder: String,
    #[prost(uint64, tag = "2")]
    token: u64,
    #[prost(uint64, tag = "3")]
    acquire_unix_ms: u64,
    #[prost(uint64, optional, tag = "4")]
    end_unix_ms: Option<u64>,
    #[prost(uint32, tag = "5")]
    end_reason: u32,
    #[prost(uint64, tag = "6")]
    end_revision: u64,
    /// This and the name: only in a block.
    #[prost(string, tag = "7")]
    namespace: String,
    #[prost(string, tag = "8")]
    name: String,
}

/// Holds that ended one after the other, of any lease.
#[derive(Clone, PartialEq, Message)]
struct Block {
    #[prost(message, repeated, tag = "1")]
    holds: Vec<Record>,
}

impl Store {
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS)).mode(sled::Mode::LowSpace);
        // sled 0.34 panics on some damage instead of reporting it.
        let db = panic::catch_unwind(AssertUnwindSafe(|| config.open())).map_err(|_| anyhow!("sled panicked while opening {}", dir.display()))??;
        let marks = match db.get(MARKS)? {
            Some(value) => Marks::decode(versioned(&value)?).context("the history's marks")?,
            None if db.is_empty() => Marks::default(),
            None => bail!("the history has records but no marks"),
        };
        Ok(Self { db, marks })
    }

    /// Records these as one block, all or nothing, together with the marks.
    pub(super) fn record<'a>(&mut self, ended: impl Iterator<Item = (LeaseKey, &'a Hold)>, marks: Marks) -> anyhow::Result<()> {
        let mut batch = sled::Batch::default();
        let mut marks = marks;
        let block = Block { holds: ended.map(|(lease, hold)| Record::of(&lease, hold)).collect() };
        if let Some(last) = block.holds.last() {
            marks.holds += block.holds.len() as u64;
            for lease in block.leases() {
                batch.insert(index_key(lease, last.end_revision), &[]);
            }
            batch.insert(revision_key(b"b", last.end_revision), value(&block));
        }
        batch.insert(MARKS, value(&marks));
        self.db.apply_batch(batch)?;
        self.marks = marks;
        Ok(())
    }

    /// Drops the oldest holds while there are no fewer than `kept` without them, a bounded number at a time.
    pub(super) fn prune(&mut self, kept: u64) -> anyhow::Result<()> {
        let excess = self.marks.holds.saturating_sub(kept).min(PRUNED_HOLDS);
        if excess == 0 {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        let mut marks = self.marks;
        let mut dropped = 0;
        for entry in self.db.scan_prefix(b"r").take(usize::try_from(excess)?) {
            let (key, hold) = entry?;
            marks.complete_since = marks.complete_since.max(revision_of(&key));
            dropped += 1;
            batch.remove(key);
            batch.remove(hold);
        }
        for entry in self.db.scan_prefix(b"b") {
            let (key, block) = entry?;
            let block = Block::decode(versioned(&block)?)?;
            if dropped + block.holds.len() as u64 > excess {
                break;
            }
            let revision = revision_of(&key);
            marks.complete_since = marks.complete_since.max(revision);
            dropped += block.holds.len() as u64;
            for lease in block.leases() {
                batch.remove(index_key(lease, revision));
            }
            batch.remove(key);
        }
        if dropped == 0 {
            return Ok(());
        }
        marks.holds -= dropped;
        batch.insert(MARKS, value(&marks));
        self.db.apply_batch(batch)?;
        self.marks = marks;
        Ok(())
    }

    /// Newest first.
    pub(super) fn of(&self, lease: &LeaseKey, limit: usize) -> anyhow::Result<Vec<Hold>> {
        let mut holds = Vec::new();
        for key in self.db.scan_prefix(lease_prefix(b"l", &lease.namespace, &lease.name)).keys().rev() {
            if holds.len() >= limit {
                break;
            }
            let block = self.db.get(revision_key(b"b", revision_of(&key?)))?.context("the history has lost a block")?;
            let block = Block::decode(versioned(&block)?)?;
            for record in block.holds.into_iter().rev().filter(|record| record.is_of(lease)) {
                holds.push(record.hold()?);
            }
        }
        holds.truncate(limit);
        let older = self.db.scan_prefix(lease_prefix(b"h", &lease.namespace, &lease.name)).values().rev();
        for value in older.take(limit - holds.len()) {
            holds.push(Record::decode(versioned(&value?)?)?.hold()?);
        }
        Ok(holds)
    }

    /// Reads every record; (holds, complete since).
    pub(super) fn verify(&self) -> anyhow::Result<(u64, u64)> {
        let mut holds = 0;
        for value in self.db.scan_prefix(b"b").values() {
            for record in Block::decode(versioned(&value?)?).context("a block of holds")?.holds {
                record.hold()?;
                holds += 1;
            }
        }
        for value in self.db.scan_prefix(b"h").values() {
            Record::decode(versioned(&value?)?).context("a hold")?.hold()?;
            holds += 1;
        }
        Ok((holds, self.marks.complete_since))
    }

    pub(super) fn flush(&self) -> anyhow::Result<()> {
        self.db.flush()?;
        Ok(())
    }
}

impl Block {
    /// Each once.
    fn leases(&self) -> BTreeSet<(&str, &str)> {
        self.holds.iter().map(|record| (&*record.namespace, &*record.name)).collect()
    }
}

impl Record {
    fn of(lease: &LeaseKey, hold: &Hold) -> Self {
        Self {
            namespace: lease.namespace.to_string(),
            name: lease.name.to_string(),
            holder: hold.holder.to_string(),
            token: hold.token,
            acquire_unix_ms: hold.acquire_time.0,
            end_unix_ms: hold.end_time.map(|time| time.0),
            end_reason: hold.end_reason.map_or(0, |reason| reason as u32),
            end_revision: hold.end_revision,
        }
    }

    fn is_of(&self, lease: &LeaseKey) -> bool {
        self.name == *lease.name && self.namespace == *lease.namespace
    }

    fn hold(self) -> anyhow::Result<Hold> {
        let end_reason = match self.end_reason {
            1 => EndReason::Released,
            2 => EndReason::Expired,
            3 => EndReason::Reclaimed,
            4 => EndReason::Revoked,
            5 => EndReason::Unclaimed,
            6 => EndReason::Barred,
            7 => EndReason::Detached,
            8 => EndReason::UnknownToken,
            9 => EndReason::WrongLease,
            other => bail!("the history has an end reason {other} that this build does not know"),
        };
        Ok(Hold {
            holder: Arc::from(self.holder),
            token: self.token,
            acquire_time: UnixMillis(self.acquire_unix_ms),
            end_time: self.end_unix_ms.map(UnixMillis),
            end_reason: Some(end_reason),
            end_revision: self.end_revision,
        })
    }
}

/// For the fuzz target: through everything that reads a hold, and back.
#[cfg(feature = "fuzzing")]
pub(crate) fn rewritten(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let record = Record::decode(versioned(bytes)?)?;
    let lease = LeaseKey { namespace: record.namespace.as_str().into(), name: record.name.as_str().into() };
    Ok(value(&Record::of(&lease, &record.hold()?)))
}

fn value(message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    message.encode(&mut bytes).expect("a vector has room");
    bytes
}

fn versioned(value: &[u8]) -> anyhow::Result<&[u8]> {
    match value.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        other => bail!("the history has a record of format {:?}; this build knows {FORMAT}", other.map(|(version, _)| version)),
    }
}

/// Names have no NUL in them.
fn lease_prefix(kind: &[u8], namespace: &str, name: &str) -> Vec<u8> {
    [kind, namespace.as_bytes(), b"\0", name.as_bytes(), b"\0"].concat()
}

fn index_key((namespace, name): (&str, &str), revision: u64) -> Vec<u8> {
    let mut key = lease_prefix(b"l", namespace, name);
    key.extend(revision.to_be_bytes());
    key
}

fn revision_key(kind: &[u8], revision: u64) -> Vec<u8> {
    [kind, &revision.to_be_bytes()].concat()
}

/// That a key ends with.
fn revision_of(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
