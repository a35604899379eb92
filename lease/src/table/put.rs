//! Put and Delete: the declarative side. Neither touches a hold, except Delete with force, which ends it, and Put with a hold of its own, which grants
//! the lease in the same change or changes nothing.

use std::sync::Arc;

use super::{
    LeaseTable, Step,
    hold::Grant,
    requests::{ANY_FINGERPRINT, RequestKey, put_fingerprint},
    slots::{Retention, Slot},
};
use crate::{Delete, EndReason, EventKind, Labels, Lease, LeaseKey, NoticeKind, Outcome, Put, PutHold, Refusal};

/// What a put did to a lease.
struct Edit {
    changed: bool,
    /// Before it, if it changed them.
    previous_labels: Option<Arc<Labels>>,
}

impl LeaseTable {
    pub(super) fn put(&mut self, put: &Put, step: &mut Step) -> Outcome {
        let grant = match &put.hold {
            None => None,
            Some(hold) => match self.declared(put, hold, step) {
                Ok(grant) => Some(grant),
                Err(answer) => return answer,
            },
        };
        let Some(slot) = self.slot(&put.key) else { return self.put_new(put, grant, step) };
        if put.must_not_exist {
            return Outcome::Refused(Refusal::AlreadyExists);
        }
        self.expire_on_touch(slot, step);
        if let Some(refusal) = self.revision_mismatch(slot, put.if_revision) {
            return Outcome::Refused(refusal);
        }
        if let Some(refusal) = grant.as_ref().and_then(|grant| self.taken(slot, &grant.holder)) {
            return Outcome::Refused(refusal);
        }
        self.disarm_retention(slot);
        let edit = self.edit(slot, put);
        let Some(grant) = grant else {
            self.arm_retention(slot);
            if edit.changed {
                let revision = self.next_revision();
                self.slots.cold_mut(slot).revision = revision;
                self.slots.hot_mut(slot).renew_revision = revision;
                let lease = self.view(slot);
                self.record(step, EventKind::Updated, lease, None, edit.previous_labels);
            }
            return Outcome::Put { lease: self.view(slot) };
        };
        let revision = self.next_revision();
        let ended = self.slots.hot(slot).held.then(|| self.close_hold(slot, EndReason::Reclaimed, revision, step));
        let lease = self.grant_edited(slot, grant, revision, ended, edit.previous_labels, step);
        Outcome::Put { lease }
    }

    /// What a put's hold asks for. `Err`: the answer, when this request is known already, or nothing can be granted at all.
    fn declared(&mut self, put: &Put, hold: &PutHold, step: &mut Step) -> Result<Grant, Outcome> {
        const MISMATCH: Outcome = Outcome::Refused(Refusal::RequestMismatch);
        let request = RequestKey::of(&put.key, &hold.holder, &hold.request_id);
        let fingerprint = put_fingerprint(put, hold);
        let slot = self.slot(&put.key);
        if let Some(slot) = slot {
            self.expire_on_touch(slot, step);
        }
        if let Some(slot) = slot.filter(|slot| self.slots.hot(*slot).held && self.slots.cold(*slot).request == request) {
            // What it was to change was changed together with this grant.
            return Err(if self.slots.cold(slot).fingerprint == fingerprint { Outcome::Put { lease: self.view(slot) } } else { MISMATCH });
        }
        if self.requests.contains_key(&request) {
            return Err(MISMATCH);
        }
        if let Some(ended) = self.ended.by_request(request) {
            let same = ended.fingerprint == ANY_FINGERPRINT || ended.fingerprint == fingerprint;
            return Err(if same { Outcome::Ended { token: ended.token, reason: ended.reason } } else { MISMATCH });
        }
        if self.ended.is_full() {
            return Err(Outcome::Refused(self.too_many_ended()));
        }
        let (holder, holder_data) = (hold.holder.clone(), hold.holder_data.clone());
        Ok(Grant { holder, holder_data, duration_ms: hold.duration_ms, request, fingerprint, claim: None })
    }

    /// Why the lease cannot be granted to `holder` now, whom nobody lets wait.
    fn taken(&self, slot: Slot, holder: &Arc<str>) -> Option<Refusal> {
        let hot = self.slots.hot(slot);
        match &self.slots.cold(slot).holder {
            Some(present) if hot.held && present == holder => None,
            Some(present) if hot.held => Some(Refusal::HeldByAnother { holder: present.clone(), token: hot.token, left_ms: hot.deadline.since(self.clock) }),
            // Those who are not there at the moment keep their places, and are asked no less than those who are.
            _ => match self.queue_len(slot) {
                0 => None,
                waiters => Some(Refusal::WaitedFor { waiters: u32::try_from(waiters).unwrap_or(u32::MAX) }),
            },
        }
    }

