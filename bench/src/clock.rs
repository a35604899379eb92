//! The only file of this crate that reads a clock.

use std::time::{Duration, Instant};

/// A moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(Instant);

#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn now() -> Moment {
    Moment(Instant::now())
}

impl Moment {
    pub(crate) fn passed(self) -> Duration {
        now().0.saturating_duration_since(self.0)
    }
}
