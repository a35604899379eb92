//! Rules of single fields that only a request has, and what becomes of its fields in a command. What holds for commands themselves is in
//! `write/rules.rs`. Each check says what is wrong and gives what can be used anyway, so that one answer names every violation.

use tenure_lease::quoted;
use tenure_proto::peer::v1 as peer;
use tonic::Status;
use tonic_types::FieldViolation;

use super::status;
use crate::config::ServiceLimits;
pub(super) use crate::write::rules::Violations;

pub(super) const DEFAULT_NAMESPACE: &str = "default";

impl Violations {
    /// `Ok` if there are none.
    pub(super) fn none<T>(self, request: T) -> Result<T, Status> {
        let found = self.found();
        if found.is_empty() {
            return Ok(request);
        }
        Err(status::invalid(found.into_iter().map(|violation| FieldViolation::new(violation.field, violation.description)).collect()))
    }

    /// In milliseconds, rounded up: never shorter than the holder believes. `None` when it is not given, or is none.
    pub(super) fn ms(&mut self, field: &str, given: Option<prost_types::Duration>) -> Option<u64> {
        let prost_types::Duration { seconds, nanos } = given?;
        if nanos.unsigned_abs() > 999_999_999 || (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0) {
            self.add(field, format!("{field} is not a duration ({seconds} seconds and {nanos} nanoseconds); it must be one, for example \"15s\""));
            return None;
        }
        let (Ok(whole), Ok(part)) = (u64::try_from(seconds), u64::try_from(nanos)) else {
            self.add(field, format!("{field} is negative ({seconds} seconds and {nanos} nanoseconds); it must not be"));
            return None;
        };
        // What does not fit is out of every range.
        Some(whole.saturating_mul(1_000).saturating_add(part.div_ceil(1_000_000)))
    }

    /// Of a lease, in milliseconds. 0, which breaks the rule of a command, when there is none.
    pub(super) fn duration_ms(&mut self, field: &str, given: Option<prost_types::Duration>, limits: &ServiceLimits) -> u32 {
        let ms = self.ms(field, given).unwrap_or(0);
        u32::try_from(ms).unwrap_or_else(|_| {
            self.duration(field, ms, limits);
            0
        })
    }

    pub(super) fn selector(&mut self, text: &str) -> tenure_lease::Selector {
        text.parse().unwrap_or_else(|error: tenure_lease::InvalidSelector| {
            self.add("label_selector", error.to_string());
            tenure_lease::Selector::default()
        })
    }

    /// A count with a default for 0.
    pub(super) fn size(&mut self, field: &str, given: u32, default: u32, max: u32) -> usize {
        if given > max {
            self.add(field, format!("{field} is {given}; it must be 1 to {max} (0: {default})"));
        }
        let size = if given == 0 { default } else { given.min(max) };
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    /// `host:port`.
    pub(super) fn address(&mut self, field: &str, address: &str) {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) || address.len() > 300 || address.contains(|c: char| c.is_whitespace() || c.is_control()) {
            self.add(field, format!("{field} {} must be host:port, for example \"10.0.0.4:7401\"", quoted(address)));
        }
    }

    pub(super) fn node_id(&mut self, node_id: u64) {
        if node_id == 0 {
            self.add("node_id", "node_id must be given: 1 or more");
        }
    }
}

/// The namespace meant.
pub(super) fn namespace(given: String) -> String {
    if given.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { given }
}

/// The lease meant.
pub(super) fn key(given: String, name: String) -> peer::Key {
    peer::Key { namespace: namespace(given), name }
}
