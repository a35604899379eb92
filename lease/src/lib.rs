//! The deterministic lease table: `(stamp, commands)` in, outcomes and events out.
//!
//! No clock, no IO, no randomness, nothing async: the same entries give the same table on every replica, whenever and
//! wherever they are applied or replayed from. Time is the stamp that an entry carries ([`LeaseTime`]).
//!
//! Start at [`LeaseTable::apply`]; [`Command`] says what can be asked, [`Outcome`] what can be answered.

#[doc(hidden)]
pub mod bugs;
mod command;
mod event;
mod key;
mod outcome;
mod record;
mod selector;
mod snapshot;
mod table;
mod time;

pub use command::{Acquire, Command, Delete, Detach, Entry, Limits, Put, PutHold, RaftLeaderId, Release, ReleaseBy, Renew, RenewItem, SessionId, WaiterId};
pub use event::{Applied, Event, EventKind, Notice, NoticeKind};
pub use key::{InvalidName, Labels, LeaseKey, check_annotations, check_labels, quoted};
pub use outcome::{EndReason, Lost, Outcome, Refusal, ReleaseOutcome, RenewResult};
pub use record::{Hold, Lease, LeaseState};
pub use selector::{InvalidSelector, Selector};
pub use snapshot::{Frozen, RestoreError};
pub use table::{COUNTER_END, Compacted, LeaseTable, Scope, Totals};
pub use time::{LeaseTime, UnixMillis};
