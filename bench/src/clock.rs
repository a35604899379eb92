//! The only file of this crate that reads a clock.

use std::time::{Duration, Instant};

use tenure_client::clock::{Clock as _, Readings, SystemClock};

/// A moment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(Instant);

#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn now() -> Moment {
    Moment(Instant::now())
}

impl Moment {
    pub(crate) fn passed(self) -> Duration {
        now().0.saturating_duration_since(self.0)
    }

    /// From this one to a later one.
    pub(crate) fn until(self, later: Self) -> Duration {
        later.0.saturating_duration_since(self.0)
    }
}

/// What deadlines of leases are told in.
pub(crate) fn readings() -> Readings {
    SystemClock.readings()
}
