//! One error, split by what the caller may conclude from it. The only file that looks into a `tonic::Status`.
//!
//! It must never call an outcome known that is not: whatever does not say "not applied" in so many words is unknown.

use std::{collections::BTreeMap, error::Error as _, fmt, time::Duration};

use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt as _;

/// Why a call failed. The variant says what may be concluded, [`Error::reason`] says why, the text says what to do.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The cluster said no, and nothing changed. The same call again gets the same answer until somebody changes something.
    #[error("{0}")]
    Refused(Box<Failure>),
    /// Nothing changed; safe to send again. The client has already tried every endpoint until the request timeout.
    #[error("{0}; nothing was changed, so it is safe to try again")]
    NotApplied(Box<Failure>),
    /// It may or may not have happened. Look (`get`) before sending it again.
    #[error("{0}; it may or may not have happened: look before trying again")]
    OutcomeUnknown(Box<Failure>),
    /// The call itself is wrong: a field out of range, an endpoint that is no address, a server that does not know the call.
    #[error("{0}")]
    Misuse(Box<Failure>),
    /// A watch cannot go on from where it was: list again, and watch from that list's revision.
    #[error("{0}")]
    Relist(Box<Failure>),
}

/// What is known about a failure.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was asked, as `renew` or `acquire default/job`.
    pub call: String,
    /// The endpoint that answered last; empty when none was asked.
    pub endpoint: String,
    /// Of gRPC. Connections that could not be made are UNAVAILABLE.
    pub code: Code,
    /// For people.
    pub message: String,
    /// Of `google.rpc.ErrorInfo`, when a replica sent one: a stable word to match on (docs/errors.md has them all).
    pub reason: Option<String>,
    /// Of `google.rpc.ErrorInfo`.
    pub metadata: BTreeMap<String, String>,
    /// Of `google.rpc.RetryInfo`: not before.
    pub retry_after: Option<Duration>,
    /// Of `google.rpc.BadRequest`: field and what is wrong with it.
    pub violations: Vec<(String, String)>,
    /// How the attempts before the last one failed: endpoint and message.
    pub earlier: Vec<(String, String)>,
    /// The connection was never made: the server cannot have seen the call.
    pub(crate) unsent: bool,
    /// Made up on this side when the connection broke: its code is a guess, and no word of the server's.
    pub(crate) local: bool,
}

impl Error {
    /// Sending the very same call again is safe and may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotApplied(_))
    }

    /// The cluster may have done what was asked.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }

    /// The server's stable word for it (`google.rpc.ErrorInfo`), such as `LEASE_NOT_FOUND`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.failure().reason.as_deref()
    }

    /// Of gRPC.
    #[must_use]
    pub fn code(&self) -> Code {
        self.failure().code
    }

    /// Everything that is known.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Refused(failure) | Self::NotApplied(failure) | Self::OutcomeUnknown(failure) | Self::Misuse(failure) | Self::Relist(failure) => failure,
        }
    }

    pub(crate) fn misuse(call: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Misuse(Box::new(Failure::new(call.into(), String::new(), Code::InvalidArgument, message.into())))
    }
}

/// Of every ErrorInfo that a replica sends.
const DOMAIN: &str = "tenure.dev";

/// What one failed attempt means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conclusion {
    Refused,
    NotApplied,
    Unknown,
    Misuse,
}

impl Failure {
    pub(crate) fn new(call: String, endpoint: String, code: Code, message: String) -> Self {
        Self {
            call,
            endpoint,
            code,
            message,
            reason: None,
            metadata: BTreeMap::new(),
            retry_after: None,
            violations: Vec::new(),
            earlier: Vec::new(),
            unsent: false,
            local: false,
        }
    }

