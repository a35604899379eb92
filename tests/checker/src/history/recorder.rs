//! Where many tasks record. Reads no clock: whoever records says when.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use super::{Call, History, Invoke, Outcome, Record, Return, What};

/// Collects records in memory, in the order in which they come.
#[derive(Debug, Default)]
pub struct Recorder {
    records: Mutex<Vec<Record>>,
    numbers: AtomicU64,
}

impl Recorder {
    /// A number that no operation, belief, watch or fault of this history has yet.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes down one record.
    pub fn record(&self, at: u64, what: What) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(Record { at, what });
    }

    /// Takes down that an operation is about to be sent, and gives it its number.
    pub fn invoke(&self, at: u64, client: &str, call: Call) -> u64 {
        let op = self.number();
        self.record(at, What::Invoke(Invoke { op, client: client.to_owned(), node: None, call }));
        op
    }

    /// Takes down its answer.
    pub fn returned(&self, at: u64, op: u64, outcome: Outcome) {
        self.record(at, What::Return(Return { op, outcome }));
    }

    /// Everything until now.
    #[must_use]
    pub fn history(&self) -> History {
        History::sorted(self.records.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
