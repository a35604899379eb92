//! Sessions: one a boot of a replica, kept alive in one command for all its waiters.

use std::collections::BTreeMap;

use super::{
    LeaseTable, Presence, Step,
    slots::Slot,
    timers::{Kind, Timer},
};
use crate::{LeaseTime, Outcome, SessionId, WaiterId};

/// A session not heard of for longer than this lapses.
pub(crate) const SESSION_MS: u64 = 2000;

#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// When it was heard of last.
    pub(crate) last: LeaseTime,
    /// Its waiters were detached; it is kept for them only, and has no timer.
    pub(crate) lapsed: bool,
    pub(crate) waiters: BTreeMap<WaiterId, Slot>,
}

impl Session {
    pub(crate) fn timer(&self, id: SessionId) -> Timer {
        Timer { at: self.last.after(SESSION_MS), kind: Kind::Lapse, id: id.0 }
    }
}

impl LeaseTable {
    /// Also for restoring.
    pub(crate) fn insert_session(&mut self, id: SessionId, session: Session) {
        if !session.lapsed {
            self.timers.insert(session.timer(id), 0);
        }
        self.sessions.insert(id, session);
    }

    pub(super) fn keep_session(&mut self, id: SessionId, step: &mut Step) -> Outcome {
        let mut session = self.sessions.remove(&id).unwrap_or_default();
        self.timers.remove(&session.timer(id));
        let came_back = std::mem::take(&mut session.lapsed);
        session.last = self.clock;
        let waiters: Vec<(WaiterId, Slot)> = if came_back { session.waiters.iter().map(|(waiter, slot)| (*waiter, *slot)).collect() } else { Vec::new() };
        self.insert_session(id, session);
        for (waiter, slot) in &waiters {
            if self.waiter(*slot, *waiter).is_some_and(|waiter| matches!(waiter.presence, Presence::Lapsed(_))) {
                self.set_presence(*slot, *waiter, Presence::Attached);
            }
        }
        // In the order of waiters, not of slots; and all attached before any is granted, as the first in a queue goes first.
        for (_, slot) in waiters {
            self.hand_over(slot, step);
        }
        Outcome::Done
    }

    /// The replica goes down: nobody will hear of grants to its waiters.
    pub(super) fn close_session(&mut self, id: SessionId) -> Outcome {
        let Some(session) = self.sessions.get_mut(&id) else { return Outcome::Done };
        self.timers.remove(&session.timer(id));
        session.lapsed = true;
        let waiters = session.waiters.clone();
        if waiters.is_empty() {
            self.sessions.remove(&id);
        }
        for (waiter, slot) in waiters {
            self.detach_waiter(slot, waiter);
        }
        Outcome::Done
    }

    /// Detaches its waiters; returns how many it had.
    pub(super) fn lapse(&mut self, id: SessionId) -> usize {
        let session = self.sessions.get_mut(&id).expect("a timer's session is there");
        self.timers.remove(&session.timer(id));
        session.lapsed = true;
        let waiters = session.waiters.clone();
        if waiters.is_empty() {
            self.sessions.remove(&id);
        }
        for (waiter, slot) in &waiters {
            if self.waiter(*slot, *waiter).is_some_and(|waiter| waiter.presence == Presence::Attached) {
                self.set_presence(*slot, *waiter, Presence::Lapsed(self.clock));
            }
        }
        waiters.len()
    }

    /// A lapsed session is kept only for its waiters.
    pub(super) fn leave_session(&mut self, id: SessionId, waiter: WaiterId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.waiters.remove(&waiter);
            if session.lapsed && session.waiters.is_empty() {
                self.sessions.remove(&id);
            }
        }
    }
}
