//! The only file of this crate that reads a clock. Everything else is handed a [`Clock`].
//!
//! A holder must never believe longer than the raft leader does, so it takes the larger of two clocks' progress where the leader takes the smaller.

use std::{fmt, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Where elapsed time comes from. A simulator has its own.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Two clocks that err differently: suspend stops the second, slewing bends the first.
    fn readings(&self) -> Readings;
}

/// Nanoseconds since arbitrary origins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// CLOCK_BOOTTIME: counts suspend.
    pub boottime_ns: u64,
    /// CLOCK_MONOTONIC_RAW: not slewed by NTP.
    pub monotonic_raw_ns: u64,
}

impl Readings {
    /// What may have elapsed since `earlier`: the larger progress of the two.
    #[must_use]
    pub fn possibly_since(self, earlier: Self) -> Duration {
        let boottime = self.boottime_ns.saturating_sub(earlier.boottime_ns);
        Duration::from_nanos(boottime.max(self.monotonic_raw_ns.saturating_sub(earlier.monotonic_raw_ns)))
    }

    /// Both clocks `length` later.
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self { boottime_ns: self.boottime_ns.saturating_add(length), monotonic_raw_ns: self.monotonic_raw_ns.saturating_add(length) }
    }

    /// What certainly is left until `deadline`: nothing as soon as either clock has come there.
    #[must_use]
    pub fn until(self, deadline: Self) -> Duration {
        let boottime = deadline.boottime_ns.saturating_sub(self.boottime_ns);
        Duration::from_nanos(boottime.min(deadline.monotonic_raw_ns.saturating_sub(self.monotonic_raw_ns)))
    }
}

/// The machine's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// As the builder wants it.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

fn nanoseconds(id: ClockId) -> u64 {
    let t = clock_gettime(id);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

impl Clock for SystemClock {
    fn readings(&self) -> Readings {
        Readings { boottime_ns: nanoseconds(ClockId::Boottime), monotonic_raw_ns: nanoseconds(ClockId::MonotonicRaw) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_clock_counts() {
        let earlier = Readings { boottime_ns: 10, monotonic_raw_ns: 1_000 };
        let suspended = Readings { boottime_ns: 5_010, monotonic_raw_ns: 1_001 };
        let slewed = Readings { boottime_ns: 11, monotonic_raw_ns: 3_000 };
        assert_eq!(suspended.possibly_since(earlier), Duration::from_nanos(5_000));
        assert_eq!(slewed.possibly_since(earlier), Duration::from_nanos(2_000));
    }

    #[test]
    fn a_deadline_has_come_when_either_clock_is_there() {
        let deadline = Readings::default().plus(Duration::from_nanos(100));
        assert_eq!(Readings { boottime_ns: 10, monotonic_raw_ns: 40 }.until(deadline), Duration::from_nanos(60));
        assert_eq!(Readings { boottime_ns: 100, monotonic_raw_ns: 40 }.until(deadline), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_went_back_counts_as_standing_still() {
        let later = Readings { boottime_ns: 10, monotonic_raw_ns: 10 };
        assert_eq!(Readings::default().possibly_since(later), Duration::ZERO);
    }

    #[test]
    fn the_machine_moves_forward() {
        let before = SystemClock.readings();
        let after = SystemClock.readings();
        assert!(after.boottime_ns >= before.boottime_ns && after.monotonic_raw_ns >= before.monotonic_raw_ns);
    }
}
