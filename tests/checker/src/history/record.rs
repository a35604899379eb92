//! The records themselves: plain data, every field readable by hand. Fields may be added (with a default), never renamed: saved histories stay
//! readable. Leases are written `namespace/name`.

use serde::{Deserialize, Serialize};

use super::calls::{Invoke, Return};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// True time in nanoseconds.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// About the run.
    Meta(Meta),
    /// An operation is about to be sent for the first time.
    Invoke(Invoke),
    /// Its answer is there.
    Return(Return),
    /// A waiting acquire was told its place.
    Queued {
        /// Which operation.
        op: u64,
        /// 1 is next.
        position: u32,
    },
    /// The stream of a waiting acquire broke: until it is told a place again it may be skipped.
    Detached {
        /// Which operation.
        op: u64,
    },
    /// A holder acts as one from now on, or goes on with a later deadline.
    Believe(Belief),
    /// It does not any more.
    Doubt {
        /// Which belief.
        belief: u64,
    },
    /// A watch was asked for.
    WatchOpen(WatchOpen),
    /// It delivered a change.
    WatchEvent {
        /// Which watch.
        watch: u64,
        /// As delivered.
        #[serde(flatten)]
        change: Change,
    },
    /// It said that nothing up to here is missing.
    WatchBookmark {
        /// Which watch.
        watch: u64,
        /// Up to which change.
        revision: u64,
    },
    /// It ended.
    WatchEnd {
        /// Which watch.
        watch: u64,
        /// Why.
        end: WatchEnd,
    },
    /// A fault begins.
    Fault {
        /// Names it in its [`What::Healed`].
        fault: u64,
        /// `kill`, `pause`, `partition`, `outage` (no quorum: nothing can be committed), `clock`, …
        kind: String,
        /// On whom; empty: on all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        nodes: Vec<String>,
    },
    /// A fault is over.
    Healed {
        /// Which.
        fault: u64,
    },
    /// From now on nothing is disturbed any more and progress is due, as [`Meta::bounds`] says.
    Calm,
    /// A replica said (or, in a simulation, it was seen) that it leads its raft group.
    RaftLeader {
        /// Which.
        node: String,
        /// Its term.
        term: u64,
    },
    /// What a replica has applied.
    Replica(Replica),
    /// A replica starts.
    Boot {
        /// Which.
        node: String,
    },
    /// A write arrived at a resource that checks tokens.
    FencedWrite(Fenced),
    /// A change as it was committed: the witness.
    Committed(Committed),
    /// What the [`What::Committed`] records cover.
    Witness(WitnessScope),
    /// For the picture.
    Note {
        /// Who says so.
        node: String,
        /// What.
        text: String,
    },
}

/// About the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Of the test or scenario.
    pub name: String,
    /// That reproduces it; 0: none.
    pub seed: u64,
    /// Every clock runs within the promise (0.1 % between holder and raft leader). If not, nothing is demanded of beliefs and early ends.
    pub clocks_within_promise: bool,
    /// How much earlier than `send + duration` an end may come, in parts per million of the duration. The holder's own margin.
    pub early_ppm: u64,
    /// And in milliseconds.
    pub early_ms: u64,
    /// By how many milliseconds the recorder of a belief's end may lag behind the belief itself.
    pub doubt_lag_ms: u64,
    /// Every client that touched the leases is in the history: what nobody here asked for must not have happened.
    pub all_clients_recorded: bool,
    /// Every put and every delete is in the history, and no lease is as old as its retention.
    pub all_edits_recorded: bool,
    /// What must happen in time.
    pub bounds: Bounds,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            name: String::new(),
            seed: 0,
            clocks_within_promise: true,
            early_ppm: 2000,
            early_ms: 1,
            doubt_lag_ms: 0,
            all_clients_recorded: false,
            all_edits_recorded: false,
            bounds: Bounds::default(),
        }
    }
}

/// Bounds of liveness, in milliseconds of true time. `None`: not demanded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// L1: from [`What::Calm`] until an operation that writes is acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_write: Option<u64>,
    /// L2: from the deadline of a hold that nobody renews until its end is seen, when no fault and no change of raft leader came between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry: Option<u64>,
    /// L2: how much more for each change of raft leader and each fault during the hold, besides the length of that fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_per_disturbance: Option<u64>,
    /// L2: from the deadline of a hold that nobody renews until its end, both by the lease clock in the log. Faults are no excuse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_by_lease_clock: Option<u64>,
    /// L3: from the end of a hold that somebody waits for until the next grant, when all is calm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<u64>,
    /// L4: from the first to the last end of those holds whose deadlines come within one second, when they are more than a hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mass_expiry: Option<u64>,
    /// L5: how much the lease clock may advance while a fault of kind `outage` lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_in_outage: Option<u64>,
    /// L6: from [`What::Calm`] until every open watch has what was committed before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<u64>,
}

