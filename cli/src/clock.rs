//! The only file of the command line that reads a clock: for columns that people read, and for how long `exec` has held. Whether a lease is held is
//! the SDK's to say.

use jiff::Timestamp;
use tenure_client::clock::{Clock as _, Readings, SystemClock};

/// The wall clock, for people.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// Elapsed time, from an arbitrary origin.
pub(crate) fn readings() -> Readings {
    SystemClock.readings()
}
