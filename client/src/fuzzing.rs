//! Doors for the fuzz targets (tests/fuzz): what reads the answers of a server. In no release.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "for one crate, which has them all in one place")]

use tenure_proto::v1::Lease;
use tonic::{Code, Status};

use crate::{Condition, error::Failure, members, observe};

/// A refusal as it is shown, and what is concluded from it.
#[must_use]
pub fn failure(code: i32, message: &str, details: &[u8]) -> (String, String) {
    let status = Status::with_details(Code::from_i32(code), message, details.to_vec().into());
    let failure = Failure::from_status("get default/job".into(), "a:1".into(), &status);
    (failure.to_string(), format!("{:?}", failure.conclusion()))
}

/// The elected leaders that an observer of these states is told of, by token; `None`: nobody leads.
#[must_use]
pub fn observed(states: &[(Lease, bool)]) -> Vec<Option<u64>> {
    observe::told(states).into_iter().map(|leader| leader.map(|leader| leader.token)).collect()
}

/// What is said of a node.
#[must_use]
pub fn condition(lease: Lease) -> Condition {
    members::Member::of(lease).condition
}
