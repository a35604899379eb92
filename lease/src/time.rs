//! Time as data. Nothing here reads a clock, and nothing in this crate may.

/// Milliseconds of lease clock: elapsed time as raft leaders measured it, starting at 0 with the cluster, never decreasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseTime(pub u64);

impl LeaseTime {
    /// `self + ms`, ending at the end of time instead of wrapping.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `now` to `self`; 0 when `self` has passed.
    #[must_use]
    pub const fn since(self, now: Self) -> u64 {
        self.0.saturating_sub(now.0)
    }
}

/// Wall-clock milliseconds since 1970, stamped by the raft leader for people to read. No decision uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);