    pub(crate) fn from_status(call: String, endpoint: String, status: &Status) -> Self {
        let mut failure = Self::new(call, endpoint, status.code(), status.message().to_owned());
        let details = status.get_error_details();
        // Others' words (a proxy's, say) are not ours to draw conclusions from.
        if let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) {
            failure.reason = Some(info.reason.clone());
            failure.metadata = info.metadata.clone().into_iter().collect();
        }
        failure.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        if let Some(bad) = details.bad_request() {
            failure.violations = bad.field_violations.iter().map(|v| (v.field.clone(), v.description.clone())).collect();
        }
        let mut cause = status.source();
        failure.local = cause.is_some();
        while let Some(error) = cause {
            if let Some(connect) = error.downcast_ref::<ConnectError>() {
                failure.unsent = true;
                failure.message = format!("cannot connect: {}", innermost(connect));
            }
            cause = error.source();
        }
        failure
    }

    /// Proxies and transports answer UNAVAILABLE too, also for calls that the server has seen: only an answer with a reason is the server's own word.
    pub(crate) fn conclusion(&self) -> Conclusion {
        if self.unsent {
            return Conclusion::NotApplied;
        }
        let said = self.reason.as_deref();
        if said == Some("OUTCOME_UNKNOWN") || (self.local && said.is_none()) {
            return Conclusion::Unknown;
        }
        match self.code {
            Code::InvalidArgument | Code::Unimplemented | Code::Unauthenticated => Conclusion::Misuse,
            Code::OutOfRange | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::PermissionDenied => Conclusion::Refused,
            Code::ResourceExhausted | Code::Aborted if self.retry_after.is_none() => Conclusion::Refused,
            Code::ResourceExhausted | Code::Aborted => Conclusion::NotApplied,
            Code::Unavailable | Code::DeadlineExceeded if said.is_some() => Conclusion::NotApplied,
            _ => Conclusion::Unknown,
        }
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.call)?;
        if !self.endpoint.is_empty() {
            write!(f, " at {}", self.endpoint)?;
        }
        if self.message.is_empty() {
            write!(f, ": {}", self.code)?
        } else {
            write!(f, ": {}", self.message)?
        }
        let unsaid: Vec<_> = self.violations.iter().filter(|(field, _)| !self.message.contains(field.as_str())).collect();
        for (field, description) in unsaid {
            write!(f, "; {field}: {description}")?;
        }
        if let Some(after) = self.retry_after {
            write!(f, " (try again in {after:?})")?;
        }
        for (i, (endpoint, message)) in self.earlier.iter().enumerate() {
            write!(f, "{}{endpoint}: {message}", if i == 0 { " (before that: " } else { ", " })?;
        }
        if !self.earlier.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn said(code: Code, reason: &str) -> Failure {
        let details = ErrorDetails::with_error_info(reason, "tenure.dev", [("held_by".to_owned(), "a".to_owned())]);
        Failure::from_status("acquire default/job".into(), "127.0.0.1:7400".into(), &Status::with_error_details(code, "no raft leader", details))
    }

    #[test]
    fn only_the_servers_own_word_makes_unavailable_not_applied() {
        assert_eq!(said(Code::Unavailable, "NO_RAFT_LEADER").conclusion(), Conclusion::NotApplied);
        let proxy = Failure::from_status("get".into(), "x".into(), &Status::unavailable("upstream reset"));
        assert_eq!(proxy.conclusion(), Conclusion::Unknown);
    }

    #[test]
    fn an_unknown_outcome_is_unknown_whatever_the_code() {
        assert_eq!(said(Code::Unavailable, "OUTCOME_UNKNOWN").conclusion(), Conclusion::Unknown);
        for code in [Code::Unknown, Code::Internal, Code::Cancelled, Code::DataLoss, Code::DeadlineExceeded] {
            assert_eq!(Failure::from_status("x".into(), "y".into(), &Status::new(code, "")).conclusion(), Conclusion::Unknown, "{code:?}");
        }
    }

    #[test]
    fn a_full_queue_is_retried_and_a_full_namespace_is_not() {
        assert_eq!(said(Code::ResourceExhausted, "NAMESPACE_FULL").conclusion(), Conclusion::Refused);
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(20)));
        let full = Failure::from_status("x".into(), "y".into(), &Status::with_error_details(Code::ResourceExhausted, "queue is full", details));
        assert_eq!(full.conclusion(), Conclusion::NotApplied);
        assert_eq!(full.retry_after, Some(Duration::from_millis(20)));
    }

    #[test]
    fn the_message_says_what_where_and_what_to_do() {
        let mut failure = said(Code::Unavailable, "NO_RAFT_LEADER");
        failure.earlier.push(("127.0.0.1:7410".into(), "cannot connect: refused".into()));
        let error = Error::NotApplied(Box::new(failure));
        assert_eq!(
            error.to_string(),
            "acquire default/job at 127.0.0.1:7400: no raft leader (before that: 127.0.0.1:7410: cannot connect: refused); \
             nothing was changed, so it is safe to try again"
        );
        assert_eq!(error.reason(), Some("NO_RAFT_LEADER"));
        assert_eq!(error.failure().metadata["held_by"], "a");
        assert!(error.is_retryable() && !error.outcome_unknown());
    }

    #[test]
    fn every_violated_field_is_named_once() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("holder", "must not be empty").add_bad_request_violation("duration", "is 2 days, at most 24h");
        let status = Status::with_error_details(Code::InvalidArgument, "holder must not be empty", details);
        let failure = Failure::from_status("acquire".into(), "a:1".into(), &status);
        assert_eq!(failure.to_string(), "acquire at a:1: holder must not be empty; duration: is 2 days, at most 24h");
        assert_eq!(failure.conclusion(), Conclusion::Misuse);
    }

    #[test]
    fn a_broken_connection_is_no_refusal_whatever_code_it_is_given() {
        // As the transport words a connection that the server ended for its own protection.
        let mut status = Status::resource_exhausted("h2 protocol error: http2 error");
        status.set_source(std::sync::Arc::new(std::io::Error::other("enhance your calm")));
        let failure = Failure::from_status("acquire".into(), "a:1".into(), &status);
        assert_eq!(failure.conclusion(), Conclusion::Unknown);
    }
}
