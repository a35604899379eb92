//! The raft leader's lease clock (DESIGN section 3): elapsed time on top of the clock last applied. Reads no clock: it is handed readings.
//!
//! **Invariant**: stamps never decrease, and none runs more than [`AHEAD`] milliseconds ahead of the clock last applied. So the clock pauses
//! while nothing can be committed, and an outage, or a suspended machine, does not end every lease at once.

use std::time::Duration;

use tenure_lease::{LeaseTime, bug};

use crate::clock::Readings;

/// Milliseconds. Above the interval of ticks plus a slow commit, so that a healthy cluster never comes near it.
const AHEAD: u64 = 1_000;

const NS_PER_MS: u64 = 1_000_000;

/// One raft leader's clock, for one term.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseClock {
    /// What the clock showed ...
    anchor: LeaseTime,
    /// ... at these readings.
    at: Readings,
    /// The newest stamp.
    last: LeaseTime,
}

impl LeaseClock {
    /// Starts from the clock last applied, once the blank entry of the term is applied.
    pub(super) fn anchored(applied: LeaseTime, now: Readings) -> Self {
        // bug_leader_clock: deadlines are instants of the raft leader's own clock, and the next raft leader's is another (hiqlite's node clock).
        let applied = if bug!("bug_leader_clock") { LeaseTime(now.boottime_ns / NS_PER_MS) } else { applied };
        Self { anchor: applied, at: now, last: applied }
    }

    /// Starts again from the clock last applied: back in the same term after having lost the quorum. What was stamped before may still be
    /// committed, so stamps do not go back behind it.
    pub(super) fn anchor_again(&mut self, applied: LeaseTime, now: Readings) {
        if bug!("bug_clock_in_outage") {
            // Time passes while nothing can be renewed, and an outage ends every lease at once (Kubernetes' node leases, k8s#65497's kind).
            return;
        }
        self.anchor = applied;
        self.at = now;
        self.last = self.last.max(applied);
    }

    /// The stamp of an entry that is complete.
    pub(super) fn stamp(&mut self, now: Readings, applied: LeaseTime) -> LeaseTime {
        let mut time = self.anchor.after(now.surely_since(self.at) / NS_PER_MS);
        let ceiling = applied.after(AHEAD);
        if time > ceiling && !bug!("bug_clock_in_outage") && !bug!("bug_leader_clock") {
            time = ceiling;
            self.anchor = ceiling;
            self.at = now;
        }
        self.last = time.max(applied).max(self.last);
        self.last
    }

    /// The newest stamp; what it started from if there is none.
    pub(super) fn last(&self) -> LeaseTime {
        self.last
    }

