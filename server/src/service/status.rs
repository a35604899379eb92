//! The one place where refusals and failures become `tonic::Status`.
//!
//! A client decides by the `google.rpc.ErrorInfo` reason (domain [`DOMAIN`]), not by the text. The table says for each reason which code it has, what
//! the caller may conclude and what it should do. The line that matters most: every reason but [`OUTCOME_UNKNOWN`] means that the call changed nothing.

use std::{collections::HashMap, time::Duration};

use tenure_lease::{Compacted, Refusal, quoted};
use tenure_proto::{peer::v1 as peer, v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    read::ReadError,
    watch::{MAX_WATCHES, MAX_WATCHES_OF_SOURCE, Unwatchable},
    write::{SubmitError, rules::Violation},
};

/// Of every ErrorInfo.
pub(crate) const DOMAIN: &str = "tenure.dev";

/// One row of the table of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Of the ErrorInfo.
    pub(crate) name: &'static str,
    pub(crate) code: Code,
    /// What a client should do.
    pub(crate) advice: &'static str,
    /// As RetryInfo; `None`: sending the same again does not help.
    pub(crate) retry_after: Option<Duration>,
}

macro_rules! reasons {
    ($($(#[doc = $meaning:literal])+ $name:ident: $code:ident, retry $retry:expr, $advice:literal;)+) => {
        $($(#[doc = $meaning])+ pub(crate) const $name: Reason =
            Reason { name: stringify!($name), code: Code::$code, advice: $advice, retry_after: $retry };)+

        /// Every reason there is.
        #[cfg(test)]
        pub(crate) const TABLE: &[Reason] = &[$($name),+];
    };
}

const fn ms(ms: u64) -> Option<Duration> {
    Some(Duration::from_millis(ms))
}

reasons! {
    /// A field breaks its rule (BadRequest names each), or what was sent is no request of that call, or too long.
    INVALID_REQUEST: InvalidArgument, retry None, "Correct the fields named in BadRequest, or else what the text says.";
    /// The same request id was used for this lease and holder with other parameters.
    REQUEST_ID_REUSED: InvalidArgument, retry None, "Use a new request_id for a new request; repeat the old one unchanged.";
    /// There is no such lease.
    LEASE_NOT_FOUND: NotFound, retry None, "Check namespace and name; Acquire and Put create leases.";
    /// must_not_exist, and it does.
    LEASE_EXISTS: AlreadyExists, retry None, "Get it, or leave must_not_exist unset.";
    /// if_revision is not the lease's.
    REVISION_MISMATCH: Aborted, retry None, "Get the lease, decide anew, and send its revision (metadata: current).";
    /// It is held or waited for.
    LEASE_IN_USE: FailedPrecondition, retry None, "Release it first, wait until it runs out, or set force.";
    /// The put declares a hold, and somebody else holds the lease.
    HELD_BY_ANOTHER: FailedPrecondition, retry None, "Nothing was changed. Wait until that hold is over (metadata: holder, token, expires_in_ms), or acquire with wait_for.";
    /// The put's request_id was granted once, or barred, and will not be granted again.
    HOLD_ENDED: FailedPrecondition, retry None, "Nothing was changed by this repeat. Get the lease; send a new request_id to ask anew (metadata: token, reason).";
    /// The namespace has as many leases as it may.
    NAMESPACE_FULL: ResourceExhausted, retry None, "Delete leases, or give them a retention.";
    /// The lease has as many waiters as it may.
    QUEUE_FULL: ResourceExhausted, retry ms(1_000), "Try again later.";
    /// The table of ended requests is full: acquires are shed.
    TOO_MANY_ENDED: ResourceExhausted, retry ms(1_000), "Wait as RetryInfo says; acquire less often.";
    /// The raft leader's queue is full.
    OVERLOADED: ResourceExhausted, retry ms(100), "Not applied. Wait as RetryInfo says, doubling each time.";
    /// This replica has as many watches as it may.
    TOO_MANY_WATCHES: ResourceExhausted, retry ms(1_000), "Watch through another replica.";
    /// Requests of which only a part has arrived hold as many bytes as they may.
    TOO_MUCH_UNFINISHED: ResourceExhausted, retry ms(1_000), "Not applied. Send fewer large requests at a time; wait as RetryInfo says.";
    /// The request did not arrive whole in time.
    REQUEST_TOO_SLOW: ResourceExhausted, retry ms(1_000), "Not applied. Send the whole request at once; wait as RetryInfo says.";
    /// No raft leader was reached in time.
    NO_RAFT_LEADER: Unavailable, retry ms(200), "Not applied. Send the same again, to another replica first.";
    /// The replica has not applied in time what it was asked to show.
    REPLICA_BEHIND: Unavailable, retry ms(200), "Ask again, another replica first; check that the revision is of this cluster.";
    /// The replica goes down.
    SHUTTING_DOWN: Unavailable, retry ms(10), "Not applied. Send the same to another replica; resume watches and waits there.";
    /// The same request waits through another stream, or another replica.
    WAIT_MOVED: Aborted, retry None, "Follow the newer stream; this one has nothing to tell any more.";
    /// The cluster has not been founded yet.
    NOT_BOOTSTRAPPED: Unavailable, retry ms(500), "Wait until the first members have found each other.";
    /// The raft leader changed in between.
    RAFT_LEADER_CHANGED: Unavailable, retry ms(50), "Not applied. Send the same again.";
    /// Whether the change was made is not known.
    OUTCOME_UNKNOWN: DeadlineExceeded, retry None, "Repeat Acquire with the same request_id, Renew and Release as they were; before repeating Put or Delete, Get the lease.";
    /// Changes after that revision are not kept any more.
    REVISION_COMPACTED: OutOfRange, retry None, "List again and watch after the revision of that answer (metadata: floor).";
    /// The pages of this list are not kept any more, or not here.
    PAGE_TOKEN_EXPIRED: OutOfRange, retry None, "List again from the first page.";
    /// The cluster's members forbid the change, or the new replica does not fit it; the text says which.
    MEMBERSHIP_REFUSED: FailedPrecondition, retry None, "Do what the text says, then repeat the call.";
    /// No such member.
    MEMBER_NOT_FOUND: NotFound, retry None, "Ask for the cluster's status: it lists the members.";
    /// Nobody answers at the address of the replica to add.
    NEW_REPLICA_UNREACHABLE: Unavailable, retry ms(500), "Not applied. Start it there, then send the same again.";
    /// There is no such call, or not in that encoding.
    UNKNOWN_CALL: Unimplemented, retry None, "Correct the name of the call, or ask a newer replica.";
    /// Health or reflection does not know that service.
    UNKNOWN_SERVICE: NotFound, retry None, "Ask for a service that reflection lists.";
    /// The raft leader answered what this build does not understand.
    UNKNOWN_ANSWER: Internal, retry None, "Upgrade this replica.";
}

impl Reason {
    pub(crate) fn status(self, message: impl Into<String>) -> Status {
        self.with(message, [])
    }

    /// With metadata in the ErrorInfo.
    pub(crate) fn with<const N: usize>(self, message: impl Into<String>, metadata: [(&str, String); N]) -> Status {
        self.retried_after(message, metadata, self.retry_after)
    }

    fn retried_after<const N: usize>(self, message: impl Into<String>, metadata: [(&str, String); N], retry_after: Option<Duration>) -> Status {
        let metadata: HashMap<String, String> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(self.name, DOMAIN, metadata);
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Status::with_error_details(self.code, message, details)
    }
}

/// Every rule that a request breaks, in one answer.
pub(crate) fn invalid(violations: Vec<tonic_types::FieldViolation>) -> Status {
    let text: Vec<String> = violations.iter().map(named_once).collect();
    let mut details = ErrorDetails::with_error_info(INVALID_REQUEST.name, DOMAIN, HashMap::new());
    details.set_bad_request(violations);
    // The text travels twice in a header of limited size (as itself, and in the details).
    let mut text = text.join("; ");
    if text.len() > 1_024 {
        text.truncate(text.floor_char_boundary(1_000));
        text.push_str(" … (and more)");
    }
    Status::with_error_details(INVALID_REQUEST.code, text, details)
}

/// Most descriptions begin with the field that they are about.
fn named_once(violation: &tonic_types::FieldViolation) -> String {
    let tonic_types::FieldViolation { field, description, .. } = violation;
    if description.split(' ').next() == Some(field) { description.clone() } else { format!("{field}: {description}") }
}

/// Gives a reason to what tonic, health and reflection refuse without one: messages that cannot be decoded, unknown calls and services.
pub(crate) fn reasoned(bare: Status) -> Status {
    let reason = match bare.code() {
        // tonic says INTERNAL of messages that it cannot decode, and OUT_OF_RANGE of those that are too long. No handler does without a reason.
        Code::Internal | Code::InvalidArgument | Code::OutOfRange => INVALID_REQUEST,
        Code::Unimplemented => UNKNOWN_CALL,
        Code::NotFound => UNKNOWN_SERVICE,
        Code::ResourceExhausted => OVERLOADED,
        _ => OUTCOME_UNKNOWN,
    };
    let message = if bare.message().is_empty() { reason.advice } else { bare.message() };
    reason.status(message)
}

pub(crate) fn shutting_down() -> Status {
    SHUTTING_DOWN.status("this replica is shutting down; another one takes the call")
}

pub(crate) fn submit(error: &SubmitError) -> Status {
    match error {
        SubmitError::Overloaded => OVERLOADED.status("not applied: the raft leader's queue is full"),
        SubmitError::NoLeader(waited) => NO_RAFT_LEADER.status(format!("not applied: no raft leader could be reached within {waited:?}")),
        SubmitError::Unknown => OUTCOME_UNKNOWN.status("it is not known whether this was applied: the raft leader did not answer in time"),
        SubmitError::Stopping => shutting_down(),
        SubmitError::Invalid(violations) => {
            let violation = |violation: &Violation| tonic_types::FieldViolation::new(violation.field.clone(), violation.description.clone());
            invalid(violations.iter().map(violation).collect())
        }
    }
}

/// Of an Acquire. Where its outcome is unknown, the caller is told the request id (metadata: `request_id`): with it the request can be repeated, or
/// released. A `minted` one, which the caller did not know, is given back by the replica.
pub(crate) fn acquire(error: &SubmitError, request_id: String, minted: bool) -> Status {
    let what_then = match (error, minted) {
        (SubmitError::Unknown, true) => "this replica gives back what it may have been granted",
        (SubmitError::Unknown, false) => "repeat it with the same request_id, or release it",
        _ => return submit(error),
    };
    OUTCOME_UNKNOWN.with(format!("it is not known whether this was applied: the raft leader did not answer in time; {what_then}"), [("request_id", request_id)])
}

pub(crate) fn read(error: &ReadError) -> Status {
    match error {
        ReadError::NoLeader(waited) => {
            NO_RAFT_LEADER.status(format!("no raft leader could be reached within {waited:?}; set stale to be answered from what this replica has"))
        }
        ReadError::Behind(waited) => REPLICA_BEHIND.status(format!("this replica has not applied what was asked for within {waited:?}")),
    }
}

pub(crate) fn compacted(compacted: Compacted) -> Status {
    REVISION_COMPACTED.with(
        format!("{compacted}: list again and watch after the revision of that answer (the oldest that can be watched after is {})", compacted.floor),
        [("floor", compacted.floor.to_string())],
    )
}

pub(crate) fn unwatchable(error: Unwatchable, after: u64) -> Status {
    match error {
        Unwatchable::Compacted(floor) => compacted(floor),
        Unwatchable::Future => REPLICA_BEHIND.status(format!("this replica has not applied revision {after} yet")),
        Unwatchable::TooMany => TOO_MANY_WATCHES.status(format!("this replica has as many watches as it may: {MAX_WATCHES}")),
        Unwatchable::TooManyOfSource => {
            TOO_MANY_WATCHES.status(format!("this replica has as many watches from your address as one may have: {MAX_WATCHES_OF_SOURCE}"))
        }
    }
}

/// `lease` is how messages name it.
pub(crate) fn refused(refusal: peer::Refusal, lease: &str) -> Status {
    let kind = refusal.kind;
    match crate::write::codec::refusal_from_wire(refusal) {
        Some(refusal) => refusal_status(refusal, lease),
        None => UNKNOWN_ANSWER.status(format!("the raft leader refused for a reason ({kind}) that this build does not know")),
    }
}

fn refusal_status(refusal: Refusal, lease: &str) -> Status {
    match refusal {
        Refusal::Inert => RAFT_LEADER_CHANGED.status("not applied: the raft leader changed"),
        Refusal::NotBootstrapped => NOT_BOOTSTRAPPED.status("the cluster has not been founded yet"),
        Refusal::NotFound => not_found(lease),
        Refusal::AlreadyExists => LEASE_EXISTS.status(format!("lease {lease} exists already, and must_not_exist was set")),
        Refusal::RevisionMismatch { current } => REVISION_MISMATCH
            .with(format!("lease {lease} is at revision {current}, which is not the if_revision that was sent"), [("current", current.to_string())]),
        Refusal::InUse { until } => {
            LEASE_IN_USE.status(format!("lease {lease} is {}: release it first, or set force", if until.is_some() { "held by somebody" } else { "waited for" }))
        }
        Refusal::RequestMismatch => {
            REQUEST_ID_REUSED.status(format!("this request_id was sent before for lease {lease} and this holder, with other parameters"))
        }
        Refusal::NamespaceFull { limit } => {
            NAMESPACE_FULL.with(format!("the namespace of {lease} has {limit} leases, as many as it may"), [("limit", limit.to_string())])
        }
        Refusal::QueueFull { limit } => QUEUE_FULL.with(format!("lease {lease} has {limit} waiters, as many as it may"), [("limit", limit.to_string())]),
        Refusal::TooManyEnded { retry_ms } => TOO_MANY_ENDED.retried_after(
            "more requests ended within five minutes than can be remembered: acquires are refused until the oldest are forgotten",
            [],
            ms(retry_ms.max(1)),
        ),
        Refusal::HeldByAnother { holder, token, left_ms } => HELD_BY_ANOTHER.with(
            format!("nothing was changed: lease {lease} is held by {} for another {left_ms} ms unless it is renewed", quoted(&holder)),
            [("holder", holder.as_ref().to_owned()), ("token", token.to_string()), ("expires_in_ms", left_ms.to_string())],
        ),
        Refusal::WaitedFor { waiters } => LEASE_IN_USE.with(
            format!("nothing was changed: {waiters} others wait for lease {lease}, and each comes before a holder that is declared; acquire it with wait_for instead"),
            [("waiters", waiters.to_string())],
        ),
    }
}

/// A put that declares a hold whose request has ended.
pub(crate) fn hold_ended(ended: &v1::Ended, lease: &str) -> Status {
    let reason = ended.reason().as_str_name();
    let text = match ended.token {
        0 => format!("nothing was changed: this request for lease {lease} was given up before it arrived ({reason})"),
        token => format!("nothing was changed by this repeat: the request was granted lease {lease} with token {token} once, and that hold is over ({reason})"),
    };
    HOLD_ENDED.with(text, [("token", ended.token.to_string()), ("reason", reason.to_owned())])
}

pub(crate) fn not_found(lease: &str) -> Status {
    LEASE_NOT_FOUND.status(format!("there is no lease {lease}"))
}

/// What [`crate::members`] says, in bare codes as it crossed from the raft leader, with its reason.
pub(crate) fn membership(bare: Status) -> Status {
    if bare.get_details_error_info().is_some_and(|info| info.domain == DOMAIN) {
        return bare;
    }
    let reason = match bare.code() {
        Code::InvalidArgument => INVALID_REQUEST,
        Code::NotFound => MEMBER_NOT_FOUND,
        Code::FailedPrecondition => MEMBERSHIP_REFUSED,
        Code::Aborted => RAFT_LEADER_CHANGED,
        _ => OUTCOME_UNKNOWN,
    };
    reason.status(bare.message())
}

/// An outcome of another kind than the command's.
pub(crate) fn unknown_answer() -> Status {
    UNKNOWN_ANSWER.status("the raft leader answered something that this build does not understand")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure_lease::LeaseTime;

    fn reason_of(status: &Status) -> Reason {
        let info = status.get_details_error_info().expect("every error has a reason");
        assert_eq!(info.domain, DOMAIN);
        *TABLE.iter().find(|reason| reason.name == info.reason).expect("every reason is in the table")
    }

    #[test]
    fn every_failure_has_its_reason_and_code() {
        let wait = Duration::from_secs(5);
        let cases = [
            (submit(&SubmitError::Overloaded), OVERLOADED),
            (submit(&SubmitError::NoLeader(wait)), NO_RAFT_LEADER),
            (submit(&SubmitError::Unknown), OUTCOME_UNKNOWN),
            (submit(&SubmitError::Stopping), SHUTTING_DOWN),
            (read(&ReadError::NoLeader(wait)), NO_RAFT_LEADER),
            (read(&ReadError::Behind(wait)), REPLICA_BEHIND),
            (compacted(Compacted { floor: 7 }), REVISION_COMPACTED),
            (unwatchable(Unwatchable::Future, 9), REPLICA_BEHIND),
            (unwatchable(Unwatchable::TooMany, 9), TOO_MANY_WATCHES),
            (unwatchable(Unwatchable::TooManyOfSource, 9), TOO_MANY_WATCHES),
            (refusal_status(Refusal::Inert, "a/b"), RAFT_LEADER_CHANGED),
            (refusal_status(Refusal::NotBootstrapped, "a/b"), NOT_BOOTSTRAPPED),
            (refusal_status(Refusal::NotFound, "a/b"), LEASE_NOT_FOUND),
            (refusal_status(Refusal::AlreadyExists, "a/b"), LEASE_EXISTS),
            (refusal_status(Refusal::RevisionMismatch { current: 3 }, "a/b"), REVISION_MISMATCH),
            (refusal_status(Refusal::InUse { until: Some(LeaseTime(1)) }, "a/b"), LEASE_IN_USE),
            (refusal_status(Refusal::RequestMismatch, "a/b"), REQUEST_ID_REUSED),
            (refusal_status(Refusal::NamespaceFull { limit: 1 }, "a/b"), NAMESPACE_FULL),
            (refusal_status(Refusal::QueueFull { limit: 1 }, "a/b"), QUEUE_FULL),
            (refusal_status(Refusal::TooManyEnded { retry_ms: 20 }, "a/b"), TOO_MANY_ENDED),
            (refusal_status(Refusal::HeldByAnother { holder: "x".into(), token: 3, left_ms: 20 }, "a/b"), HELD_BY_ANOTHER),
            (refusal_status(Refusal::WaitedFor { waiters: 2 }, "a/b"), LEASE_IN_USE),
            (reasoned(Status::internal("failed to decode Protobuf message")), INVALID_REQUEST),
            (reasoned(Status::unimplemented("")), UNKNOWN_CALL),
            (reasoned(Status::not_found("service not registered")), UNKNOWN_SERVICE),
            (reasoned(Status::unknown("it broke")), OUTCOME_UNKNOWN),
            (hold_ended(&v1::Ended { token: 3, reason: v1::EndReason::Expired.into() }, "a/b"), HOLD_ENDED),
            (refused(peer::Refusal { kind: 99, ..peer::Refusal::default() }, "a/b"), UNKNOWN_ANSWER),
        ];
        for (status, reason) in cases {
            assert_eq!(reason_of(&status), reason);
            assert_eq!(status.code(), reason.code);
            assert_eq!(status.get_details_retry_info().is_some(), reason.retry_after.is_some(), "{}", reason.name);
            assert!(!status.message().is_empty());
        }
    }

    #[test]
    fn reasons_are_distinct_and_say_what_to_do() {
        for (n, reason) in TABLE.iter().enumerate() {
            assert!(TABLE[..n].iter().all(|other| other.name != reason.name));
            assert!(reason.advice.ends_with('.'), "{}", reason.name);
        }
    }

    #[test]
    fn the_documentation_has_every_reason_and_no_other() {
        let page = include_str!("../../../docs/errors.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), TABLE.len());
        for reason in TABLE {
            let code = format!("{:?}", reason.code).chars().fold(String::new(), |mut text, c| {
                if c.is_ascii_uppercase() && !text.is_empty() {
                    text.push('_');
                }
                text.push(c.to_ascii_uppercase());
                text
            });
            let begins = format!("| `{}` | {code} | ", reason.name);
            let ends = format!(" | {} |", reason.advice);
            assert!(rows.iter().any(|row| row.starts_with(&begins) && row.ends_with(&ends)), "docs/errors.md: {begins}…{ends}");
        }
    }

    #[test]
    fn only_an_unknown_outcome_leaves_the_caller_in_doubt() {
        let doubtful: Vec<_> = TABLE.iter().filter(|reason| reason.code == Code::DeadlineExceeded || reason.code == Code::Unknown).collect();
        assert_eq!(doubtful, [&OUTCOME_UNKNOWN]);
    }

    #[test]
    fn numbers_that_a_client_needs_are_in_the_metadata() {
        let info = compacted(Compacted { floor: 7 }).get_details_error_info().unwrap();
        assert_eq!(info.metadata["floor"], "7");
        let info = refusal_status(Refusal::RevisionMismatch { current: 3 }, "a/b").get_details_error_info().unwrap();
        assert_eq!(info.metadata["current"], "3");
        let retry = refusal_status(Refusal::TooManyEnded { retry_ms: 20 }, "a/b").get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(Duration::from_millis(20)));
    }

    #[test]
    fn a_field_is_named_once() {
        let violation = |field: &str, text: &str| tonic_types::FieldViolation::new(field, text);
        let status = invalid(vec![violation("duration", "duration is 10ms; it must be 1s to 24h"), violation("name", "must be given")]);
        assert_eq!(status.message(), "duration is 10ms; it must be 1s to 24h; name: must be given");
    }

    #[test]
    fn many_violations_fit_into_a_header() {
        let violations = (0..50).map(|n| tonic_types::FieldViolation::new(format!("items[{n}].token"), "é".repeat(40))).collect();
        let status = invalid(violations);
        assert!(status.message().len() < 1_100);
        assert_eq!(reason_of(&status), INVALID_REQUEST);
    }
}
