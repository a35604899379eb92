//! What restoring a snapshot needs of the table: leases go in whole, and their indexes are made anew.

use super::{
    LeaseTable, Waiter,
    requests::{Ended, RequestKey},
    slots::{Cold, Hot, Slot},
};
use crate::WaiterId;

impl LeaseTable {
    /// `None` if its token is live already, or its name taken.
    pub(crate) fn insert_lease(&mut self, hot: Hot, mut cold: Cold) -> Option<Slot> {
        if self.names.get(&cold.namespace).is_some_and(|names| names.contains_key(&cold.name))
            || (hot.held && self.tokens.get(hot.token, &self.slots).is_some())
        {
            return None;
        }
        cold.labels = self.shared(&cold.labels);
        cold.annotations = self.shared(&cold.annotations);
        let (namespace, name) = (cold.namespace.clone(), cold.name.clone());
        let slot = self.slots.insert(hot, cold);
        self.names.entry(namespace).or_default().insert(name, slot);
        if hot.held {
            self.tokens.insert(slot, &self.slots);
            self.expiries.insert(hot.armed, slot);
        }
        Some(slot)
    }

    /// To be called once its waiters are there. False if another lease has its timer, as only damage can make it.
    pub(crate) fn settle_restored(&mut self, slot: Slot) -> bool {
        let free = self.retention_timer(slot).is_none_or(|timer| !self.timers.contains_key(&timer));
        self.arm_retention(slot);
        free
    }

    /// Whether a waiter of that number is known already.
    pub(crate) fn has_timers_of(&self, id: WaiterId, waiter: &Waiter) -> bool {
        waiter.timers(id).any(|timer| self.timers.contains_key(&timer))
    }

    pub(crate) fn is_waiting(&self, request: RequestKey) -> bool {
        self.requests.contains_key(&request)
    }

    /// Whether an ended request contradicts the holds or the queues.
    pub(crate) fn is_live(&self, ended: &Ended) -> bool {
        self.tokens.get(ended.token, &self.slots).is_some() || self.requests.contains_key(&ended.request)
    }
}
