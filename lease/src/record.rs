//! A lease as others see it: an owned, shareable copy at one revision.

use std::sync::Arc;

use crate::{EndReason, Labels, LeaseTime, UnixMillis};

/// One lease at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// DNS label.
    pub namespace: Arc<str>,
    /// DNS subdomain.
    pub name: Arc<str>,
    /// Of this incarnation, derived from `create_revision` and the name; show it as a UUID (version 8 bits are set).
    pub uid: u128,
    /// Kubernetes' rules.
    pub labels: Arc<Labels>,
    /// Free text.
    pub annotations: Arc<Labels>,
    /// See [`LeaseState`].
    pub state: LeaseState,
    /// `Some` exactly when HELD.
    pub holder: Option<Arc<str>>,
    /// Who held it last, when nobody does now.
    pub last_holder: Option<Arc<str>>,
    /// Set by the holder; cleared at each grant.
    pub holder_data: Arc<[u8]>,
    /// Of the newest grant; 0 if there never was one.
    pub token: u64,
    /// Of the newest grant or renewal, in milliseconds; 0 if there never was one.
    pub duration_ms: u32,
    /// Expires when the lease clock is past this; `Some` exactly when HELD.
    pub deadline: Option<LeaseTime>,
    /// Granted from the queue and not yet renewed.
    pub unclaimed: bool,
    /// For people.
    pub create_time: UnixMillis,
    /// For people; of the newest grant.
    pub acquire_time: Option<UnixMillis>,
    /// For people; of the newest grant or renewal.
    pub renew_time: Option<UnixMillis>,
    /// How often the holder changed.
    pub transitions: u64,
    /// `None`: kept for ever. Milliseconds.
    pub retention_ms: Option<u64>,
    /// Waiting now, detached ones included.
    pub waiters: u32,
    /// Last change other than a renewal.
    pub revision: u64,
    /// Last change of any kind.
    pub renew_revision: u64,
    /// The change that created it.
    pub create_revision: u64,
}

/// What a lease is at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Never held, or released.
    Free,
    /// Somebody holds it.
    Held,
    /// The last hold ran out, and nobody holds it since.
    Expired,
}

/// One hold of a lease: a fact about the past (or the present, while `end_reason` is `None`).
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Who.
    pub holder: Arc<str>,
    /// With which token.
    pub token: u64,
    /// For people.
    pub acquire_time: UnixMillis,
    /// For people.
    pub end_time: Option<UnixMillis>,
    /// Why it ended; `None` while it lasts.
    pub end_reason: Option<EndReason>,
    /// The change that ended it; 0 while it lasts.
    pub end_revision: u64,
}