    /// Changes what differs, as part of a change that the caller makes.
    fn edit(&mut self, slot: Slot, put: &Put) -> Edit {
        let cold = self.slots.cold(slot);
        let labels = put.labels.as_ref().filter(|labels| **labels != cold.labels).map(|labels| self.shared(labels));
        let annotations = put.annotations.as_ref().filter(|annotations| **annotations != cold.annotations).map(|annotations| self.shared(annotations));
        let retention = put.retention_ms.map(Retention::new).filter(|retention| *retention != cold.retention);
        let changed = labels.is_some() || annotations.is_some() || retention.is_some();

        let now = self.clock;
        let never_held = self.slots.hot(slot).token == 0;
        let cold = self.slots.cold_mut(slot);
        let previous_labels = labels.map(|labels| std::mem::replace(&mut cold.labels, labels));
        if let Some(annotations) = annotations {
            cold.annotations = annotations;
        }
        if let Some(retention) = retention {
            cold.retention = retention;
        }
        if never_held {
            cold.idle_since = now;
        }
        Edit { changed, previous_labels }
    }

    fn put_new(&mut self, put: &Put, grant: Option<Grant>, step: &mut Step) -> Outcome {
        if put.if_revision.is_some() {
            return Outcome::Refused(Refusal::NotFound);
        }
        if let Some(refusal) = self.namespace_full(&put.key) {
            return Outcome::Refused(refusal);
        }
        let revision = self.next_revision();
        let labels = put.labels.as_ref().map_or_else(|| self.no_labels.clone(), |labels| self.shared(labels));
        let annotations = put.annotations.as_ref().map_or_else(|| self.no_labels.clone(), |annotations| self.shared(annotations));
        let slot = self.create(&put.key, labels, annotations, put.retention_ms.flatten(), step, revision);
        if let Some(grant) = grant {
            return Outcome::Put { lease: self.grant(slot, grant, revision, None, step) };
        }
        self.arm_retention(slot);
        let lease = self.view(slot);
        self.record(step, EventKind::Created, lease.clone(), None, None);
        Outcome::Put { lease }
    }

    pub(super) fn delete(&mut self, delete: &Delete, step: &mut Step) -> Outcome {
        let Some(slot) = self.slot(&delete.key) else { return Outcome::Refused(Refusal::NotFound) };
        self.expire_on_touch(slot, step);
        if let Some(refusal) = self.revision_mismatch(slot, delete.if_revision) {
            return Outcome::Refused(refusal);
        }
        let hot = *self.slots.hot(slot);
        if !delete.force && (hot.held || self.queues.contains_key(&slot)) {
            return Outcome::Refused(Refusal::InUse { until: hot.held.then_some(hot.deadline) });
        }
        let lease = self.view(slot);
        let revision = self.next_revision();
        self.disarm_retention(slot);
        let ended = hot.held.then(|| self.close_hold(slot, EndReason::Revoked, revision, step));
        let waiters: Vec<_> = self.queues.get(&slot).into_iter().flat_map(|queue| queue.iter().map(|(id, _)| *id)).collect();
        for id in waiters {
            let waiter = self.take_waiter(slot, id);
            step.notify(waiter.session, id, NoticeKind::Denied(lease.clone()));
        }
        self.remove_lease(slot);
        self.record(step, EventKind::Deleted, lease.clone(), ended, None);
        Outcome::Deleted { lease }
    }

    /// Out of the table and its indexes; nobody holds or waits for it.
    pub(super) fn remove_lease(&mut self, slot: Slot) -> Arc<Lease> {
        assert!(!self.slots.hot(slot).held && !self.queues.contains_key(&slot), "only an idle lease is removed");
        let lease = self.view(slot);
        self.disarm_retention(slot);
        if let Some(names) = self.names.get_mut(&lease.namespace) {
            names.remove(&lease.name);
            if names.is_empty() {
                self.names.remove(&lease.namespace);
            }
        }
        self.slots.remove(slot);
        lease
    }

    fn revision_mismatch(&self, slot: Slot, wanted: Option<u64>) -> Option<Refusal> {
        let current = self.slots.cold(slot).revision;
        wanted.filter(|wanted| *wanted != current).map(|_| Refusal::RevisionMismatch { current })
    }

    pub(super) fn namespace_full(&self, key: &LeaseKey) -> Option<Refusal> {
        let limit = self.limits.leases_per_namespace;
        let there = self.names.get(&key.namespace).map_or(0, |names| names.len() as u64);
        (there >= limit).then_some(Refusal::NamespaceFull { limit })
    }
}
