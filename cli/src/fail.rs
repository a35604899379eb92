//! How a command ends when it does not end well: exit code and message. The only place that chooses exit codes.

use std::{io, process::ExitCode};

use rustix::process::Signal;
use tenure_client::{Code, Error};

use crate::print::note;

/// `exec` passes the command's exit code on, so that its own are where commands seldom are.
pub(crate) mod exec_code {
    /// Somebody else holds the lease: the command was not run.
    pub(crate) const NOT_ACQUIRED: u8 = 121;
    /// The lease was lost: the command was stopped.
    pub(crate) const LOST: u8 = 122;
    /// The lease could not be asked for, or the command not be started.
    pub(crate) const NOT_RUN: u8 = 125;
    /// As shells have it.
    pub(crate) const NOT_EXECUTABLE: u8 = 126;
    /// As shells have it.
    pub(crate) const NOT_FOUND: u8 = 127;
    /// And the number of the signal, as shells have it.
    pub(crate) const SIGNALLED: u8 = 128;
}

/// The exit code of who was ended by a signal, as shells have it.
pub(crate) fn signalled(signal: Signal) -> u8 {
    u8::try_from(signal.as_raw()).map_or(u8::MAX, |signal| exec_code::SIGNALLED.saturating_add(signal))
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{0}")]
    Client(#[from] Error),
    /// The cluster answered, and the answer is no.
    #[error("{0}")]
    Refused(String),
    /// Nothing was done, or it was undone: running it again is safe.
    #[error("{0}")]
    NotDone(String),
    /// Something may be done that the caller has not asked for, or does not know of.
    #[error("{0}")]
    Unknown(String),
    /// What was typed, or a manifest, is wrong.
    #[error("{0}")]
    Usage(String),
    #[error("input or output: {0}")]
    Output(#[from] io::Error),
    #[error("interrupted")]
    Interrupted,
    /// Said already, item by item.
    #[error("")]
    Said(u8),
}

impl Failed {
    pub(crate) fn code(&self) -> u8 {
        match self {
            // Whoever reads our output has had enough: `tenure list | head`.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Client(Error::Misuse(_)) | Self::Usage(_) | Self::Output(_) => 2,
            Self::Client(Error::NotApplied(_)) | Self::NotDone(_) => 3,
            Self::Client(Error::OutcomeUnknown(_)) | Self::Unknown(_) => 4,
            Self::Client(_) | Self::Refused(_) => 1,
            Self::Interrupted => 130,
            Self::Said(code) => *code,
        }
    }

    /// Says it, and ends with another exit code.
    pub(crate) fn with_code(self, code: u8) -> Self {
        self.report();
        Self::Said(code)
    }

    /// The message, and which flag to change.
    pub(crate) fn text(&self) -> String {
        let mut text = self.to_string();
        if let Self::Client(error) = self {
            if let Some(reason) = error.reason() {
                text.push_str(&format!(" [{reason}]"));
            }
            for hint in hints(error) {
                text.push_str("\n  ");
                text.push_str(&hint);
            }
        }
        text
    }

    /// Says it on stderr; the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let code = self.code();
        let text = self.text();
        if code != 0 && !text.is_empty() {
            // Not with a macro that panics where stderr is closed or full: the exit code is what scripts go by.
            note(&format!("error: {text}"));
        }
        ExitCode::from(code)
    }
}

/// Collects what happened to each of many items: the first failure's exit code counts.
#[derive(Debug, Default)]
pub(crate) struct Tally(Option<u8>);

impl Tally {
    pub(crate) fn add(&mut self, result: Result<(), Failed>) -> Result<(), Failed> {
        match result {
            Err(output @ Failed::Output(_)) => Err(output),
            Err(failed) => {
                failed.report();
                self.0.get_or_insert(failed.code());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    pub(crate) fn end(self) -> Result<(), Failed> {
        self.0.map_or(Ok(()), |code| Err(Failed::Said(code)))
    }
}

fn hints(error: &Error) -> Vec<String> {
    let failure = error.failure();
    let mut hints: Vec<String> = failure.violations.iter().filter_map(|(field, _)| flag(field)).map(|flag| format!("change {flag}")).collect();
    match error {
        Error::NotApplied(_) if error.reason() == Some("NO_RAFT_LEADER") => {
            hints.push("a majority of the replicas must be up: `tenure cluster status` says what this one sees; get and list take --stale".into());
        }
        Error::NotApplied(_) if failure.code == Code::Unavailable || failure.code == Code::DeadlineExceeded => {
            hints.push("is the cluster up? --endpoints or TENURE_ENDPOINTS says where it is, --timeout how long to try".into());
        }
        Error::Misuse(_) if error.reason() == Some("REQUEST_ID_REUSED") => hints.push("repeat it unchanged, or change --request-id".into()),
        Error::Misuse(_) if failure.call == "endpoints" => hints.push("change --endpoints or TENURE_ENDPOINTS".into()),
        // What the ports for peers and for HTTP have to say to us.
        Error::Misuse(_) | Error::NotApplied(_) if failure.code == Code::Unimplemented || failure.message == "transport error" => {
            hints.push("is that the port for clients (7400, not 7401 or 7402)?".into());
        }
        // Of the SDK, which knows no flags.
        Error::Misuse(_) if failure.endpoint.is_empty() && failure.message.contains("duration") => hints.push("change --duration".into()),
        Error::Refused(_) if failure.code == Code::NotFound && failure.call.contains('/') => {
            hints.push("-n sets the namespace, `tenure list -A` shows all leases".into())
        }
        Error::Refused(_) if failure.call.starts_with("delete") && failure.code == Code::FailedPrecondition => {
            hints.push("--force removes it all the same and revokes the holder's token".into())
        }
        _ => {}
    }
    hints.dedup();
    hints
}

fn flag(field: &str) -> Option<&'static str> {
    // Of many items the part that is wrong; of a map, the map.
    let field = field.split_once("].").map_or(field, |(_, part)| part);
    Some(match field.split(['.', '[']).next()? {
        "namespace" => "-n/--namespace",
        "name" => "NAME",
        "holder" => "--holder",
        "duration" => "--duration",
        "wait_for" => "--wait",
        "request_id" => "--request-id",
        "holder_data" => "--data",
        "label_selector" => "-l/--selector",
        "labels" => "--label",
        "retention" => "--retention",
        "token" => "--token",
        "after_revision" => "--after",
        "limit" => "--limit",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_left_is_no_failure() {
        assert_eq!(Failed::Output(io::ErrorKind::BrokenPipe.into()).code(), 0);
        assert_eq!(Failed::Output(io::ErrorKind::StorageFull.into()).code(), 2);
    }

    #[test]
    fn fields_are_named_by_their_flags() {
        assert_eq!(flag("duration"), Some("--duration"));
        assert_eq!(flag("items[3].duration"), Some("--duration"));
        assert_eq!(flag("items[0].token"), Some("--token"));
        assert_eq!(flag("labels[app]"), Some("--label"));
        assert_eq!(flag("page_token"), None);
    }

    #[test]
    fn the_first_failure_of_many_is_the_exit_code() {
        let mut tally = Tally::default();
        tally.add(Ok(())).unwrap();
        tally.add(Err(Failed::Refused("held by b".into()))).unwrap();
        tally.add(Err(Failed::Usage("no".into()))).unwrap();
        assert_eq!(tally.end().unwrap_err().code(), 1);
    }
}
