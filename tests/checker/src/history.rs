//! The history format: what happened in a test, one JSON object a line (JSONL), each with the true time at which it happened.
//!
//! ```text
//! {"at":1200,"invoke":{"op":7,"client":"a","call":{"acquire":{"lease":"ns/job","holder":"a","request_id":"r1","duration_ms":3000}}}}
//! {"at":2500,"return":{"op":7,"outcome":{"granted":{"must_renew":false,"lease":{...},"revision":41}}}}
//! {"at":2500,"believe":{"belief":1,"lease":"ns/job","holder":"a","token":41,"deadline":2995200}}
//! ```
//!
//! `at` is **true time** in nanoseconds: the simulation's own clock, or one clock of the host (`CLOCK_MONOTONIC` or `CLOCK_BOOTTIME`) for all
//! processes of a test. Never the clock of a simulated node: that one may drift. Where it starts does not matter. Records need not be in order:
//! [`History::sorted`] sorts them, and those of one instant keep the order in which they were recorded.
//!
//! **How to record**
//! - First [`What::Meta`]: name, seed, and what may be demanded (clocks inside the promise or not, bounds of liveness).
//! - Each operation is an [`Invoke`] *before its first send* and a [`Return`] *after its answer*. Attempts of one acquire (same request id, other
//!   replica) are one operation; attempts of anything else are one each. One without a return is as good as one that
//!   returned [`Outcome::Unknown`]: it may have happened at any time after its invoke, or not at all. [`Outcome::Refused`] is for what certainly did not happen. A batch of renewals is one operation an item.
//! - A waiting acquire records [`What::Queued`] for each position that it is told, and [`What::Detached`] when its stream broke, so that it may
//!   have lost its turn.
//! - [`Belief`]: from when to when a holder *acts* as holder. [`What::Believe`] when it begins and again whenever its deadline moves, [`What::Doubt`]
//!   at the first moment when it does not any more. A belief without a doubt ends at its last deadline (a process that was killed or fell silent).
//! - A watch is a [`What::WatchOpen`], its events, bookmarks, and its end, with the reason that it was given. One that resumes another names it.
//! - [`What::Fault`] begins and [`What::Healed`] ends a fault (for the picture, and to excuse what a fault excuses); [`What::Replica`] is a replica's
//!   applied index with the hash of its state; [`What::FencedWrite`] is a write at a resource that checks tokens, in the order of that resource.
//! - [`What::Committed`] is the **witness**: each change as it was committed, `at` any moment by which it certainly was (a simulation knows it
//!   when the first replica applies; a process test dumps a watch at the end), in any order. [`What::Witness`] says what these cover. Without a
//!   witness less can be judged; without its renewals, a little less.

mod calls;
mod jsonl;
mod record;
mod recorder;

pub use calls::{Call, Invoke, LeaseState, Outcome, Released, Return, State};
pub use jsonl::{ReadError, line};
pub use record::{Belief, Bounds, Change, Committed, EndReason, Fenced, Kind, Meta, Record, Replica, WatchEnd, WatchOpen, What, WitnessScope};
pub use recorder::Recorder;

/// Everything that was recorded in one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// See [`History::sorted`].
    pub records: Vec<Record>,
}

impl History {
    /// In order of time; what happened at one instant stays in the order in which it was recorded.
    #[must_use]
    pub fn sorted(mut records: Vec<Record>) -> Self {
        records.sort_by_key(|record| record.at);
        Self { records }
    }

    /// The first [`What::Meta`], or none of its demands.
    #[must_use]
    pub fn meta(&self) -> Meta {
        let metas = self.records.iter().filter_map(|record| if let What::Meta(meta) = &record.what { Some(meta.clone()) } else { None });
        metas.into_iter().next().unwrap_or_default()
    }
}
