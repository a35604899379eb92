//! Grants and their ends: the only place that makes a token, and the only one that ends it.

use std::sync::Arc;

use super::{
    LeaseTable, Step,
    requests::{Ended, RequestKey},
    slots::{Claim, Cold, Hot, RECENT_HOLDS, Retention, Slot},
    timers::{Kind, Timer},
    view,
};
use crate::{EndReason, EventKind, Hold, Labels, Lease, LeaseKey, NoticeKind, WaiterId};

/// A grant from the queue must be claimed, by its first renewal, within this.
pub(crate) const CLAIM_MS: u64 = 2000;

/// What a request brings to a hold.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) holder: Arc<str>,
    pub(super) holder_data: Arc<[u8]>,
    pub(super) duration_ms: u32,
    pub(super) request: RequestKey,
    pub(super) fingerprint: u64,
    /// From the queue.
    pub(super) claim: Option<Claim>,
}

impl LeaseTable {
    /// A lease that nobody ever held, as part of the change `revision`.
    pub(super) fn create(
        &mut self,
        key: &LeaseKey,
        labels: Arc<Labels>,
        annotations: Arc<Labels>,
        retention_ms: Option<u64>,
        step: &Step,
        revision: u64,
    ) -> Slot {
        let namespace = self.names.get_key_value(&key.namespace).map_or_else(|| key.namespace.clone(), |(known, _)| known.clone());
        let cold = Cold {
            namespace: namespace.clone(),
            name: key.name.clone(),
            labels,
            annotations,
            create_revision: revision,
            create_time: step.wall,
            revision,
            transitions: 0,
            retention: Retention::new(retention_ms),
            idle_since: self.clock,
            holder: None,
            holder_data: Arc::default(),
            acquire_time: step.wall,
            request: RequestKey::default(),
            fingerprint: 0,
            claim: None,
            past: None,
        };
        let slot = self.slots.insert(Hot { renew_revision: revision, ..Hot::default() }, cold);
        let before = self.names.entry(namespace).or_default().insert(key.name.clone(), slot);
        assert!(before.is_none(), "a name is one lease");
        slot
    }

    /// Makes `grant` the hold of a lease that nobody holds, as the change `revision`, which ended `ended`.
    pub(super) fn grant(&mut self, slot: Slot, grant: Grant, revision: u64, ended: Option<Hold>, step: &mut Step) -> Arc<Lease> {
        self.grant_edited(slot, grant, revision, ended, None, step)
    }

    /// As [`Self::grant`], as part of a change that has edited the lease: `previous_labels` are those before it, if it changed them.
    pub(super) fn grant_edited(
        &mut self,
        slot: Slot,
        grant: Grant,
        revision: u64,
        ended: Option<Hold>,
        previous_labels: Option<Arc<Labels>>,
        step: &mut Step,
    ) -> Arc<Lease> {
        self.disarm_retention(slot);
        let first_ms = match grant.claim {
            Some(_) => u64::from(grant.duration_ms).min(CLAIM_MS),
            None => u64::from(grant.duration_ms),
        };
        let deadline = self.clock.after(first_ms);
        let hot = self.slots.hot_mut(slot);
        assert!(!hot.held && hot.token < revision, "one live token a lease, and each larger than the last");
        *hot = Hot {
            deadline,
            armed: deadline,
            token: revision,
            renew_revision: revision,
            renew_time: step.wall,
            duration_ms: grant.duration_ms,
            held: true,
            unclaimed: grant.claim.is_some(),
            expired: false,
        };
        let cold = self.slots.cold_mut(slot);
        let another = cold.holder.as_ref().is_some_and(|previous| *previous != grant.holder);
        cold.transitions += u64::from(another);
        cold.holder = Some(grant.holder);
        cold.holder_data = grant.holder_data;
        cold.acquire_time = step.wall;
        cold.request = grant.request;
        cold.fingerprint = grant.fingerprint;
        cold.claim = grant.claim.map(Box::new);
        cold.revision = revision;
        self.tokens.insert(slot, &self.slots);
        self.expiries.insert(deadline, slot);
        let lease = self.view(slot);
        self.record(step, EventKind::Acquired, lease.clone(), ended, previous_labels);
        lease
    }