/// That somebody acts as holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belief {
    /// The same number for the same hold of the same process.
    pub belief: u64,
    /// `namespace/name`.
    pub lease: String,
    /// Who.
    pub holder: String,
    /// With which token.
    pub token: u64,
    /// True time at which it ends by itself: the deadline that the holder computed, seen through its clock. `u64::MAX`: not known, the recorder
    /// samples and writes a [`What::Doubt`] for every belief.
    pub deadline: u64,
}

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchOpen {
    /// Unique in the history.
    pub watch: u64,
    /// Who reads it.
    pub client: String,
    /// The replica that serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// One lease of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// With a label selector: what does not come says nothing.
    pub selected: bool,
    /// From the first change after this one; 0: from now on.
    pub after_revision: u64,
    /// Begins with every lease that is there.
    pub send_initial: bool,
    /// Renewals too.
    pub include_renewals: bool,
    /// It goes on where this one ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumes: Option<u64>,
}

/// How a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchEnd {
    /// The reader went.
    Closed,
    /// `OUT_OF_RANGE`: list again.
    Compacted {
        /// A watch may start after this one; 0: not said.
        floor: u64,
    },
    /// The reader was too slow, and was told.
    Lagged,
    /// Any other error: resume.
    Failed {
        /// As it was.
        error: String,
    },
    /// The stream ended, without an error, though nobody had asked.
    Silent,
}

/// One change of one lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number.
    pub revision: u64,
    /// What it did.
    pub kind: Kind,
    /// `namespace/name`.
    pub lease: String,
    /// Of the newest grant, after the change (of a deleted one: before it).
    #[serde(default)]
    pub token: u64,
    /// After the change; empty unless held.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub holder: String,
    /// Of the newest grant or renewal.
    #[serde(default)]
    pub duration_ms: u64,
    /// The change that created the lease.
    #[serde(default)]
    pub create_revision: u64,
    /// Whose hold this change ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub previous_holder: String,
    /// Why that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
}

/// What a change did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// By put.
    #[default]
    Created,
    /// Granted, also when that created it and when it was handed over.
    Acquired,
    /// Renewed.
    Renewed,
    /// Nobody holds it now.
    Released,
    /// Nobody holds it now.
    Expired,
    /// Labels and the like.
    Updated,
    /// Gone.
    Deleted,
}

/// Why a hold, or a place in the queue, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// By its holder.
    Released,
    /// Its deadline passed.
    Expired,
    /// The same holder took it anew.
    Reclaimed,
    /// Deleted with force.
    Revoked,
    /// Granted from the queue and not renewed in time, or not delivered.
    Unclaimed,
    /// Released before it arrived.
    Barred,
    /// Waited without a stream for too long.
    Detached,
    /// Not remembered.
    UnknownToken,
    /// Of another lease.
    WrongLease,
}

/// A change as it was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// As a watch would deliver it.
    #[serde(flatten)]
    pub change: Change,
    /// Lease clock of its entry, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ms: Option<u64>,
    /// Deadline of the hold after the change, on the lease clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Granted from the queue: it ends at the claim deadline unless renewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unclaimed: bool,
    /// Raft term of its entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Of a put: its `edit`, as the lease shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub edit: String,
}

/// What the witness covers: every change in `(after, upto]` is there, in these namespaces. The record's `at`: whatever was committed by then has a
/// number up to `upto` (so take the time first, then ask for the newest revision).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessScope {
    /// Nothing at or before this one.
    pub after: u64,
    /// Nothing behind this one.
    pub upto: u64,
    /// Renewals too.
    #[serde(default)]
    pub renewals: bool,
    /// `None`: all. Several records of several namespaces may be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What a replica has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Which.
    pub node: String,
    /// Of the raft log.
    pub applied_index: u64,
    /// The newest change.
    pub revision: u64,
    /// Of all replicated state.
    pub state_hash: u64,
}

/// A write at a resource that refuses tokens smaller than the largest that it has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// Which resource.
    pub resource: String,
    /// Who writes.
    pub client: String,
    /// Under which token.
    pub token: u64,
    /// Whether it took effect.
    pub accepted: bool,
}
