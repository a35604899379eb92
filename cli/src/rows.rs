//! Leases, events and holds as table rows.

use jiff::Timestamp;
use tenure_client::v1::{self, event, lease::State};

use crate::{
    table::{Cell, Paint},
    text::{age, between, duration, short, timestamp, to_the_second},
    view,
};

pub(crate) const LEASE: &[&str] = &["NAMESPACE", "NAME", "HOLDER", "STATE", "EXPIRES-IN", "TOKEN", "AGE"];
pub(crate) const LEASE_WIDE: &[&str] =
    &["NAMESPACE", "NAME", "HOLDER", "STATE", "EXPIRES-IN", "TOKEN", "AGE", "LAST-HOLDER", "DURATION", "TRANSITIONS", "WAITERS", "LABELS"];
pub(crate) const EVENT: &[&str] = &["REVISION", "EVENT", "NAMESPACE", "NAME", "HOLDER", "TOKEN", "REASON"];
pub(crate) const EVENT_WIDE: &[&str] = &["REVISION", "EVENT", "NAMESPACE", "NAME", "HOLDER", "TOKEN", "REASON", "PREVIOUS-HOLDER", "DURATION", "LABELS"];
pub(crate) const HOLD: &[&str] = &["HOLDER", "TOKEN", "ACQUIRED", "ENDED", "HELD-FOR", "REASON"];

/// `deleted`: the last thing that is seen of it.
pub(crate) fn lease(lease: &v1::Lease, wide: bool, now: Timestamp, deleted: bool) -> Vec<Cell> {
    let state = match lease.state() {
        _ if deleted => Cell("DELETED".into(), Paint::Dim),
        State::Held => Cell("HELD".into(), Paint::Green),
        State::Expired => Cell("EXPIRED".into(), Paint::Red),
        other => Cell(view::state(other).into(), Paint::Dim),
    };
    let length = duration(lease.duration.as_ref()).map(short);
    let expires = match (lease.state(), duration(lease.expires_in.as_ref())) {
        (State::Held, Some(left)) if !deleted => short(left),
        // Events do not carry the time left: it was a whole duration at most.
        (State::Held, None) if !deleted => length.as_ref().map_or_else(dash, |length| format!("<={length}")),
        _ => dash(),
    };
    let mut row: Vec<Cell> = vec![
        lease.namespace.as_str().into(),
        lease.name.as_str().into(),
        or_dash(&lease.holder).into(),
        state,
        expires.into(),
        token(lease.token).into(),
        timestamp(lease.create_time.as_ref()).map_or_else(dash, |created| age(created, now)).into(),
    ];
    if wide {
        row.extend([
            or_dash(&lease.last_holder).into(),
            length.unwrap_or_else(dash).into(),
            lease.transitions.to_string().into(),
            lease.waiters.to_string().into(),
            labels(lease).into(),
        ]);
    }
    row
}

