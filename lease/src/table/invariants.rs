//! What must hold after every entry. For tests: it walks everything.

use super::{
    LeaseTable, Presence,
    timers::{Kind, Timer},
};
use crate::{LeaseTime, WaiterId};

impl LeaseTable {
    /// Checks what must hold after every entry, by walking the whole table. For tests.
    ///
    /// # Panics
    /// Says which invariant is broken.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let mut timers: Vec<Timer> = Vec::new();
        let (mut held, mut waiting) = (0, 0);
        for (slot, hot, cold) in self.slots.iter() {
            let named = self.names.get(&cold.namespace).and_then(|names| names.get(&cold.name));
            assert_eq!(named, Some(&slot), "{}/{} is found by its name", cold.namespace, cold.name);
            assert!(hot.token <= self.counter && cold.revision <= hot.renew_revision && hot.renew_revision <= self.counter, "{}", cold.name);
            assert_eq!(hot.unclaimed, cold.claim.is_some(), "{}", cold.name);
            assert!(hot.held || !hot.unclaimed, "{}", cold.name);
            if hot.held {
                held += 1;
                assert_eq!(self.tokens.get(hot.token, &self.slots), Some(slot), "G1: the live token of {} leads to it", cold.name);
                assert!(self.expiries.is_filed(hot.armed, slot), "{} has a timer", cold.name);
                assert!(hot.armed <= hot.deadline, "the timer of {} is not after its deadline", cold.name);
                assert!(self.ended.by_token(hot.token).is_none() && self.ended.by_request(cold.request).is_none(), "{}", cold.name);
            } else {
                assert_eq!(hot.deadline, LeaseTime(0), "{}", cold.name);
            }
            let Some(queue) = self.queues.get(&slot) else {
                timers.extend(self.retention_timer(slot));
                continue;
            };
            waiting += queue.len();
            assert!(queue.len() > 0, "no empty queues");
            let attached = queue.iter().filter(|(_, waiter)| waiter.presence == Presence::Attached).count();
            assert_eq!(attached, queue.attached(), "{}", cold.name);
            assert!(hot.held || attached == 0, "{} is free, and somebody waits for it", cold.name);
            for (id, waiter) in queue.iter() {
                assert_eq!(self.requests.get(&waiter.request), Some(&(*id, slot)));
                let session = self.sessions.get(&waiter.session).expect("a waiter's session is kept");
                assert_eq!(session.waiters.get(id), Some(&slot));
                assert!(!(session.lapsed && waiter.presence == Presence::Attached), "a lapsed session attaches nobody");
                timers.push(Timer { at: waiter.until, kind: Kind::WaitEnd, id: id.0 });
                if let Presence::Lapsed(since) | Presence::Detached(since) = waiter.presence {
                    timers.push(Timer { at: since.after(super::queue::KEEP_PLACE_MS), kind: Kind::Removal, id: id.0 });
                }
            }
        }
        assert_eq!((self.tokens.len(), self.expiries.len()), (held, held), "no token and no timer without a hold");
        assert_eq!(self.requests.len(), waiting, "no request waits without a place");
        assert_eq!(self.names.values().map(|names| names.len()).sum::<usize>(), self.slots.len(), "no name without a lease");
        assert!(self.names.values().all(|names| !names.is_empty()));
        let mut places = 0;
        for (id, session) in &self.sessions {
            places += session.waiters.len();
            assert!(!session.lapsed || !session.waiters.is_empty(), "a lapsed session is kept only for its waiters");
            if !session.lapsed {
                timers.push(session.timer(*id));
            }
            for (waiter, slot) in &session.waiters {
                assert!(self.waiter(*slot, WaiterId(waiter.0)).is_some_and(|waiter| waiter.session == *id));
            }
        }
        assert_eq!(places, waiting);
        timers.sort_unstable();
        assert!(self.timers.keys().eq(timers.iter()), "exactly the timers that there must be");
        let revisions = self.tail.events().iter().map(|event| event.revision);
        assert!(revisions.is_sorted_by(|one, next| one < next), "one change is one event");
    }
}
