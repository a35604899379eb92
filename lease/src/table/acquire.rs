//! Acquire: answers a repeated request from the live state, and grants, queues or denies a new one.

use super::{
    LeaseTable, Presence, Step, Waiter,
    hold::Grant,
    requests::{ANY_FINGERPRINT, REMEMBER_MS, RequestKey, fingerprint},
    slots::Slot,
};
use crate::{Acquire, EndReason, NoticeKind, Outcome, Refusal, SessionId, WaiterId};

impl LeaseTable {
    pub(super) fn acquire(&mut self, acquire: &Acquire, step: &mut Step) -> Outcome {
        let request = RequestKey::of(&acquire.key, &acquire.holder, &acquire.request_id);
        let fingerprint = fingerprint(acquire);
        if let Some(slot) = self.slot(&acquire.key) {
            self.expire_on_touch(slot, step);
        }
        if acquire.wait_ms > 0 && self.requests.contains_key(&request) {
            // Before the live state is looked at: a session that comes back may be granted this very lease.
            self.keep_session(acquire.session, step);
        }
        if let Some(outcome) = self.repeated(acquire, request, fingerprint, step) {
            return outcome;
        }
        if self.ended.is_full() {
            return Outcome::Refused(self.too_many_ended());
        }
        self.acquire_anew(acquire, request, fingerprint, step)
    }

    /// `None`: nothing is known of this request.
    fn repeated(&mut self, acquire: &Acquire, request: RequestKey, fingerprint: u64, step: &mut Step) -> Option<Outcome> {
        const MISMATCH: Outcome = Outcome::Refused(Refusal::RequestMismatch);
        if let Some(slot) = self.slot(&acquire.key)
            && self.slots.hot(slot).held
            && self.slots.cold(slot).request == request
        {
            if self.slots.cold(slot).fingerprint != fingerprint {
                return Some(MISMATCH);
            }
            self.move_claim(slot, acquire.session);
            return Some(Outcome::Granted { lease: self.view(slot), must_renew: true });
        }
        if let Some((id, slot)) = self.requests.get(&request).copied() {
            let known = self.waiter(slot, id).map(|waiter| waiter.fingerprint);
            return Some(if known == Some(fingerprint) { self.waiting(acquire, slot, id, step) } else { MISMATCH });
        }
        // bug_granted_twice: only what is alive is remembered, so a retry that comes late is a new request (Redis-Raft; Jepsen's lost answers).
        let ended = self.ended.by_request(request).filter(|_| !crate::bug!("bug_granted_twice"))?;
        if ended.fingerprint != ANY_FINGERPRINT && ended.fingerprint != fingerprint {
            return Some(MISMATCH);
        }
        Some(Outcome::Ended { token: ended.token, reason: ended.reason })
    }

    /// A waiter asks again.
    fn waiting(&mut self, acquire: &Acquire, slot: Slot, id: WaiterId, step: &mut Step) -> Outcome {
        if !self.slots.hot(slot).held {
            // Those before it, if any, are detached: nobody attached waits for a lease that nobody holds.
            let revision = self.next_revision();
            let before = self.waiter(slot, id).map(|waiter| waiter.session);
            let lease = self.grant_waiter(slot, id, revision, None, false, step);
            if let Some(before) = before.filter(|before| *before != acquire.session) {
                step.notify(before, id, NoticeKind::Moved);
                self.move_claim(slot, acquire.session);
            }
            return Outcome::Granted { lease, must_renew: true };
        }
        if acquire.wait_ms == 0 {
            let waiter = self.drop_waiter(slot, id);
            step.notify(waiter.session, id, NoticeKind::Moved);
            return Outcome::Denied { lease: self.view(slot) };
        }
        self.reattach(slot, id, acquire.session, self.clock.after(acquire.wait_ms), step);
        Outcome::Queued { position: self.position(slot, id), waiter: id, lease: self.view(slot) }
    }

    /// The client of an unclaimed grant is at another replica now: that its old stream is gone means nothing any more.
    fn move_claim(&mut self, slot: Slot, session: SessionId) {
        if self.slots.cold(slot).claim.as_deref().is_some_and(|claim| claim.session != session)
            && let Some(claim) = &mut self.slots.cold_mut(slot).claim
        {
            claim.session = session;
        }
    }