pub(crate) fn event(event: &v1::Event, wide: bool) -> Vec<Cell> {
    let unknown = v1::Lease::default();
    let lease = event.lease.as_ref().unwrap_or(&unknown);
    let paint = match event.r#type() {
        event::Type::Acquired => Paint::Green,
        event::Type::Expired => Paint::Red,
        event::Type::Deleted => Paint::Dim,
        _ => Paint::Plain,
    };
    let mut row: Vec<Cell> = vec![
        event.revision.to_string().into(),
        Cell(view::kind(event.r#type()).into(), paint),
        lease.namespace.as_str().into(),
        lease.name.as_str().into(),
        or_dash(&lease.holder).into(),
        token(lease.token).into(),
        view::reason(event.reason()).map_or_else(dash, str::to_owned).into(),
    ];
    if wide {
        row.extend([or_dash(&event.previous_holder).into(), duration(lease.duration.as_ref()).map_or_else(dash, short).into(), labels(lease).into()]);
    }
    row
}

pub(crate) fn hold(hold: &v1::Hold, now: Timestamp) -> Vec<Cell> {
    let (from, to) = (timestamp(hold.acquire_time.as_ref()), timestamp(hold.end_time.as_ref()));
    let reason = view::reason(hold.end_reason());
    vec![
        or_dash(&hold.holder).into(),
        token(hold.token).into(),
        from.map_or_else(dash, to_the_second).into(),
        to.map_or_else(dash, to_the_second).into(),
        from.map_or_else(dash, |from| between(from, to.unwrap_or(now))).into(),
        match reason {
            None => Cell("HELD".into(), Paint::Green),
            Some(reason) => reason.into(),
        },
    ]
}

pub(crate) fn dash() -> String {
    "-".into()
}

pub(crate) fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

pub(crate) fn token(token: u64) -> String {
    if token == 0 { dash() } else { token.to_string() }
}

pub(crate) fn labels(lease: &v1::Lease) -> String {
    let mut pairs: Vec<_> = lease.labels.iter().map(|(key, value)| if value.is_empty() { key.clone() } else { format!("{key}={value}") }).collect();
    pairs.sort_unstable();
    if pairs.is_empty() { dash() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 300_000_000 })
    }

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn three() -> Vec<v1::Lease> {
        let held = v1::Lease {
            namespace: "kube-node-lease".into(),
            name: "node-1".into(),
            state: State::Held.into(),
            holder: "node-1".into(),
            token: 1_790_000_000_001,
            duration: seconds(40),
            expires_in: seconds(31),
            create_time: at(1_000_000),
            transitions: 2,
            labels: [("zone".into(), "b".into()), ("spot".into(), String::new())].into(),
            ..Default::default()
        };
        let expired = v1::Lease {
            name: "node-2".into(),
            state: State::Expired.into(),
            holder: String::new(),
            last_holder: "node-2".into(),
            expires_in: None,
            labels: Default::default(),
            ..held.clone()
        };
        let free = v1::Lease { namespace: "default".into(), name: "new".into(), state: State::Free.into(), create_time: at(1_431_955), ..Default::default() };
        vec![held, expired, free]
    }

    fn print(headers: &[&'static str], rows: &[Vec<Cell>]) -> String {
        Table::new(headers, false).print(rows)
    }

    #[test]
    fn leases_are_shown_as_kubectl_would() {
        let now = Timestamp::from_second(1_432_000).unwrap();
        let rows: Vec<_> = three().iter().map(|l| lease(l, false, now, false)).collect();
        assert_eq!(
            print(LEASE, &rows),
            "NAMESPACE         NAME     HOLDER   STATE     EXPIRES-IN   TOKEN           AGE\n\
             kube-node-lease   node-1   node-1   HELD      31.3s        1790000000001   5d\n\
             kube-node-lease   node-2   -        EXPIRED   -            1790000000001   5d\n\
             default           new      -        FREE      -            -               45s\n"
        );
    }

    #[test]
    fn wide_says_who_held_it_and_how_it_is_labelled() {
        let now = Timestamp::from_second(1_432_000).unwrap();
        let rows: Vec<_> = three()[..2].iter().map(|l| lease(l, true, now, false)).collect();
        assert_eq!(
            print(LEASE_WIDE, &rows),
            "NAMESPACE         NAME     HOLDER   STATE     EXPIRES-IN   TOKEN           AGE   LAST-HOLDER   DURATION   TRANSITIONS   WAITERS   LABELS\n\
             kube-node-lease   node-1   node-1   HELD      31.3s        1790000000001   5d    -             40.3s      2             0         spot,zone=b\n\
             kube-node-lease   node-2   -        EXPIRED   -            1790000000001   5d    node-2        40.3s      2             0         -\n"
        );
    }

    #[test]
    fn a_watched_lease_shows_a_bound_instead_of_the_time_left() {
        let now = Timestamp::from_second(1_432_000).unwrap();
        let mut held = three().remove(0);
        held.expires_in = None;
        assert_eq!(lease(&held, false, now, false)[4], "<=40.3s".into());
        assert_eq!(lease(&held, false, now, true)[3..5], [Cell("DELETED".into(), Paint::Dim), "-".into()]);
    }

    #[test]
    fn an_event_says_what_happened_and_why() {
        let handed_over = v1::Event {
            r#type: event::Type::Acquired.into(),
            lease: Some(v1::Lease { namespace: "default".into(), name: "job".into(), holder: "b".into(), token: 9, ..Default::default() }),
            previous_holder: "a".into(),
            reason: v1::EndReason::Expired.into(),
            revision: 9,
        };
        assert_eq!(
            print(EVENT, &[event(&handed_over, false)]),
            "REVISION   EVENT      NAMESPACE   NAME   HOLDER   TOKEN   REASON\n\
             9          ACQUIRED   default     job    b        9       EXPIRED\n"
        );
        assert_eq!(event(&handed_over, true)[7], "a".into());
    }

    #[test]
    fn history_shows_how_long_and_why_it_ended() {
        let now = Timestamp::from_second(1_000_100).unwrap();
        let past = v1::Hold {
            holder: "a".into(),
            token: 5,
            acquire_time: at(1_000_000),
            end_time: at(1_000_090),
            end_reason: v1::EndReason::Released.into(),
            end_revision: 6,
        };
        let present = v1::Hold { holder: "b".into(), token: 7, acquire_time: at(1_000_095), ..Default::default() };
        assert_eq!(
            print(HOLD, &[hold(&present, now), hold(&past, now)]),
            "HOLDER   TOKEN   ACQUIRED               ENDED                  HELD-FOR   REASON\n\
             b        7       1970-01-12T13:48:15Z   -                      5s         HELD\n\
             a        5       1970-01-12T13:46:40Z   1970-01-12T13:48:10Z   1m30s      RELEASED\n"
        );
    }
}
