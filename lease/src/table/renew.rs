//! Renewals: the hot path. Touches a slot's hot part and nothing else, once a grant is claimed.

use super::{LeaseTable, Step, slots::Slot};
use crate::{EndReason, Event, EventKind, Lost, Outcome, Renew, RenewItem, RenewResult};

/// Slots looked up before the first of them is changed. Among a million leases each is some cache misses away, and the processor waits for several at
/// once only while nothing is written to what is shared between threads, as the counts of an `Arc` are.
const AT_A_TIME: usize = 8;

impl LeaseTable {
    pub(super) fn renew(&mut self, renew: &Renew, step: &mut Step) -> Outcome {
        let mut results = Vec::with_capacity(renew.items.len());
        let mut found = [None; AT_A_TIME];
        for items in renew.items.chunks(AT_A_TIME) {
            // No renewal makes or ends a token.
            for (item, found) in items.iter().zip(&mut found) {
                *found = self.tokens.get(item.token, &self.slots);
            }
            for slot in found[..items.len()].iter().flatten() {
                self.slots.fetch(*slot);
            }
            results.extend(items.iter().zip(found).map(|(item, slot)| self.renew_one(item, slot, step)));
        }
        Outcome::Renewed(results)
    }

    /// `slot`: where its token leads.
    fn renew_one(&mut self, item: &RenewItem, slot: Option<Slot>, step: &mut Step) -> RenewResult {
        let Some(slot) = slot else {
            let reason = self.ended.by_token(item.token).map_or(EndReason::UnknownToken, |ended| ended.reason);
            return self.lost(item, reason);
        };
        if let Some(key) = &item.key {
            let cold = self.slots.cold(slot);
            if key.name != cold.name || key.namespace != cold.namespace {
                return self.lost(item, EndReason::WrongLease);
            }
        }
        let now = self.clock;
        let revision = self.next_revision();
        let hot = self.slots.hot_mut(slot);
        let duration_ms = item.duration_ms.unwrap_or(hot.duration_ms);
        hot.duration_ms = duration_ms;
        // Only a release shortens: the holder may rely on the longest that it was ever promised.
        hot.deadline = hot.deadline.max(now.after(u64::from(duration_ms)));
        if crate::bug!("bug_renewal_shortens") {
            // The last renewal counts, not the longest: a delayed or a shorter one takes back what was promised (etcd's lease checkpoints).
            hot.deadline = now.after(u64::from(duration_ms));
            self.expiries.remove(std::mem::replace(&mut hot.armed, hot.deadline), slot);
            self.expiries.insert(hot.deadline, slot);
        }
        hot.renew_revision = revision;
        hot.renew_time = step.wall;
        if std::mem::take(&mut hot.unclaimed) {
            self.slots.cold_mut(slot).claim = None;
        }
        if step.want_renewals {
            let lease = self.view(slot);
            step.applied.events.push(Event { revision, kind: EventKind::Renewed, lease, ended: None, previous_labels: None }.into());
        }
        RenewResult::Renewed { duration_ms }
    }

    fn lost(&self, item: &RenewItem, reason: EndReason) -> RenewResult {
        let named = item.key.as_deref().and_then(|key| self.slot(key));
        let holder = named.filter(|slot| self.slots.hot(*slot).held).and_then(|slot| self.slots.cold(slot).holder.clone());
        RenewResult::Lost(Box::new(Lost { reason, holder, token: item.token }))
    }
}
