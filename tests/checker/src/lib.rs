//! Judges recorded histories of a lease service: what it promised against what happened, in true time.
//!
//! Pure: no clock, no network, no randomness, and nothing of the code under test: the rules of leases are written down here a second time.
//! [`history`] is the format, for whoever records.

pub mod history;

pub use history::{History, Record, Recorder};