    fn acquire_anew(&mut self, acquire: &Acquire, request: RequestKey, fingerprint: u64, step: &mut Step) -> Outcome {
        let grant = Grant {
            holder: acquire.holder.clone(),
            holder_data: acquire.holder_data.clone(),
            duration_ms: acquire.duration_ms,
            request,
            fingerprint,
            claim: None,
        };
        let Some(slot) = self.slot(&acquire.key) else {
            if let Some(refusal) = self.namespace_full(&acquire.key) {
                return Outcome::Refused(refusal);
            }
            let revision = self.next_revision();
            let (labels, annotations) = (self.shared(&acquire.labels), self.shared(&acquire.annotations));
            let slot = self.create(&acquire.key, labels, annotations, Some(acquire.retention_ms), step, revision);
            let lease = self.grant(slot, grant, revision, None, step);
            return Outcome::Granted { lease, must_renew: false };
        };
        if !self.slots.hot(slot).held {
            let revision = self.next_revision();
            let lease = self.grant(slot, grant, revision, None, step);
            return Outcome::Granted { lease, must_renew: false };
        }
        if acquire.reclaim && self.slots.cold(slot).holder.as_ref() == Some(&acquire.holder) {
            let revision = self.next_revision();
            let ended = self.close_hold(slot, EndReason::Reclaimed, revision, step);
            let lease = self.grant(slot, grant, revision, Some(ended), step);
            return Outcome::Granted { lease, must_renew: false };
        }
        if acquire.wait_ms == 0 {
            return Outcome::Denied { lease: self.view(slot) };
        }
        let limit = self.limits.waiters_per_lease;
        if self.queue_len(slot) >= limit as usize {
            return Outcome::Refused(Refusal::QueueFull { limit });
        }
        self.keep_session(acquire.session, step);
        let id = WaiterId(self.next_revision());
        let waiter = Waiter {
            request,
            fingerprint,
            holder: grant.holder,
            holder_data: grant.holder_data,
            duration_ms: grant.duration_ms,
            session: acquire.session,
            until: self.clock.after(acquire.wait_ms),
            presence: Presence::Attached,
        };
        self.insert_waiter(slot, id, waiter);
        Outcome::Queued { position: self.position(slot, id), waiter: id, lease: self.view(slot) }
    }

    pub(super) fn too_many_ended(&self) -> Refusal {
        let until = self.ended.oldest().map_or(self.clock, |oldest| oldest.ended_at.after(REMEMBER_MS));
        // It is forgotten once the clock is past that.
        Refusal::TooManyEnded { retry_ms: until.since(self.clock).saturating_add(1) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Command, Entry, LeaseKey, LeaseTime, Limits, RaftLeaderId, Release, ReleaseBy};

    fn apply(table: &mut LeaseTable, now: u64, command: Command) -> Outcome {
        let entry = Entry { stamp: LeaseTime(now), commands: vec![command], ..Entry::default() };
        let outcome = table.apply(RaftLeaderId::default(), entry, false).outcomes.remove(0);
        table.check_invariants();
        outcome
    }

    fn acquire(table: &mut LeaseTable, now: u64, name: &str) -> Outcome {
        let command = Command::Acquire(Box::new(Acquire {
            key: LeaseKey::trusted("default", name),
            holder: "x".into(),
            duration_ms: 1_000_000,
            request_id: "1".into(),
            wait_ms: 0,
            reclaim: false,
            holder_data: Arc::default(),
            session: SessionId(0),
            retention_ms: 1_000_000,
            labels: Arc::default(),
            annotations: Arc::default(),
        }));
        apply(table, now, command)
    }

    fn release(table: &mut LeaseTable, now: u64, name: &str) -> Outcome {
        let by = ReleaseBy::Request { holder: "x".into(), request_id: "1".into() };
        apply(table, now, Command::Release(Box::new(Release { key: LeaseKey::trusted("default", name), by })))
    }

    #[test]
    fn acquires_are_shed_while_too_many_ended_requests_are_remembered() {
        let mut table = LeaseTable::new();
        apply(&mut table, 0, Command::Bootstrap { counter_start: 1, limits: Limits::default() });
        table.ended.most = 2;
        for name in ["a", "b", "c"] {
            assert!(matches!(acquire(&mut table, 10, name), Outcome::Granted { .. }));
        }
        release(&mut table, 20, "a");
        release(&mut table, 30, "b");
        let shed = Outcome::Refused(Refusal::TooManyEnded { retry_ms: REMEMBER_MS - 20 + 1 });
        assert_eq!(acquire(&mut table, 40, "d"), shed);
        assert_eq!(release(&mut table, 40, "d"), shed, "a bar that is not remembered bars nothing");
        assert!(matches!(acquire(&mut table, 40, "a"), Outcome::Ended { .. }), "what is known is still answered");
        assert!(matches!(release(&mut table, 50, "c"), Outcome::Released { .. }), "no end is refused, nor forgotten");
        assert!(matches!(acquire(&mut table, 50, "c"), Outcome::Ended { .. }));
        assert!(matches!(acquire(&mut table, 30 + REMEMBER_MS + 1, "d"), Outcome::Granted { .. }), "after the time it said, and one more");
    }
}
