//! `tenured`: one replica of Tenure. [`run()`] gets everything environmental from outside.
//!
//! The story of a write: `service` checks it, `write` brings it to the raft leader and into an entry, `consensus` replicates that,
//! `replica` applies it to the [`tenure_lease::LeaseTable`] and tells `watch`, `waiting` and `history`.

mod admission;
#[cfg(feature = "bug_expiry_without_term")]
mod bugs;
pub mod check;
pub mod clock;
pub mod config;
mod consensus;
pub mod descriptors;
pub mod disk;
mod failpoint;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod history;
mod http;
mod identity;
mod members;
mod metrics;
pub mod net;
mod peer;
mod read;
mod readiness;
mod replica;
mod run;
mod server_identity;
mod service;
mod waiting;
mod watch;
mod write;

pub use consensus::Node;
pub use replica::Observer;
pub use run::{Surroundings, run};
