//! The only file of this crate that reads a clock. Everything else is handed a [`Clock`].

use std::{fmt, sync::Arc, time::SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Where time comes from. The simulator has its own.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Elapsed time by two clocks that err differently: suspend stops the second, slewing bends the first.
    fn readings(&self) -> Readings;

    /// Milliseconds since 1970, for people to read.
    fn wall_unix_ms(&self) -> u64;
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
    /// What surely has elapsed since `earlier`: the smaller progress of the two (DESIGN section 3).
    #[must_use]
    pub fn surely_since(self, earlier: Self) -> u64 {
        let boottime = self.boottime_ns.saturating_sub(earlier.boottime_ns);
        boottime.min(self.monotonic_raw_ns.saturating_sub(earlier.monotonic_raw_ns))
    }
}

/// The machine's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// As `run` wants it.
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

    // Through libc, where the readings above ask the kernel: so that a test can have it jump (libfaketime).
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    fn wall_unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(0)
    }
}
