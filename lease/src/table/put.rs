//! Put and Delete: the declarative side. Neither touches a hold, except Delete with force, which ends it.

use std::sync::Arc;

use super::{
    LeaseTable, Step,
    slots::{Retention, Slot},
};
use crate::{Delete, EndReason, EventKind, Lease, LeaseKey, NoticeKind, Outcome, Put, Refusal};

impl LeaseTable {
    pub(super) fn put(&mut self, put: &Put, step: &mut Step) -> Outcome {
        let Some(slot) = self.slot(&put.key) else { return self.put_new(put, step) };
        if put.must_not_exist {
            return Outcome::Refused(Refusal::AlreadyExists);
        }
        self.expire_on_touch(slot, step);
        if let Some(refusal) = self.revision_mismatch(slot, put.if_revision) {
            return Outcome::Refused(refusal);
        }
        let cold = self.slots.cold(slot).clone();
        let labels = put.labels.as_ref().filter(|labels| **labels != cold.labels).map(|labels| self.shared(labels));
        let annotations = put.annotations.as_ref().filter(|annotations| **annotations != cold.annotations).map(|annotations| self.shared(annotations));
        let retention = put.retention_ms.map(Retention::new).filter(|retention| *retention != cold.retention);
        let changed = labels.is_some() || annotations.is_some() || retention.is_some();

        self.disarm_retention(slot);
        let now = self.clock;
        let never_held = self.slots.hot(slot).token == 0;
        let revision = if changed { self.next_revision() } else { cold.revision };
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
        cold.revision = revision;
        self.arm_retention(slot);
        if changed {
            self.slots.hot_mut(slot).renew_revision = revision;
            let lease = self.view(slot);
            self.record(step, EventKind::Updated, lease, None, previous_labels);
        }
        Outcome::Put { lease: self.view(slot) }
    }

    fn put_new(&mut self, put: &Put, step: &mut Step) -> Outcome {
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
