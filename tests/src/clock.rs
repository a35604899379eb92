//! The only file of this crate that reads a clock, and where its randomness starts.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_BOOTTIME: one origin for every process of this machine, and it counts suspend.
#[must_use]
pub fn now() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// Seconds since 1970, by this machine's wall clock.
#[must_use]
pub fn wall_seconds() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

/// As a length of [`now`].
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What has passed since a reading of [`now`].
#[must_use]
pub fn since(earlier: u64) -> Duration {
    Duration::from_nanos(now().saturating_sub(earlier))
}

/// Small, fast, repeatable (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From `TENURE_TEST_SEED`, or fresh. Always printed: cargo shows it when the test fails.
    #[must_use]
    pub fn seeded(test: &str) -> Self {
        let seed = std::env::var("TENURE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(now);
        println!("{test}: TENURE_TEST_SEED={seed}");
        Self(seed)
    }

    /// From a seed that is printed elsewhere.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// One of these.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    /// Another one, independent of this.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.bits())
    }
}