    /// How long until a stamp can be `when` or later. Zero when one can be now; the ceiling is not asked.
    pub(super) fn until(&self, when: LeaseTime, now: Readings) -> Duration {
        if when <= self.last {
            return Duration::ZERO;
        }
        let ahead = when.since(self.anchor).saturating_mul(NS_PER_MS);
        Duration::from_nanos(ahead.saturating_sub(now.surely_since(self.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Readings {
        Readings { boottime_ns: ms * NS_PER_MS, monotonic_raw_ns: ms * NS_PER_MS }
    }

    #[test]
    fn clock_starts_where_the_last_raft_leader_left_it() {
        let mut clock = LeaseClock::anchored(LeaseTime(5_000), at_ms(900_000));
        assert_eq!(clock.last(), LeaseTime(5_000));
        assert_eq!(clock.stamp(at_ms(900_000), LeaseTime(5_000)), LeaseTime(5_000));
        assert_eq!(clock.stamp(at_ms(900_250), LeaseTime(5_000)), LeaseTime(5_250));
    }

    #[test]
    fn suspended_leader_does_not_jump() {
        let mut clock = LeaseClock::anchored(LeaseTime(0), at_ms(0));
        assert_eq!(clock.stamp(at_ms(100), LeaseTime(0)), LeaseTime(100));
        // Stopped for an hour, continued in the same term.
        assert_eq!(clock.stamp(at_ms(3_600_100), LeaseTime(100)), LeaseTime(1_100));
        // And from there with its own elapsed time, not with the hour that it missed.
        assert_eq!(clock.stamp(at_ms(3_600_150), LeaseTime(1_100)), LeaseTime(1_150));
        assert_eq!(clock.stamp(at_ms(3_601_100), LeaseTime(1_150)), LeaseTime(2_100));
    }

    #[test]
    fn suspend_that_only_one_clock_counts_is_not_counted() {
        let mut clock = LeaseClock::anchored(LeaseTime(0), at_ms(0));
        let now = Readings { boottime_ns: 900 * NS_PER_MS, monotonic_raw_ns: 100 * NS_PER_MS };
        assert_eq!(clock.stamp(now, LeaseTime(0)), LeaseTime(100));
    }

    #[test]
    fn clock_stands_still_while_nothing_is_applied() {
        let mut clock = LeaseClock::anchored(LeaseTime(7), at_ms(0));
        for second in 1..60 {
            assert_eq!(clock.stamp(at_ms(second * 1_000 + 500), LeaseTime(7)), LeaseTime(1_007));
        }
    }

    #[test]
    fn slow_commits_do_not_stop_the_clock() {
        let mut clock = LeaseClock::anchored(LeaseTime(0), at_ms(0));
        let mut applied = LeaseTime(0);
        for n in 1..1_000 {
            // Each entry is applied 950 ms after it was stamped, when the next one is stamped.
            let stamp = clock.stamp(at_ms(n * 950), applied);
            assert_eq!(stamp, LeaseTime(n * 950));
            applied = stamp;
        }
    }

    #[test]
    fn fractions_of_a_millisecond_are_not_lost() {
        let mut clock = LeaseClock::anchored(LeaseTime(0), Readings::default());
        let mut stamp = LeaseTime(0);
        for n in 1..=10_000_u64 {
            let ns = n * 100_900;
            stamp = clock.stamp(Readings { boottime_ns: ns, monotonic_raw_ns: ns }, stamp);
        }
        assert_eq!(stamp, LeaseTime(1_009));
    }

    #[test]
    fn clock_never_goes_back() {
        let mut clock = LeaseClock::anchored(LeaseTime(0), at_ms(1_000));
        assert_eq!(clock.stamp(at_ms(1_900), LeaseTime(0)), LeaseTime(900));
        // Readings that went back.
        assert_eq!(clock.stamp(at_ms(500), LeaseTime(0)), LeaseTime(900));
        // Back in the same term, what was stamped is still on its way.
        clock.anchor_again(LeaseTime(0), at_ms(2_000));
        assert_eq!(clock.stamp(at_ms(2_001), LeaseTime(0)), LeaseTime(900));
        assert_eq!(clock.stamp(at_ms(2_950), LeaseTime(0)), LeaseTime(950));
        assert_eq!(clock.stamp(at_ms(2_950), LeaseTime(3_000)), LeaseTime(3_000));
    }

    #[test]
    fn waiting_until_a_time_makes_the_stamp_that_late() {
        let mut clock = LeaseClock::anchored(LeaseTime(100), Readings::default());
        let half = Readings { boottime_ns: 500_000, monotonic_raw_ns: 500_000 };
        let wait = clock.until(LeaseTime(103), half);
        assert_eq!(wait, Duration::from_micros(2_500));
        let ns = 500_000 + u64::try_from(wait.as_nanos()).unwrap();
        let late = Readings { boottime_ns: ns, monotonic_raw_ns: ns };
        assert_eq!(clock.stamp(late, LeaseTime(100)), LeaseTime(103));
        assert_eq!(clock.until(LeaseTime(103), late), Duration::ZERO);
        assert_eq!(clock.until(LeaseTime(0), late), Duration::ZERO);
        assert_ne!(clock.until(LeaseTime(u64::MAX), late), Duration::ZERO);
    }
}
