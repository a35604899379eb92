//! A lease as others see it, made from its slot.

use std::sync::Arc;

use super::{
    requests::uid,
    slots::{Cold, Hot},
};
use crate::{Hold, Lease, LeaseState};

pub(crate) fn lease(hot: &Hot, cold: &Cold, waiters: usize) -> Arc<Lease> {
    let state = match (hot.held, hot.expired) {
        (true, _) => LeaseState::Held,
        (false, true) => LeaseState::Expired,
        (false, false) => LeaseState::Free,
    };
    let (holder, last_holder) = if hot.held { (cold.holder.clone(), None) } else { (None, cold.holder.clone()) };
    let granted = hot.token != 0;
    Arc::new(Lease {
        namespace: cold.namespace.clone(),
        name: cold.name.clone(),
        uid: uid(cold.create_revision, &cold.namespace, &cold.name),
        labels: cold.labels.clone(),
        annotations: cold.annotations.clone(),
        state,
        holder,
        last_holder,
        holder_data: cold.holder_data.clone(),
        token: hot.token,
        duration_ms: hot.duration_ms,
        deadline: hot.held.then_some(hot.deadline),
        unclaimed: hot.unclaimed,
        create_time: cold.create_time,
        acquire_time: granted.then_some(cold.acquire_time),
        renew_time: granted.then_some(hot.renew_time),
        transitions: cold.transitions,
        retention_ms: cold.retention.ms(),
        waiters: u32::try_from(waiters).unwrap_or(u32::MAX),
        revision: cold.revision,
        renew_revision: hot.renew_revision,
        create_revision: cold.create_revision,
    })
}

/// The hold that lasts.
pub(crate) fn present_hold(hot: &Hot, cold: &Cold) -> Option<Hold> {
    let holder = cold.holder.clone().filter(|_| hot.held)?;
    Some(Hold { holder, token: hot.token, acquire_time: cold.acquire_time, end_time: None, end_reason: None, end_revision: 0 })
}
