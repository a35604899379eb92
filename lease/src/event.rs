//! What apply tells the shell besides the outcomes: events for watchers and history, notices for waiting streams.

use std::sync::Arc;

use crate::{EndReason, Hold, Labels, Lease, Outcome, SessionId, WaiterId};

/// Everything that came of one entry.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// One a command, in their order.
    pub outcomes: Vec<Outcome>,
    /// In order of revision, none twice. Renewals only if asked for.
    pub events: Vec<Arc<Event>>,
    /// For streams that wait for an answer.
    pub notices: Vec<Notice>,
    /// Whether more leases have expired than one entry may end: propose another tick at once.
    pub more_expiries: bool,
}

/// One change of one lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The number of the change.
    pub revision: u64,
    /// What happened.
    pub kind: EventKind,
    /// After the change; for [`EventKind::Deleted`] before it.
    pub lease: Arc<Lease>,
    /// The hold that this change ended, complete. Its holder is `previous_holder` on the wire, its reason `reason`.
    pub ended: Option<Hold>,
    /// Labels before the change, if it changed them: who watches by selector must hear of leases that leave it.
    pub previous_labels: Option<Arc<Labels>>,
}

/// What an [`Event`] says. The numbers are on disk and those of `tenure.v1.Event.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// By Put.
    Created = 1,
    /// Granted, also when that created it (`create_revision == revision`) and when it was handed over (`ended` is set).
    Acquired = 2,
    /// Live only; never in the tail.
    Renewed = 3,
    /// Nobody holds it now.
    Released = 4,
    /// Nobody holds it now.
    Expired = 5,
    /// Labels, annotations, retention.
    Updated = 6,
    /// Gone.
    Deleted = 7,
}

/// News for a stream that waits at a replica. Every replica sees all; it acts on those of its own session.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Whose stream.
    pub session: SessionId,
    /// Which waiter.
    pub waiter: WaiterId,
    /// What.
    pub kind: NoticeKind,
}

/// What a [`Notice`] says. Each but `Moved` is the last for its waiter (in this session).
#[derive(Clone, Debug, PartialEq)]
pub enum NoticeKind {
    /// Granted; lasts until the claim deadline unless renewed.
    Granted(Arc<Lease>),
    /// The wait is over, or the lease was deleted: denied.
    Denied(Arc<Lease>),
    /// Its place is gone.
    Ended(EndReason),
    /// It reattached through another session; this stream has nothing to wait for.
    Moved,
}

impl Event {
    /// The holder before this change, if the change ended a hold.
    #[must_use]
    pub fn previous_holder(&self) -> Option<&Arc<str>> {
        self.ended.as_ref().map(|hold| &hold.holder)
    }

    /// Why the hold before ended, if the change ended one.
    #[must_use]
    pub fn reason(&self) -> Option<EndReason> {
        self.ended.as_ref().and_then(|hold| hold.end_reason)
    }
}
