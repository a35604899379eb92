//! What can be answered. Refusals are data: replicated, deterministic, the same on every replica.

use std::sync::Arc;

use crate::{Lease, LeaseTime, WaiterId};

/// The answer to one command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// One result an item, in their order.
    Renewed(Vec<RenewResult>),
    /// The caller holds the lease.
    Granted {
        /// After the grant.
        lease: Arc<Lease>,
        /// A repeat of an earlier request, or a reattached waiter that was granted meanwhile: renew before believing to hold.
        must_renew: bool,
    },
    /// In the queue; a [`crate::Notice`] will follow.
    Queued {
        /// 1 is next.
        position: u32,
        /// Names the place.
        waiter: WaiterId,
        /// Who holds it now.
        lease: Arc<Lease>,
    },
    /// Somebody else holds it and the caller does not wait.
    Denied {
        /// Who, and until when.
        lease: Arc<Lease>,
    },
    /// This request (an acquire, or a put that declares a hold) was granted once and that grant is over, or it was barred.
    Ended {
        /// 0 when barred.
        token: u64,
        /// Why.
        reason: EndReason,
    },
    /// Answer to a release.
    Released {
        /// What it did.
        outcome: ReleaseOutcome,
        /// `None`: there is no such lease.
        lease: Option<Arc<Lease>>,
    },
    /// Created or edited.
    Put {
        /// After the change.
        lease: Arc<Lease>,
    },
    /// Removed.
    Deleted {
        /// As it was.
        lease: Arc<Lease>,
    },
    /// Session kept, waiter detached, cluster bootstrapped.
    Done,
    /// Not done; nothing changed.
    Refused(Refusal),
}

/// The answer to one [`crate::RenewItem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenewResult {
    /// Kept.
    Renewed {
        /// Milliseconds, counting from the caller's send.
        duration_ms: u32,
    },
    /// Final: this token will never hold again.
    Lost(Box<Lost>),
}

/// Details of a lost hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub reason: EndReason,
    /// Who holds the lease now, if anybody and if known.
    pub holder: Option<Arc<str>>,
    /// The one asked about.
    pub token: u64,
}

/// Why a hold, or a place in the queue, ended. The numbers are on disk and those of `tenure.v1.EndReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EndReason {
    /// By its holder.
    Released = 1,
    /// The lease clock passed the deadline.
    Expired = 2,
    /// The same holder name took it anew.
    Reclaimed = 3,
    /// Deleted with force.
    Revoked = 4,
    /// Granted from the queue and not renewed before the claim deadline.
    Unclaimed = 5,
    /// Released by request id before the request arrived.
    Barred = 6,
    /// A waiter whose stream was gone for too long.
    Detached = 7,
    /// No such token that is remembered.
    UnknownToken = 8,
    /// The token is live, but for another lease than the one named.
    WrongLease = 9,
}

/// What a release did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// The hold (or the place in the queue) was there and is over.
    Released,
    /// The token is this lease's newest, and its hold is over.
    AlreadyReleased,
    /// Another token holds it, or held it later.
    NotHolder,
    /// The request was not known and will not be granted should it arrive late.
    Barred,
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Committed under another leader id than its proposer's: not applied, safe to send again.
    Inert,
    /// No bootstrap yet.
    NotBootstrapped,
    /// No such lease.
    NotFound,
    /// `must_not_exist`, and it does.
    AlreadyExists,
    /// `if_revision` is not the lease's.
    RevisionMismatch {
        /// The lease's.
        current: u64,
    },
    /// Deleting what is held or waited for, without force.
    InUse {
        /// When the hold runs out, if it is held.
        until: Option<LeaseTime>,
    },
    /// The same request id with other parameters.
    RequestMismatch,
    /// The namespace is full.
    NamespaceFull {
        /// The limit.
        limit: u64,
    },
    /// The queue of the lease is full.
    QueueFull {
        /// The limit.
        limit: u32,
    },
    /// The table of ended requests is full: acquires are shed until the oldest are forgotten.
    TooManyEnded {
        /// Milliseconds of lease clock until there is room.
        retry_ms: u64,
    },
    /// A [`crate::Put`] declares a hold, and somebody else holds the lease.
    HeldByAnother {
        /// Who holds it.
        holder: Arc<str>,
        /// With which token.
        token: u64,
        /// Milliseconds of lease clock until that hold runs out unless it is renewed.
        left_ms: u64,
    },
    /// A [`crate::Put`] declares a hold, nobody holds the lease, and others have a place in its queue.
    WaitedFor {
        /// How many.
        waiters: u32,
    },
}