    /// Ends the hold, as the change `revision`: the token is dead, its request remembered. The lease is nobody's for the moment.
    pub(super) fn close_hold(&mut self, slot: Slot, reason: EndReason, revision: u64, step: &Step) -> Hold {
        let hot = *self.slots.hot(slot);
        let hold = view::present_hold(&hot, self.slots.cold(slot)).expect("only a held lease has a hold to end");
        let hold = Hold { end_time: Some(step.wall), end_reason: Some(reason), end_revision: revision, ..hold };
        self.tokens.remove(slot, &self.slots);
        self.expiries.remove(hot.armed, slot);
        *self.slots.hot_mut(slot) =
            Hot { deadline: Default::default(), armed: Default::default(), held: false, unclaimed: false, renew_revision: revision, ..hot };

        let idle_since = self.clock;
        let cold = self.slots.cold_mut(slot);
        let past = Arc::make_mut(cold.past.get_or_insert_default());
        if past.len() == RECENT_HOLDS {
            past.remove(0);
        }
        // Most leases have had one hold or two; growing by doubling would start with room for four.
        past.reserve_exact(1);
        past.push(hold.clone());
        let ended = Ended {
            request: std::mem::take(&mut cold.request),
            token: hot.token,
            reason,
            fingerprint: std::mem::take(&mut cold.fingerprint),
            ended_at: idle_since,
        };
        cold.claim = None;
        cold.revision = revision;
        cold.idle_since = idle_since;
        let new = self.ended.remember(ended);
        assert!(new || crate::bug!("bug_granted_twice"), "a request is granted once");
        hold
    }

    /// Ends the hold and hands over to the next attached waiter, in one change.
    pub(super) fn end_hold(&mut self, slot: Slot, reason: EndReason, ran_out: bool, step: &mut Step) {
        let revision = self.next_revision();
        let hold = self.close_hold(slot, reason, revision, step);
        let next = self.first_attached(slot);
        if let Some(waiter) = next {
            self.grant_waiter(slot, waiter, revision, Some(hold), true, step);
        } else {
            self.slots.hot_mut(slot).expired = ran_out;
            self.arm_retention(slot);
            let lease = self.view(slot);
            let kind = if ran_out { EventKind::Expired } else { EventKind::Released };
            self.record(step, kind, lease, Some(hold), None);
        }
    }

    /// Grants a lease that nobody holds to its first attached waiter, if there is one.
    pub(super) fn hand_over(&mut self, slot: Slot, step: &mut Step) {
        if !self.slots.hot(slot).held
            && let Some(waiter) = self.first_attached(slot)
        {
            let revision = self.next_revision();
            self.grant_waiter(slot, waiter, revision, None, true, step);
        }
    }

    /// Moves a waiter from the queue into the hold. `tell`: through its session, not in an outcome.
    pub(super) fn grant_waiter(&mut self, slot: Slot, id: WaiterId, revision: u64, ended: Option<Hold>, tell: bool, step: &mut Step) -> Arc<Lease> {
        let waiter = self.take_waiter(slot, id);
        let grant = Grant {
            holder: waiter.holder,
            holder_data: waiter.holder_data,
            duration_ms: waiter.duration_ms,
            request: waiter.request,
            fingerprint: waiter.fingerprint,
            claim: Some(Claim { waiter: id, session: waiter.session }),
        };
        let lease = self.grant(slot, grant, revision, ended, step);
        if tell {
            step.notify(waiter.session, id, NoticeKind::Granted(lease.clone()));
        }
        lease
    }

    /// bug_deadlines_reset: a new raft leader gives every hold its full time again (etcd#9888, #9395: leases that never end).
    #[cfg(feature = "bug_deadlines_reset")]
    pub(super) fn reset_deadlines(&mut self, by: crate::RaftLeaderId) {
        let before = std::mem::replace(&mut self.raft_leader, by);
        if before == by || before == crate::RaftLeaderId::default() || !crate::bug!("bug_deadlines_reset") {
            return;
        }
        let held: Vec<Slot> = self.slots.iter().filter(|(_, hot, _)| hot.held).map(|(slot, ..)| slot).collect();
        for slot in held {
            let hot = self.slots.hot_mut(slot);
            hot.deadline = hot.deadline.max(self.clock.after(u64::from(hot.duration_ms)));
        }
    }

    /// Starts the retention of a lease that nobody holds or waits for.
    pub(super) fn arm_retention(&mut self, slot: Slot) {
        if let Some(timer) = self.retention_timer(slot) {
            self.timers.insert(timer, slot);
        }
    }

    /// To be called before anything that [`Self::arm_retention`] looks at changes.
    pub(super) fn disarm_retention(&mut self, slot: Slot) {
        if let Some(timer) = self.retention_timer(slot) {
            self.timers.remove(&timer);
        }
    }

    pub(super) fn retention_timer(&self, slot: Slot) -> Option<Timer> {
        let cold = self.slots.cold(slot);
        let idle = !self.slots.hot(slot).held && !self.queues.contains_key(&slot);
        let retention_ms = cold.retention.ms().filter(|_| idle)?;
        Some(Timer { at: cold.idle_since.after(retention_ms), kind: Kind::Retention, id: cold.create_revision })
    }
}
