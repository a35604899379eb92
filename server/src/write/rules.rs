//! What a command must keep to before it gets into the log. A replica holds the requests of its clients to these rules, and the raft leader holds
//! what other replicas pass on to the same: whoever reaches the peer port can do no more than a client.
//!
//! Each check names every rule that is broken, by the field of the request from which the command was made.

use std::{collections::HashMap, fmt::Display, sync::Arc, time::Duration};

use tenure_lease::{Labels, LeaseKey, check_annotations, check_labels};
use tenure_proto::peer::v1::{self as peer, Command, command::Kind};

use super::codec;
use crate::config::ServiceLimits;

const HOLDER_MAX: usize = 256;
const REQUEST_ID_MAX: usize = 128;
const HOLDER_DATA_MAX: usize = 4_096;
const RENEW_ITEMS_MAX: usize = 10_000;
/// For ever is for what Put creates, not a number.
const RETENTION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Nobody mends more at a time, and details travel in a header.
const VIOLATIONS_MAX: usize = 16;
/// Of all of them: some clients take 8 KiB of headers, and what is named travels twice, encoded.
const VIOLATIONS_BYTES: usize = 2_000;

/// One rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) field: String,
    pub(crate) description: String,
}

/// All of them in a line, for a log.
pub(super) fn named(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.description.as_str()).collect::<Vec<_>>().join("; ")
}

/// What is wrong, in the order in which it was found; each field is named once.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    found: Vec<Violation>,
    bytes: usize,
}

impl Violations {
    pub(crate) fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        let (field, description) = (field.into(), description.into());
        if self.found.iter().any(|before| before.field == field) {
            return;
        }
        let bytes = self.bytes + field.len() + description.len();
        // The first is named in any case: none is so long.
        if self.found.is_empty() || (self.found.len() < VIOLATIONS_MAX && bytes <= VIOLATIONS_BYTES) {
            self.bytes = bytes;
            self.found.push(Violation { field, description });
        }
    }

    pub(crate) fn found(self) -> Vec<Violation> {
        self.found
    }

    pub(crate) fn namespace(&mut self, field: impl Display, namespace: &str) {
        if let Err(error) = LeaseKey::check_namespace(namespace) {
            self.add(field.to_string(), error.0);
        }
    }

    /// `at`, here and below, stands before the names of the fields.
    pub(crate) fn key(&mut self, at: impl Display, key: Option<&peer::Key>) {
        let nothing = peer::Key::default();
        let key = key.unwrap_or(&nothing);
        self.namespace(format_args!("{at}namespace"), &key.namespace);
        if key.name.is_empty() {
            self.add(format!("{at}name"), "name must be given: the lease's name, a DNS subdomain like \"api-leader\"");
        } else if let Err(error) = LeaseKey::check_name(&key.name) {
            self.add(format!("{at}name"), error.0);
        }
    }

    fn holder(&mut self, at: &str, holder: &str) {
        if holder.is_empty() {
            let text = format!("{at}holder must be given: who asks, at most {HOLDER_MAX} bytes, for example a host name");
            self.add(format!("{at}holder"), text);
        }
        self.at_most(format_args!("{at}holder"), holder.len(), HOLDER_MAX);
    }

    fn request_id(&mut self, at: &str, request_id: &str) {
        self.at_most(format_args!("{at}request_id"), request_id.len(), REQUEST_ID_MAX);
    }

    fn holder_data(&mut self, at: &str, data: &[u8]) {
        self.at_most(format_args!("{at}holder_data"), data.len(), HOLDER_DATA_MAX);
    }

    fn at_most(&mut self, field: impl Display, bytes: usize, most: usize) {
        if bytes > most {
            self.add(field.to_string(), format!("{field} has {bytes} bytes, at most {most} are allowed"));
        }
    }

    /// Of a lease.
    pub(crate) fn duration(&mut self, field: impl Display, ms: u64, limits: &ServiceLimits) {
        let (min, max) = (limits.min_duration, limits.max_duration);
        if ms == 0 {
            let rule = format!("{field} must be given, {} to {}", Length(min), Length(max));
            return self.add(field.to_string(), format!("{rule}: how long the lease lasts unless renewed, for example \"15s\""));
        }
        self.span(field, ms, min, max);
    }

    fn wait(&mut self, ms: u64) {
        self.span("wait_for", ms, Duration::ZERO, WAIT_MAX);
    }

    fn retention(&mut self, ms: Option<u64>) {
        self.span("retention", ms.unwrap_or(0), Duration::ZERO, RETENTION_MAX);
    }

    fn span(&mut self, field: impl Display, ms: u64, min: Duration, max: Duration) {
        let given = Duration::from_millis(ms);
        if given < min || given > max {
            self.add(field.to_string(), format!("{field} is {}; it must be {} to {}", Length(given), Length(min), Length(max)));
        }
    }

    fn labels(&mut self, labels: &HashMap<String, String>) {
        if let Err(error) = check_labels(&shared(labels)) {
            self.add("labels", error.0);
        }
    }

    fn annotations(&mut self, annotations: &HashMap<String, String>) {
        if let Err(error) = check_annotations(&shared(annotations)) {
            self.add("annotations", error.0);
        }
    }
}

