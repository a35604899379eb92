//! The Tenure SDK: typed calls to a Tenure cluster that fail over between replicas and say what may be concluded when they fail.
//!
//! ```no_run
//! # async fn example() -> Result<(), tenure_client::Error> {
//! use tenure_client::{Client, v1};
//!
//! let client = Client::builder().endpoints(["127.0.0.1:7400", "127.0.0.1:7410", "127.0.0.1:7420"]).build()?;
//! let lease = client.get(v1::GetRequest { name: "job".into(), ..Default::default() }).await?;
//! println!("held by {}", lease.holder);
//! # Ok(())
//! # }
//! ```
//!
//! Every call has a deadline ([`Builder::request_timeout`]) and ends by it. Until then it is sent again, on another endpoint where that may
//! help, as long as sending it twice is harmless. [`Error`] says what may be concluded: refused, not applied, outcome unknown, misuse.
//!
//! **Invariant**: no clock but [`clock`], no randomness but one seeded generator per client, nothing of the server's or the lease table's code.

// What may be concluded from a failure is half of what this crate promises.
#![warn(clippy::missing_errors_doc)]

mod acquire;
mod asking;
#[doc(hidden)]
pub mod bugs;
mod client;
pub mod clock;
mod discovery;
mod election;
mod endpoints;
mod error;
mod fencing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod heartbeat;
mod hold;
mod keepalive;
mod lease;
mod line;
mod members;
mod observe;
mod random;
mod renew;
mod retry;
mod watch;

pub use acquire::Acquiring;
pub use asking::{Acquired, Asking, LeaseBuilder, Step, host_name};
pub use client::{Builder, Client};
pub use election::{ElectionBuilder, Finished, LeaderElection, Leadership, RunError};
pub use error::{Error, Failure};
pub use fencing::{FencedError, FencedWriter};
pub use heartbeat::{Heartbeat, HeartbeatBuilder, Pulse};
pub use hold::LostReason;
pub use lease::Lease;
pub use members::{Condition, Member, Members, MembersBuilder, Snapshot};
pub use observe::{Leader, Observation};
pub use renew::{RenewStream, Renewal};
/// The messages, as they are on the wire.
pub use tenure_proto::v1;
pub use tokio_util::sync::CancellationToken;
pub use tonic::Code;
pub use watch::Watch;

/// The programs in the guides compile, or `cargo test` says which one does not.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../docs/fencing.md")]
    struct Fencing;
    #[doc = include_str!("../../docs/heartbeats.md")]
    struct Heartbeats;
    #[doc = include_str!("../../docs/leader-election.md")]
    struct LeaderElection;
    #[doc = include_str!("../../docs/locks-and-cron.md")]
    struct Locks;
}
