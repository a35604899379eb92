//! Rules of single fields. Each check says what is wrong and gives what can be used anyway, so that one answer names every violation.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tenure_lease::{Labels, LeaseKey, check_annotations, check_labels, quoted};
use tenure_proto::peer::v1 as peer;
use tonic::Status;
use tonic_types::FieldViolation;

use super::status;
use crate::config::ServiceLimits;

pub(super) const DEFAULT_NAMESPACE: &str = "default";
const HOLDER_MAX: usize = 256;
const REQUEST_ID_MAX: usize = 128;
const HOLDER_DATA_MAX: usize = 4_096;
/// Nobody mends more at a time, and details travel in a header.
const VIOLATIONS_MAX: usize = 16;
/// Of all of them: some clients take 8 KiB of headers, and what is named travels twice, encoded.
const VIOLATIONS_BYTES: usize = 2_000;
/// For ever is for what Put creates, not a number.
const RETENTION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is wrong with a request, in the order of its fields.
#[derive(Debug, Default)]
pub(super) struct Violations {
    found: Vec<FieldViolation>,
    bytes: usize,
}

impl Violations {
    pub(super) fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        let (field, description) = (field.into(), description.into());
        let bytes = self.bytes + field.len() + description.len();
        // The first is named in any case: none is so long.
        if self.found.is_empty() || (self.found.len() < VIOLATIONS_MAX && bytes <= VIOLATIONS_BYTES) {
            self.bytes = bytes;
            self.found.push(FieldViolation::new(field, description));
        }
    }

    /// `Ok` if there are none.
    pub(super) fn none<T>(self, request: T) -> Result<T, Status> {
        if self.found.is_empty() { Ok(request) } else { Err(status::invalid(self.found)) }
    }

    /// The namespace meant, and its field checked.
    pub(super) fn namespace(&mut self, field: &str, namespace: String) -> String {
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { namespace };
        if let Err(error) = LeaseKey::check_namespace(&namespace) {
            self.add(field, error.0);
        }
        namespace
    }

    pub(super) fn key(&mut self, namespace: String, name: String) -> peer::Key {
        self.key_at("", namespace, name)
    }

    /// `at` stands before the names of the fields.
    pub(super) fn key_at(&mut self, at: &str, namespace: String, name: String) -> peer::Key {
        let namespace = self.namespace(&format!("{at}namespace"), namespace);
        if name.is_empty() {
            self.add(format!("{at}name"), "name must be given: the lease's name, a DNS subdomain like \"api-leader\"");
        } else if let Err(error) = LeaseKey::new(DEFAULT_NAMESPACE, &name) {
            self.add(format!("{at}name"), error.0);
        }
        peer::Key { namespace, name }
    }

    /// `at`, here and below, stands before the name of the field.
    pub(super) fn holder(&mut self, at: &str, holder: &str) {
        let field = format!("{at}holder");
        if holder.is_empty() {
            let text = format!("{field} must be given: who asks, at most 256 bytes, for example a host name");
            self.add(field, text);
        } else if holder.len() > HOLDER_MAX {
            let text = format!("{field} has {} bytes, at most {HOLDER_MAX} are allowed", holder.len());
            self.add(field, text);
        }
    }

    pub(super) fn request_id(&mut self, at: &str, request_id: &str) {
        if request_id.len() > REQUEST_ID_MAX {
            let field = format!("{at}request_id");
            let text = format!("{field} has {} bytes, at most {REQUEST_ID_MAX} are allowed", request_id.len());
            self.add(field, text);
        }
    }

    pub(super) fn holder_data(&mut self, at: &str, data: &[u8]) {
        if data.len() > HOLDER_DATA_MAX {
            let field = format!("{at}holder_data");
            let text = format!("{field} has {} bytes, at most {HOLDER_DATA_MAX} are allowed", data.len());
            self.add(field, text);
        }
    }

    /// Of a lease, in milliseconds.
    pub(super) fn duration(&mut self, field: &str, duration: Option<prost_types::Duration>, limits: &ServiceLimits) -> u32 {
        let Some(duration) = duration else {
            self.add(field, format!("{field} must be given: how long the lease lasts unless renewed, for example \"15s\""));
            return 0;
        };
        self.span(field, duration, limits.min_duration, limits.max_duration).and_then(|ms| u32::try_from(ms).ok()).unwrap_or(0)
    }

    /// Milliseconds to wait in the queue; 0: not at all.
    pub(super) fn wait_for(&mut self, wait_for: Option<prost_types::Duration>) -> u64 {
        wait_for.and_then(|wait| self.span("wait_for", wait, Duration::ZERO, WAIT_MAX)).unwrap_or(0)
    }

    /// In milliseconds.
    pub(super) fn retention(&mut self, retention: Option<prost_types::Duration>) -> Option<u64> {
        retention.and_then(|retention| self.span("retention", retention, Duration::ZERO, RETENTION_MAX))
    }

    /// In milliseconds, rounded up; `None` when a rule is broken.
    fn span(&mut self, field: &str, given: prost_types::Duration, min: Duration, max: Duration) -> Option<u64> {
        let rule = format!("must be {} to {}", Length(min), Length(max));
        let prost_types::Duration { seconds, nanos } = given;
        if nanos.unsigned_abs() > 999_999_999 || (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0) {
            self.add(field, format!("{field} is not a duration ({seconds} seconds and {nanos} nanoseconds); it {rule}, for example \"15s\""));
            return None;
        }
        let (Ok(whole), Ok(part)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
            self.add(field, format!("{field} is negative ({seconds} seconds and {nanos} nanoseconds); it {rule}"));
            return None;
        };
        let span = Duration::new(whole, part);
        if span < min || span > max {
            self.add(field, format!("{field} is {}; it {rule}", Length(span)));
            return None;
        }
        u64::try_from(span.as_nanos().div_ceil(1_000_000)).ok()
    }

    pub(super) fn labels(&mut self, labels: &HashMap<String, String>) {
        if let Err(error) = check_labels(&shared(labels)) {
            self.add("labels", error.0);
        }
    }

    pub(super) fn annotations(&mut self, annotations: &HashMap<String, String>) {
        if let Err(error) = check_annotations(&shared(annotations)) {
            self.add("annotations", error.0);
        }
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

/// As people write durations: whole hours or seconds where it is that, else milliseconds.
struct Length(Duration);

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.as_nanos().div_ceil(1_000_000);
        match (ms, ms % 1_000, ms / 1_000 % 3_600) {
            (0, ..) => f.write_str("0s"),
            (_, 0, 0) => write!(f, "{}h", ms / 3_600_000),
            (_, 0, _) => write!(f, "{}s", ms / 1_000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

fn shared(map: &HashMap<String, String>) -> Labels {
    map.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))).collect()
}
