//! The server's and the SDK's types as the history writes them.

use tenure_checker::history::{Change, EndReason, Kind, LeaseState, Released, State};
use tenure_client::{Error, v1};
use tenure_lease as core;

pub(crate) fn kind(kind: core::EventKind) -> Kind {
    match kind {
        core::EventKind::Created => Kind::Created,
        core::EventKind::Acquired => Kind::Acquired,
        core::EventKind::Renewed => Kind::Renewed,
        core::EventKind::Released => Kind::Released,
        core::EventKind::Expired => Kind::Expired,
        core::EventKind::Updated => Kind::Updated,
        core::EventKind::Deleted => Kind::Deleted,
    }
}

pub(crate) fn end_reason(reason: core::EndReason) -> EndReason {
    match reason {
        core::EndReason::Released => EndReason::Released,
        core::EndReason::Expired => EndReason::Expired,
        core::EndReason::Reclaimed => EndReason::Reclaimed,
        core::EndReason::Revoked => EndReason::Revoked,
        core::EndReason::Unclaimed => EndReason::Unclaimed,
        core::EndReason::Barred => EndReason::Barred,
        core::EndReason::Detached => EndReason::Detached,
        core::EndReason::UnknownToken => EndReason::UnknownToken,
        core::EndReason::WrongLease => EndReason::WrongLease,
    }
}

pub(crate) fn wire_reason(reason: v1::EndReason) -> Option<EndReason> {
    Some(match reason {
        v1::EndReason::Unspecified => return None,
        v1::EndReason::Released => EndReason::Released,
        v1::EndReason::Expired => EndReason::Expired,
        v1::EndReason::Reclaimed => EndReason::Reclaimed,
        v1::EndReason::Revoked => EndReason::Revoked,
        v1::EndReason::Unclaimed => EndReason::Unclaimed,
        v1::EndReason::Barred => EndReason::Barred,
        v1::EndReason::Detached => EndReason::Detached,
        v1::EndReason::UnknownToken => EndReason::UnknownToken,
        v1::EndReason::WrongLease => EndReason::WrongLease,
    })
}

pub(crate) fn released(outcome: v1::release_response::Outcome) -> Released {
    use v1::release_response::Outcome;
    match outcome {
        Outcome::Released | Outcome::Unspecified => Released::Released,
        Outcome::AlreadyReleased => Released::AlreadyReleased,
        Outcome::NotHolder => Released::NotHolder,
        Outcome::Barred => Released::Barred,
    }
}

pub(crate) fn name(lease: &v1::Lease) -> String {
    format!("{}/{}", lease.namespace, lease.name)
}

pub(crate) fn milliseconds<D: TryInto<std::time::Duration>>(duration: Option<D>) -> u64 {
    let duration = duration.and_then(|duration| duration.try_into().ok()).unwrap_or_default();
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn state(lease: &v1::Lease) -> State {
    State {
        lease: name(lease),
        state: match lease.state() {
            v1::lease::State::Held => LeaseState::Held,
            v1::lease::State::Expired => LeaseState::Expired,
            v1::lease::State::Free | v1::lease::State::Unspecified => LeaseState::Free,
        },
        holder: lease.holder.clone(),
        token: lease.token,
        duration_ms: milliseconds(lease.duration),
        revision: lease.revision,
        renew_revision: lease.renew_revision,
        create_revision: lease.create_revision,
        waiters: lease.waiters,
    }
}

pub(crate) fn change(event: &v1::Event) -> Change {
    let lease = event.lease.clone().unwrap_or_default();
    let deleted = event.r#type() == v1::event::Type::Deleted;
    Change {
        revision: event.revision,
        kind: match event.r#type() {
            v1::event::Type::Acquired => Kind::Acquired,
            v1::event::Type::Renewed => Kind::Renewed,
            v1::event::Type::Released => Kind::Released,
            v1::event::Type::Expired => Kind::Expired,
            v1::event::Type::Updated => Kind::Updated,
            v1::event::Type::Deleted => Kind::Deleted,
            v1::event::Type::Created | v1::event::Type::Unspecified => Kind::Created,
        },
        lease: name(&lease),
        token: lease.token,
        holder: if deleted { String::new() } else { lease.holder.clone() },
        duration_ms: milliseconds(lease.duration),
        create_revision: lease.create_revision,
        previous_holder: event.previous_holder.clone(),
        reason: wire_reason(event.reason()),
    }
}

/// What a call that failed tells.
pub(crate) fn failed(error: &Error) -> tenure_checker::history::Outcome {
    use tenure_checker::history::Outcome;
    match error {
        Error::OutcomeUnknown(_) => Outcome::Unknown { error: error.to_string() },
        _ => Outcome::Refused { reason: error.reason().map_or_else(|| error.to_string(), ToOwned::to_owned) },
    }
}
