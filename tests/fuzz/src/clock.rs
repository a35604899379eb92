//! The only file of this crate that reads a clock: for when a campaign ends, and for what an input costs.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since some moment before the process began.
pub(crate) fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// What this thread has used of a processor: the same however busy the machine is.
pub(crate) fn used() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap_or_default()
}