/// What another replica passes on.
///
/// # Errors
/// The rules that it breaks.
pub(crate) fn check(command: &Command, limits: &ServiceLimits) -> Result<(), Vec<Violation>> {
    let mut wrong = Violations::default();
    if !codec::can_be_logged(command) {
        wrong.add("command", "command is of a kind that this build does not know, or has not all of its parts");
        return Err(wrong.found);
    }
    match &command.kind {
        Some(Kind::Acquire(it)) => acquire(&mut wrong, it, limits),
        Some(Kind::Renew(it)) => renew(&mut wrong, it, limits),
        Some(Kind::Release(it)) => release(&mut wrong, it),
        Some(Kind::Put(it)) => put(&mut wrong, it, limits),
        Some(Kind::Delete(it)) => delete(&mut wrong, it),
        Some(Kind::Detach(it)) => wrong.key("", it.key.as_ref()),
        Some(Kind::KeepSession(_)) => {}
        Some(Kind::Bootstrap(_)) => wrong.add("command", "command begins a cluster, which only the raft leader itself does"),
        None => unreachable!("was found unfit for the log"),
    }
    if wrong.found.is_empty() { Ok(()) } else { Err(wrong.found) }
}

pub(crate) fn acquire(wrong: &mut Violations, acquire: &peer::Acquire, limits: &ServiceLimits) {
    wrong.key("", acquire.key.as_ref());
    wrong.holder("", &acquire.holder);
    wrong.duration("duration", acquire.duration_ms.into(), limits);
    wrong.request_id("", &acquire.request_id);
    wrong.wait(acquire.wait_ms);
    wrong.holder_data("", &acquire.holder_data);
    wrong.retention(Some(acquire.retention_ms));
    wrong.labels(&acquire.labels);
    wrong.annotations(&acquire.annotations);
}

/// Of a renewal whose columns fit together.
pub(crate) fn renew(wrong: &mut Violations, renew: &peer::Renew, limits: &ServiceLimits) {
    let n = renew.tokens.len();
    if n > RENEW_ITEMS_MAX {
        return wrong.add("items", format!("{n} items; a message may renew at most {RENEW_ITEMS_MAX}: send more messages"));
    }
    for (i, token) in renew.tokens.iter().enumerate() {
        if *token == 0 {
            wrong.add(format!("items[{i}].token"), "token must be given: the one that Acquire answered");
        }
        if let Some(ms) = renew.durations_ms.get(i).filter(|ms| **ms != 0) {
            wrong.duration(format_args!("items[{i}].duration"), (*ms).into(), limits);
        }
        match renew.keys.get(i) {
            Some(key) if !key.name.is_empty() => wrong.key(format_args!("items[{i}]."), Some(key)),
            Some(key) if !key.namespace.is_empty() => {
                wrong.add(format!("items[{i}].name"), "name must go with namespace: both are checked, or neither");
            }
            _ => {}
        }
    }
}

pub(crate) fn release(wrong: &mut Violations, release: &peer::Release) {
    wrong.key("", release.key.as_ref());
    match (release.token, release.request_id.is_empty()) {
        (0, true) => wrong.add("token", "token must be given, or request_id and holder when the token never arrived"),
        (0, false) => {
            wrong.holder("", &release.holder);
            wrong.request_id("", &release.request_id);
        }
        (_, true) => wrong.at_most("holder", release.holder.len(), HOLDER_MAX),
        (_, false) => wrong.add("request_id", "request_id must be empty when token is given: a release names one hold"),
    }
}

/// Also of what it does not set: that goes into the log with the rest.
pub(crate) fn put(wrong: &mut Violations, put: &peer::Put, limits: &ServiceLimits) {
    wrong.key("", put.key.as_ref());
    wrong.labels(&put.labels);
    wrong.annotations(&put.annotations);
    wrong.retention(put.retention_ms);
    if put.must_not_exist && put.if_revision != 0 {
        wrong.add("if_revision", "if_revision must be 0 with must_not_exist: what is not there has no revision");
    }
    if let Some(hold) = &put.hold {
        wrong.holder("hold.", &hold.holder);
        wrong.duration("hold.duration", hold.duration_ms.into(), limits);
        wrong.holder_data("hold.", &hold.holder_data);
        wrong.request_id("hold.", &hold.request_id);
    }
}

pub(crate) fn delete(wrong: &mut Violations, delete: &peer::Delete) {
    wrong.key("", delete.key.as_ref());
}

/// As people write durations: whole hours or seconds where it is that, else milliseconds.
struct Length(Duration);

impl Display for Length {
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
