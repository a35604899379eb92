//! What can be asked of the table. Validated by the caller ([`crate::LeaseKey::new`] and friends): apply does not re-check syntax.

use std::sync::Arc;

use crate::{Labels, LeaseKey, LeaseTime, UnixMillis};

/// Term and node of a raft leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RaftLeaderId {
    /// Raft term.
    pub term: u64,
    /// Node id.
    pub node: u64,
}

/// One Raft entry: many commands under one stamp.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Who proposed it. If this differs from the leader id of the log id under which it was committed, the entry is inert.
    pub proposer: RaftLeaderId,
    /// Taken after the last command was drained from the queue.
    pub stamp: LeaseTime,
    /// For people.
    pub wall: UnixMillis,
    /// Empty: a tick.
    pub commands: Vec<Command>,
}

/// One client message. Gives one [`crate::Outcome`].
#[derive(Clone, Debug)]
pub enum Command {
    /// Keep leases alive. Takes effect before the expiries of its entry.
    Renew(Renew),
    /// End a hold, or a place in the queue. Takes effect before the expiries of its entry.
    Release(Box<Release>),
    /// A replica says that it is there, for all its waiters. Takes effect before the expiries of its entry.
    KeepSession {
        /// Of this boot of the replica.
        session: SessionId,
        /// It is going down: detach its waiters now.
        close: bool,
    },
    /// Ask for a lease.
    Acquire(Box<Acquire>),
    /// A waiter's stream is gone.
    Detach(Box<Detach>),
    /// Create or edit.
    Put(Box<Put>),
    /// Remove.
    Delete(Box<Delete>),
    /// First command of a cluster; a no-op ever after.
    Bootstrap {
        /// The counter starts here: `unix_ms << 10`, so that tokens grow through a wiped cluster (promise G2).
        counter_start: u64,
        /// In force for the life of the cluster.
        limits: Limits,
    },
}

/// Limits that apply checks, the same on every replica because they are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Leases in one namespace.
    pub leases_per_namespace: u64,
    /// Waiters of one lease.
    pub waiters_per_lease: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { leases_per_namespace: 2_000_000, waiters_per_lease: 10_000 }
    }
}

/// One boot of one replica, as a random number. 0 is nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A place in a queue: the number of the change that enqueued it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// See [`Command::Renew`].
#[derive(Clone, Debug, Default)]
pub struct Renew {
    /// At most 10,000.
    pub items: Vec<RenewItem>,
}

/// One token to renew.
#[derive(Clone, Debug)]
pub struct RenewItem {
    /// Of the grant.
    pub token: u64,
    /// `None`: as before. Milliseconds.
    pub duration_ms: Option<u32>,
    /// Checked when given.
    pub key: Option<Box<LeaseKey>>,
}

/// See [`Command::Release`].
#[derive(Clone, Debug)]
pub struct Release {
    /// Which lease.
    pub key: LeaseKey,
    /// Which hold.
    pub by: ReleaseBy,
}

/// How a release names the hold that it ends.
#[derive(Clone, Debug)]
pub enum ReleaseBy {
    /// By fencing token.
    Token(u64),
    /// By fencing token, unless the hold was ever renewed: a replica gives back a grant that it could not deliver, and a renewal
    /// proves that another attempt of the same request has delivered it. Only apply can tell the two apart without a race.
    Undelivered(u64),
    /// By the request that asked for it, when the token never arrived. Bars a late arrival of that request; takes a waiter out of the queue.
    Request {
        /// Holder of that request.
        holder: Arc<str>,
        /// Its id.
        request_id: Arc<str>,
    },
}

/// See [`Command::Acquire`].
#[derive(Clone, Debug)]
pub struct Acquire {
    /// Which lease; created when it is not there.
    pub key: LeaseKey,
    /// Who asks.
    pub holder: Arc<str>,
    /// Milliseconds.
    pub duration_ms: u32,
    /// Never empty here: the shell mints one.
    pub request_id: Arc<str>,
    /// How long to queue, in milliseconds of lease clock; 0: do not.
    pub wait_ms: u64,
    /// Take over from the same holder name, with a new token.
    pub reclaim: bool,
    /// For the lease's `holder_data`.
    pub holder_data: Arc<[u8]>,
    /// The replica whose stream waits for the answer; nobody if `wait_ms` is 0.
    pub session: SessionId,
    /// Only when this creates the lease. Milliseconds.
    pub retention_ms: u64,
    /// Only when this creates the lease.
    pub labels: Arc<Labels>,
    /// Only when this creates the lease.
    pub annotations: Arc<Labels>,
}

/// See [`Command::Detach`]. Ignored if the waiter is not there, or has reattached through another session.
#[derive(Clone, Debug)]
pub struct Detach {
    /// Which lease.
    pub key: LeaseKey,
    /// Through which the waiter waited.
    pub session: SessionId,
    /// Which waiter. If it was granted meanwhile and the grant is still unclaimed, the grant ends as UNCLAIMED and goes to the next.
    pub waiter: WaiterId,
}

/// See [`Command::Put`]. `None` leaves a field as it is (or at its default when this creates the lease: empty, kept for ever).
#[derive(Clone, Debug)]
pub struct Put {
    /// Which lease.
    pub key: LeaseKey,
    /// Replaces all labels.
    pub labels: Option<Arc<Labels>>,
    /// Replaces all annotations.
    pub annotations: Option<Arc<Labels>>,
    /// `Some(None)`: kept for ever. Milliseconds.
    pub retention_ms: Option<Option<u64>>,
    /// Only if the lease's revision is this one.
    pub if_revision: Option<u64>,
    /// Only if it is not there.
    pub must_not_exist: bool,
    /// Grants the lease as well, in the same change: both are done, or neither.
    pub hold: Option<PutHold>,
}

/// The hold that a [`Put`] declares.
#[derive(Clone, Debug)]
pub struct PutHold {
    /// The holder that the lease is granted to.
    pub holder: Arc<str>,
    /// Milliseconds.
    pub duration_ms: u32,
    /// Never empty here: the shell mints one. A repeat is answered from the live state, as that of an [`Acquire`].
    pub request_id: Arc<str>,
    /// Becomes the lease's `holder_data`.
    pub holder_data: Arc<[u8]>,
}

/// See [`Command::Delete`].
#[derive(Clone, Debug)]
pub struct Delete {
    /// Which lease.
    pub key: LeaseKey,
    /// Only if the lease's revision is this one.
    pub if_revision: Option<u64>,
    /// Even while held or waited for.
    pub force: bool,
}
