//! The only file of the command line that reads a clock, and only for the AGE column. No decision uses it.

use jiff::Timestamp;

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
