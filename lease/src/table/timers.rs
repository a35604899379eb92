//! What happens because time passed, in the order of its instants.
//!
//! A renewal moves the lease's deadline only. The expiry index still has the old one; when that comes up, the hold is filed
//! under its present deadline. So the first of the index, once its instant is its deadline, is the first of all deadlines.

use super::{
    LeaseTable, Step,
    queue::KEEP_PLACE_MS,
    requests::REMEMBER_MS,
    slots::{Hot, Slot},
};
use crate::{EndReason, EventKind, LeaseTime, SessionId, WaiterId};

/// How many timers one entry runs, so that no entry stops a replica for long.
const TIMERS_PER_ENTRY: usize = 2000;
/// How many ended requests one entry forgets: these are cheap.
const FORGET_PER_ENTRY: usize = 20_000;

/// Runs when the clock is past `at`. Ordered by replicated values only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer {
    pub(crate) at: LeaseTime,
    pub(crate) kind: Kind,
    /// Session, token, waiter or create revision.
    pub(crate) id: u64,
}

/// In the order in which timers of one instant run: nothing is granted to who is gone, and a lease that runs out with
/// somebody's wait is still theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Lapse,
    Removal,
    Expiry,
    WaitEnd,
    Retention,
}

impl LeaseTable {
    /// Runs every timer whose instant has passed, up to a bound.
    pub(super) fn run_timers(&mut self, step: &mut Step) {
        let mut left = TIMERS_PER_ENTRY;
        while let Some((timer, slot)) = self.due() {
            if left == 0 {
                step.applied.more_expiries = true;
                break;
            }
            let cost = self.fire(timer, slot, step);
            left = left.saturating_sub(cost);
        }
        let horizon = LeaseTime(self.clock.0.saturating_sub(REMEMBER_MS));
        step.applied.more_expiries |= self.ended.forget_before(horizon, FORGET_PER_ENTRY);
    }

    fn due(&mut self) -> Option<(Timer, Slot)> {
        let expiry = self.first_expiry();
        let other = self.timers.first_key_value().map(|(timer, slot)| (*timer, *slot));
        let first = match (expiry, other) {
            (Some(expiry), Some(other)) => {
                if expiry.0 < other.0 {
                    expiry
                } else {
                    other
                }
            }
            (one, other) => one.or(other)?,
        };
        self.has_passed(first.0.at).then_some(first)
    }

    fn has_passed(&self, at: LeaseTime) -> bool {
        // bug_expiry_at_deadline: off by one millisecond, which the last holder believed to have.
        self.clock > at || (crate::bug!("bug_expiry_at_deadline") && self.clock == at)
    }

    /// The first deadline, if the clock is past it.
    fn first_expiry(&mut self) -> Option<(Timer, Slot)> {
        loop {
            self.expiries.first().filter(|at| self.has_passed(*at))?;
            let (at, slot) = self.expiries.next(|slot| self.slots.hot(slot).token)?;
            let Hot { deadline, token, .. } = *self.slots.hot(slot);
            if deadline == at {
                return Some((Timer { at, kind: Kind::Expiry, id: token }, slot));
            }
            assert!(deadline > at, "no hold is filed after its deadline");
            self.expiries.remove(at, slot);
            self.expiries.insert(deadline, slot);
            self.slots.hot_mut(slot).armed = deadline;
        }
    }

    /// How much of an entry's bound it took.
    fn fire(&mut self, timer: Timer, slot: Slot, step: &mut Step) -> usize {
        match timer.kind {
            Kind::Lapse => return self.lapse(SessionId(timer.id)).max(1),
            Kind::Removal => self.remove_detached(slot, WaiterId(timer.id), step),
            Kind::WaitEnd => self.deny_waiter(slot, WaiterId(timer.id), step),
            Kind::Expiry => self.expire(slot, step),
            Kind::Retention => {
                self.next_revision();
                let lease = self.remove_lease(slot);
                self.record(step, EventKind::Deleted, lease, None, None);
            }
        }
        1
    }

    /// Ends a hold whose deadline has passed.
    pub(super) fn expire(&mut self, slot: Slot, step: &mut Step) {
        let reason = if self.slots.hot(slot).unclaimed { EndReason::Unclaimed } else { EndReason::Expired };
        self.end_hold(slot, reason, true, step);
    }

    /// What is asked about a lease is asked about its present state, also when its expiry was beyond the bound.
    pub(super) fn expire_on_touch(&mut self, slot: Slot, step: &mut Step) {
        let hot = self.slots.hot(slot);
        if hot.held && self.has_passed(hot.deadline) {
            self.expire(slot, step);
        }
    }

    /// The first instant after which a tick may change something (may be early: timers are lazy). `None`: the clock may stand
    /// still.
    #[must_use]
    pub fn next_timer(&self) -> Option<LeaseTime> {
        let expiry = self.expiries.first();
        let other = self.timers.first_key_value().map(|(timer, _)| timer.at);
        let forget = self.ended.oldest().map(|ended| ended.ended_at.after(REMEMBER_MS));
        [expiry, other, forget].into_iter().flatten().min()
    }
}

const _: () = assert!(KEEP_PLACE_MS > super::sessions::SESSION_MS, "a session that comes back finds its waiters");
