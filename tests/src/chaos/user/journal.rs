//! What a user sees, on disk before it goes on: whoever is killed has told everything.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tenure_checker::history::{Call, Invoke, Outcome, Record, Return, What, line};

use crate::clock;

/// One file of records, a line each; every line is one write.
#[derive(Debug)]
pub(super) struct Journal {
    file: Mutex<File>,
    numbers: AtomicU64,
}

impl Journal {
    pub(super) fn create(path: &Path, first_number: u64) -> std::io::Result<Self> {
        Ok(Self { file: Mutex::new(File::create(path)?), numbers: AtomicU64::new(first_number) })
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn record(&self, what: What) -> std::io::Result<()> {
        self.record_at(clock::now(), what)
    }

    pub(super) fn record_at(&self, at: u64, what: What) -> std::io::Result<()> {
        let line = line(&Record { at, what });
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
    }

    /// An operation is about to be sent; its number.
    pub(super) fn invoke(&self, client: &str, call: Call) -> std::io::Result<u64> {
        let op = self.number();
        self.record(What::Invoke(Invoke { op, client: client.to_owned(), node: None, call }))?;
        Ok(op)
    }

    /// Its answer is there.
    pub(super) fn returned(&self, op: u64, outcome: Outcome) -> std::io::Result<()> {
        self.record(What::Return(Return { op, outcome }))
    }
}
