//! Leases, events and holds as documents (`-o json`, `-o yaml`): proto3 JSON's names, but tokens and revisions as numbers.
//!
//! They stay below 2^53, so no reader loses digits; as strings (proto3's way) `jq '.token + 1'` would surprise.

use std::collections::BTreeMap;

use serde::Serialize;
use tenure_client::v1::{self, EndReason, event, lease::State};

use crate::text::{duration, json_duration, timestamp};

/// One lease.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lease {
    namespace: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    holder: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_holder: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder_data: Option<String>,
    /// Instead of `holderData` when that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    holder_data_base64: Option<String>,
    token: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renew_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
    transitions: u64,
    waiters: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    revision: u64,
    renew_revision: u64,
    create_revision: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recent_holds: Vec<Hold>,
}

impl From<&v1::Lease> for Lease {
    fn from(lease: &v1::Lease) -> Self {
        let (text, base64) = match std::str::from_utf8(&lease.holder_data) {
            _ if lease.holder_data.is_empty() => (None, None),
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(base64(&lease.holder_data))),
        };
        Self {
            namespace: lease.namespace.clone(),
            name: lease.name.clone(),
            uid: lease.uid.clone(),
            state: state(lease.state()),
            holder: lease.holder.clone(),
            last_holder: lease.last_holder.clone(),
            holder_data: text,
            holder_data_base64: base64,
            token: lease.token,
            duration: duration(lease.duration.as_ref()).map(json_duration),
            expires_in: duration(lease.expires_in.as_ref()).map(json_duration),
            acquire_time: time(lease.acquire_time.as_ref()),
            renew_time: time(lease.renew_time.as_ref()),
            create_time: time(lease.create_time.as_ref()),
            transitions: lease.transitions,
            waiters: lease.waiters,
            retention: duration(lease.retention.as_ref()).map(json_duration),
            labels: lease.labels.clone().into_iter().collect(),
            annotations: lease.annotations.clone().into_iter().collect(),
            revision: lease.revision,
            renew_revision: lease.renew_revision,
            create_revision: lease.create_revision,
            recent_holds: lease.recent_holds.iter().map(Hold::from).collect(),
        }
    }
}

/// All of a list; watch after `revision` to miss nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Leases {
    pub(crate) leases: Vec<Lease>,
    pub(crate) revision: u64,
}

/// One hold.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hold {
    holder: String,
    token: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    acquire_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "is_zero")]
    end_revision: u64,
}

impl From<&v1::Hold> for Hold {
    fn from(hold: &v1::Hold) -> Self {
        Self {
            holder: hold.holder.clone(),
            token: hold.token,
            acquire_time: time(hold.acquire_time.as_ref()),
            end_time: time(hold.end_time.as_ref()),
            end_reason: reason(hold.end_reason()),
            end_revision: hold.end_revision,
        }
    }
}

/// Who held a lease.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holds {
    pub(crate) holds: Vec<Hold>,
    pub(crate) complete_since: u64,
}

/// One change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    #[serde(rename = "type")]
    kind: &'static str,
    revision: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    previous_holder: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    lease: Option<Lease>,
}

impl From<&v1::Event> for Event {
    fn from(event: &v1::Event) -> Self {
        Self {
            kind: kind(event.r#type()),
            revision: event.revision,
            previous_holder: event.previous_holder.clone(),
            reason: reason(event.reason()),
            lease: event.lease.as_ref().map(Lease::from),
        }
    }
}

pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Unspecified => "UNKNOWN",
        other => other.as_str_name(),
    }
}

pub(crate) fn kind(kind: event::Type) -> &'static str {
    match kind {
        event::Type::Unspecified => "UNKNOWN",
        other => other.as_str_name(),
    }
}

pub(crate) fn reason(reason: EndReason) -> Option<&'static str> {
    (reason != EndReason::Unspecified).then(|| reason.as_str_name())
}

fn time(wire: Option<&prost_types::Timestamp>) -> Option<String> {
    timestamp(wire).map(|time| time.to_string())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0_u32, |n, &byte| n << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            out.push(if i <= chunk.len() { char::from(ALPHABET[(n >> (18 - 6 * i) & 63) as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reads_like_proto_json_with_numbers() {
        let lease = v1::Lease {
            namespace: "default".into(),
            name: "job".into(),
            state: State::Held.into(),
            holder: "a".into(),
            holder_data: "10.0.0.1:80".into(),
            token: 1_800_000_000_000_000,
            duration: Some(prost_types::Duration { seconds: 15, nanos: 0 }),
            expires_in: Some(prost_types::Duration { seconds: 12, nanos: 345_000_000 }),
            acquire_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            labels: [("app".into(), "web".into())].into(),
            revision: 7,
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&Lease::from(&lease)).unwrap(),
            r#"{"namespace":"default","name":"job","state":"HELD","holder":"a","holderData":"10.0.0.1:80","token":1800000000000000,"duration":"15s","expiresIn":"12.345s","acquireTime":"2023-11-14T22:13:20Z","transitions":0,"waiters":0,"labels":{"app":"web"},"revision":7,"renewRevision":0,"createRevision":0}"#
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        for (bytes, text) in [(&b"\xff"[..], "/w=="), (b"\xff\xfe", "//4="), (b"\xff\xfe\xfd", "//79"), (b"", "")] {
            assert_eq!(base64(bytes), text);
        }
        let lease = v1::Lease { holder_data: vec![0xff].into(), ..Default::default() };
        let view = serde_json::to_value(Lease::from(&lease)).unwrap();
        assert_eq!((view.get("holderData"), view["holderDataBase64"].as_str()), (None, Some("/w==")));
    }
}
