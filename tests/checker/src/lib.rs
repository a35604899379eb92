//! Judges recorded histories of a lease service: what it promised against what happened, in true time.
//!
//! Pure: no clock, no network, no randomness, and nothing of the code under test: the rules of leases are written down here a second time
//! ([`spec`]). [`history`] is the format, for whoever records; [`judge`] looks for what contradicts the properties, each of which is a file of
//! its own. A property that had nothing to look at says so: a history that says nothing proves nothing.

pub mod facts;
pub mod findings;
pub mod history;
pub mod model;
mod properties;
mod report;
pub mod save;
pub mod search;
pub mod spec;
#[cfg(test)]
mod story;
mod streams;
mod timeline;

pub use facts::Facts;
pub use findings::{Findings, Property, Violation};
pub use history::{History, Record, Recorder};
pub use properties::ALL;
pub use report::{Line, Report, judge};
pub use timeline::html;
