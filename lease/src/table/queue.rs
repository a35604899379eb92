//! Waiters: in the order in which their enqueueing was committed. A detached one keeps its place and is skipped.
//!
//! **Invariant**: a lease that nobody holds has no attached waiter. Whatever frees a lease or attaches a waiter hands over.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    LeaseTable, Step,
    requests::RequestKey,
    slots::Slot,
    timers::{Kind, Timer},
};
use crate::{Detach, EndReason, LeaseTime, NoticeKind, Outcome, SessionId, WaiterId};

/// How long a detached waiter keeps its place.
pub(crate) const KEEP_PLACE_MS: u64 = 10_000;

/// A request that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub(crate) request: RequestKey,
    pub(crate) fingerprint: u64,
    pub(crate) holder: Arc<str>,
    pub(crate) holder_data: Arc<[u8]>,
    pub(crate) duration_ms: u32,
    pub(crate) session: SessionId,
    /// End of the wait.
    pub(crate) until: LeaseTime,
    pub(crate) presence: Presence,
}

/// Whether anybody would hear of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its session lives and has its stream.
    Attached,
    /// Its session lapsed, then. It is attached again when the session comes back.
    Lapsed(LeaseTime),
    /// Its stream went, then. Only its client can attach it again.
    Detached(LeaseTime),
}

/// The waiters of one lease; never empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    waiters: BTreeMap<WaiterId, Waiter>,
    attached: usize,
}

impl Queue {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&WaiterId, &Waiter)> {
        self.waiters.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) const fn attached(&self) -> usize {
        self.attached
    }

    pub(crate) fn get(&self, id: WaiterId) -> Option<&Waiter> {
        self.waiters.get(&id)
    }

    fn insert(&mut self, id: WaiterId, waiter: Waiter) {
        self.attached += usize::from(waiter.presence == Presence::Attached);
        let before = self.waiters.insert(id, waiter);
        assert!(before.is_none(), "a place in the queue is one waiter's");
    }

    fn remove(&mut self, id: WaiterId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        self.attached -= usize::from(waiter.presence == Presence::Attached);
        Some(waiter)
    }

    fn set_presence(&mut self, id: WaiterId, presence: Presence) {
        let waiter = self.waiters.get_mut(&id).expect("only a waiter has a presence");
        self.attached -= usize::from(waiter.presence == Presence::Attached);
        waiter.presence = presence;
        self.attached += usize::from(presence == Presence::Attached);
    }
}

impl Waiter {
    pub(super) fn timers(&self, id: WaiterId) -> impl Iterator<Item = Timer> + use<> {
        let removal = match self.presence {
            Presence::Attached => None,
            Presence::Lapsed(since) | Presence::Detached(since) => Some(Timer { at: since.after(KEEP_PLACE_MS), kind: Kind::Removal, id: id.0 }),
        };
        [Timer { at: self.until, kind: Kind::WaitEnd, id: id.0 }].into_iter().chain(removal)
    }
}

impl LeaseTable {
    pub(super) fn queue_len(&self, slot: Slot) -> usize {
        self.queues.get(&slot).map_or(0, |queue| queue.len())
    }

    /// 1 is next.
    pub(super) fn position(&self, slot: Slot, id: WaiterId) -> u32 {
        let Some(queue) = self.queues.get(&slot) else { return 0 };
        // A new waiter, by far the most frequent one to ask, is the last.
        let last = queue.waiters.last_key_value().is_some_and(|(last, _)| *last == id);
        let rank = if last { queue.len() } else { queue.waiters.range(..=id).count() };
        u32::try_from(rank).unwrap_or(u32::MAX)
    }

    pub(super) fn first_attached(&self, slot: Slot) -> Option<WaiterId> {
        let queue = self.queues.get(&slot).filter(|queue| queue.attached > 0)?;
        // bug_detached_granted: granted to somebody who is not there any more (etcd#11456, #9921).
        let mut present = queue.iter().filter(|(_, waiter)| waiter.presence == Presence::Attached || crate::bug!("bug_detached_granted"));
        // bug_last_first: whoever came last is granted first (a stack where a queue should be).
        let next = if crate::bug!("bug_last_first") { present.last() } else { present.next() };
        next.map(|(id, _)| *id)
    }

    pub(super) fn waiter(&self, slot: Slot, id: WaiterId) -> Option<&Waiter> {
        self.queues.get(&slot)?.get(id)
    }

    /// Also for restoring. Its session must be there.
    pub(crate) fn insert_waiter(&mut self, slot: Slot, id: WaiterId, waiter: Waiter) {
        let session = self.sessions.get_mut(&waiter.session).expect("a waiter's session is kept");
        session.waiters.insert(id, slot);
        self.timers.extend(waiter.timers(id).map(|timer| (timer, slot)));
        let before = self.requests.insert(waiter.request, (id, slot));
        assert!(before.is_none(), "a request waits once");
        Arc::make_mut(self.queues.entry(slot).or_default()).insert(id, waiter);
    }

