//! sled: how holds lie in it. One tree, so that a batch is all or nothing; keys are facts of the log, so that recording twice is recording once.
//!
//! `h namespace 0 name 0 token` → a hold; `r end-revision` → the key of that hold; `m …` → the numbers in [`Marks`].

use std::{
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

    /// Records these, all or nothing, together with the marks.
    pub(super) fn record<'a>(&mut self, ended: impl Iterator<Item = (LeaseKey, &'a Hold)>, marks: Marks) -> anyhow::Result<()> {
        let mut batch = sled::Batch::default();
        let mut marks = marks;
        for (lease, hold) in ended {
            let key = hold_key(&lease, hold.token);
            if !self.db.contains_key(&key)? {
                marks.holds += 1;
            }
            batch.insert(revision_key(hold.end_revision), &key[..]);
            batch.insert(key, value(&Record::of(hold)));
        }
        batch.insert(MARKS, value(&marks));
        self.db.apply_batch(batch)?;
        self.marks = marks;
        Ok(())
    }

    /// Drops the oldest holds when there are more than `kept`, a bounded number at a time.
    pub(super) fn prune(&mut self, kept: u64) -> anyhow::Result<()> {
        let excess = usize::try_from(self.marks.holds.saturating_sub(kept)).unwrap_or(usize::MAX).min(1_024);
        if excess == 0 {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        let mut marks = self.marks;
        for entry in self.db.scan_prefix(b"r").take(excess) {
            let (key, hold) = entry?;
            let revision = key.get(1..).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
            marks.complete_since = marks.complete_since.max(revision);
            marks.holds -= 1;
            batch.remove(key);
            batch.remove(hold);
        }
        batch.insert(MARKS, value(&marks));
        self.db.apply_batch(batch)?;
        self.marks = marks;
        Ok(())
    }

    /// Newest first.
    pub(super) fn of(&self, lease: &LeaseKey, limit: usize) -> anyhow::Result<Vec<Hold>> {
        self.db.scan_prefix(lease_prefix(lease)).values().rev().take(limit).map(|value| Record::decode(versioned(&value?)?)?.hold()).collect()
    }

    /// Reads every record; (holds, complete since).
    pub(super) fn verify(&self) -> anyhow::Result<(u64, u64)> {
        let mut holds = 0;
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

impl Record {
    fn of(hold: &Hold) -> Self {
        Self {
            holder: hold.holder.to_string(),
            token: hold.token,
            acquire_unix_ms: hold.acquire_time.0,
            end_unix_ms: hold.end_time.map(|time| time.0),
            end_reason: hold.end_reason.map_or(0, |reason| reason as u32),
            end_revision: hold.end_revision,
        }
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
    let hold = Record::decode(versioned(bytes)?)?.hold()?;
    Ok(value(&Record::of(&hold)))
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
fn lease_prefix(lease: &LeaseKey) -> Vec<u8> {
    [b"h", lease.namespace.as_bytes(), b"\0", lease.name.as_bytes(), b"\0"].concat()
}

fn hold_key(lease: &LeaseKey, token: u64) -> Vec<u8> {
    let mut key = lease_prefix(lease);
    key.extend(token.to_be_bytes());
    key
}

fn revision_key(revision: u64) -> Vec<u8> {
    [&b"r"[..], &revision.to_be_bytes()].concat()
}
