//! Operations: what was asked, and what was answered. Plain data; see [`super::record`] for what may change.

use serde::{Deserialize, Serialize};

use super::EndReason;

/// An operation before its first send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Invoke {
    /// Unique in the history.
    pub op: u64,
    /// One after the other: a client has one operation under way a lease. Reads of one client are a session.
    pub client: String,
    /// The replica that it was sent to first, if that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What was asked.
    pub call: Call,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// For a lease.
    Acquire {
        /// `namespace/name`.
        lease: String,
        /// As whom.
        holder: String,
        /// Empty: minted by the replica, so never repeated.
        #[serde(default)]
        request_id: String,
        /// Asked for.
        duration_ms: u64,
        /// `None`: do not queue.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wait_ms: Option<u64>,
        /// Take over from the same holder.
        #[serde(default)]
        reclaim: bool,
    },
    /// One item of a renewal.
    Renew {
        /// `namespace/name`, of the hold that is meant.
        lease: String,
        /// Of the grant.
        token: u64,
        /// `None`: as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
    },
    /// By token, or by holder and request id.
    Release {
        /// `namespace/name`.
        lease: String,
        /// 0: by request.
        #[serde(default)]
        token: u64,
        /// With `request_id`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        holder: String,
        /// Of the acquire whose token never arrived.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        request_id: String,
    },
    /// One lease.
    Get {
        /// `namespace/name`.
        lease: String,
        /// Need not be the newest.
        #[serde(default)]
        stale: bool,
    },
    /// All leases of a namespace, or of all.
    List {
        /// `None`: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// With a label selector: what is not listed says nothing.
        #[serde(default)]
        selected: bool,
        /// Need not be the newest.
        #[serde(default)]
        stale: bool,
    },
    /// Create or edit.
    Put {
        /// `namespace/name`.
        lease: String,
        /// Only if it is not there.
        #[serde(default)]
        must_not_exist: bool,
        /// What no other put writes, where it is sent once; empty: nothing is known of how often it is sent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        edit: String,
    },
    /// Remove.
    Delete {
        /// `namespace/name`.
        lease: String,
        /// Even while held.
        #[serde(default)]
        force: bool,
    },
}

/// The answer to an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Return {
    /// Which.
    pub op: u64,
    /// What it was.
    pub outcome: Outcome,
}

/// What can be answered. `revision` is the header's: the newest change that the answering replica had applied; 0: not recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// To an acquire.
    Granted {
        /// After the grant.
        lease: State,
        /// A repeat, or from the queue: not to be believed before a renewal.
        #[serde(default)]
        must_renew: bool,
        /// See above.
        #[serde(default)]
        revision: u64,
    },
    /// To an acquire: somebody else holds it.
    Denied {
        /// As it was then.
        lease: State,
        /// See above.
        #[serde(default)]
        revision: u64,
    },
    /// To an acquire: its grant is over, or it was barred.
    Ended {
        /// 0 when barred.
        token: u64,
        /// Why.
        reason: EndReason,
    },
    /// To a renewal.
    Renewed {
        /// From the send.
        duration_ms: u64,
        /// See above.
        #[serde(default)]
        revision: u64,
    },
    /// To a renewal.
    Lost {
        /// Why.
        reason: EndReason,
        /// Who has it now, if that was said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<String>,
    },
    /// To a release.
    Released {
        /// What it did.
        did: Released,
        /// Afterwards; `None`: there is none, or it was not recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<State>,
        /// See above.
        #[serde(default)]
        revision: u64,
    },
    /// To a get.
    Got {
        /// `None`: no such lease.
        lease: Option<State>,
        /// See above.
        #[serde(default)]
        revision: u64,
    },
    /// To a list.
    Listed {
        /// All of them.
        leases: Vec<State>,
        /// See above.
        #[serde(default)]
        revision: u64,
    },
    /// To a put.
    Put {
        /// Afterwards.
        lease: State,
        /// See above.
        #[serde(default)]
        revision: u64,
    },
    /// To a delete.
    Deleted {
        /// As it was.
        lease: State,
        /// See above.
        #[serde(default)]
        revision: u64,
    },
    /// It was not done, and will not be.
    Refused {
        /// The reason given.
        reason: String,
    },
    /// Nobody knows: it may have happened, or may yet happen.
    Unknown {
        /// What was seen instead of an answer.
        error: String,
    },
}

/// What a release did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Released {
    /// The hold, or the place in the queue, is over by this.
    Released,
    /// It was over before.
    AlreadyReleased,
    /// Another token holds the lease, or held it later.
    NotHolder,
    /// The request was not known, and will not be granted.
    Barred,
}

/// A lease as an answer showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// `namespace/name`.
    pub lease: String,
    /// Free, held or expired.
    pub state: LeaseState,
    /// Empty unless held.
    pub holder: String,
    /// Of the newest grant.
    pub token: u64,
    /// Of the newest grant or renewal.
    pub duration_ms: u64,
    /// Last change other than a renewal.
    pub revision: u64,
    /// Last change.
    pub renew_revision: u64,
    /// The change that created it.
    pub create_revision: u64,
    /// In its queue.
    pub waiters: u32,
}

/// What a lease is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Never held, or released.
    #[default]
    Free,
    /// By its holder.
    Held,
    /// The last hold ran out.
    Expired,
}