    /// Out of the queue and of every index. If it leaves a lease that nobody holds or waits for, see [`Self::settle`].
    pub(super) fn take_waiter(&mut self, slot: Slot, id: WaiterId) -> Waiter {
        let queue = self.queues.get_mut(&slot).expect("a waiter has a queue");
        let waiter = Arc::make_mut(queue).remove(id).expect("only a waiter can leave the queue");
        if queue.len() == 0 {
            self.queues.remove(&slot);
        }
        for timer in waiter.timers(id) {
            self.timers.remove(&timer);
        }
        self.requests.remove(&waiter.request);
        self.leave_session(waiter.session, id);
        waiter
    }

    /// Drops a waiter, as a change of its own.
    pub(super) fn drop_waiter(&mut self, slot: Slot, id: WaiterId) -> Waiter {
        self.next_revision();
        let waiter = self.take_waiter(slot, id);
        self.settle(slot);
        waiter
    }

    /// Its last waiter may have left: if nobody holds it either, it is idle from now on.
    fn settle(&mut self, slot: Slot) {
        if !self.slots.hot(slot).held && !self.queues.contains_key(&slot) {
            self.slots.cold_mut(slot).idle_since = self.clock;
            self.arm_retention(slot);
        }
    }

    pub(super) fn set_presence(&mut self, slot: Slot, id: WaiterId, presence: Presence) {
        let queue = Arc::make_mut(self.queues.get_mut(&slot).expect("a waiter has a queue"));
        for timer in queue.get(id).into_iter().flat_map(|waiter| waiter.timers(id)) {
            self.timers.remove(&timer);
        }
        queue.set_presence(id, presence);
        for timer in queue.get(id).into_iter().flat_map(|waiter| waiter.timers(id)) {
            self.timers.insert(timer, slot);
        }
    }

    /// Attaches a waiter to the stream that asked anew, with the rest of its wait.
    pub(super) fn reattach(&mut self, slot: Slot, id: WaiterId, session: SessionId, until: LeaseTime, step: &mut Step) {
        let waiter = self.take_waiter(slot, id);
        if waiter.session != session {
            step.notify(waiter.session, id, NoticeKind::Moved);
        }
        self.insert_waiter(slot, id, Waiter { session, until, presence: Presence::Attached, ..waiter });
    }

    /// Its stream is gone, whatever becomes of its session.
    pub(super) fn detach_waiter(&mut self, slot: Slot, id: WaiterId) {
        let presence = match self.waiter(slot, id).map(|waiter| waiter.presence) {
            Some(Presence::Attached) => Presence::Detached(self.clock),
            // The ten seconds run from the first.
            Some(Presence::Lapsed(since)) => Presence::Detached(since),
            Some(Presence::Detached(_)) | None => return,
        };
        self.set_presence(slot, id, presence);
    }

    pub(super) fn detach(&mut self, detach: &Detach, step: &mut Step) -> Outcome {
        let Some(slot) = self.slot(&detach.key) else { return Outcome::Done };
        if crate::bug!("bug_expiry_without_term") && detach.session == SessionId(u64::MAX) {
            // Revoked by who was raft leader when it decided so, whatever was renewed since (etcd#15247, #12528; see the server's bugs.rs).
            if self.slots.hot(slot).held && self.slots.hot(slot).token == detach.waiter.0 {
                self.expire(slot, step);
            }
            return Outcome::Done;
        }
        if self.waiter(slot, detach.waiter).is_some_and(|waiter| waiter.session == detach.session) {
            self.detach_waiter(slot, detach.waiter);
        } else if self.slots.cold(slot).claim.as_deref().is_some_and(|claim| claim.waiter == detach.waiter && claim.session == detach.session) {
            self.end_hold(slot, EndReason::Unclaimed, false, step);
        }
        Outcome::Done
    }

    /// The wait is over.
    pub(super) fn deny_waiter(&mut self, slot: Slot, id: WaiterId, step: &mut Step) {
        let waiter = self.drop_waiter(slot, id);
        if crate::bug!("bug_wait_never_ends") && self.slots.hot(slot).held && self.sessions.contains_key(&waiter.session) {
            // It is told that the wait is over, and stays in the queue (etcd#11456: the lock of who gave up waiting).
            self.insert_waiter(slot, id, Waiter { until: self.clock.after(60_000), ..waiter.clone() });
        }
        let lease = self.view(slot);
        step.notify(waiter.session, id, NoticeKind::Denied(lease));
    }

    /// Nobody came back for its place.
    pub(super) fn remove_detached(&mut self, slot: Slot, id: WaiterId, step: &mut Step) {
        let waiter = self.drop_waiter(slot, id);
        step.notify(waiter.session, id, NoticeKind::Ended(EndReason::Detached));
    }
}
