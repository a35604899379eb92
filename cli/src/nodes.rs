//! `nodes`: who is alive, as the cluster says it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tenure_client::{Client, Condition, Member, Members};

use crate::{
    args::{self, Output},
    clock,
    fail::Failed,
    print::{Printer, note},
    rows,
    table::{Cell, Paint, Table},
    text::{age, duration, short, timestamp, to_the_second},
    view,
};

const HEADERS: &[&str] = &["NAME", "STATE", "HOLDER", "SINCE", "AGE"];
const WIDE: &[&str] = &["NAME", "STATE", "HOLDER", "SINCE", "AGE", "TOKEN", "DURATION", "TRANSITIONS", "DATA", "LABELS"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    lease: view::Lease,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Nodes {
    nodes: Vec<Node>,
    revision: u64,
}

/// What tells one state of a node from another; renewals do not.
type Known = (&'static str, u64, u64);

pub(crate) async fn nodes(client: &Client, printer: Printer, namespace: &str, args: args::Nodes) -> Result<(), Failed> {
    let selector = args.selector.unwrap_or_default();
    let mut members = Members::builder(client, namespace).selector(&selector).open().await?;
    let mut now = members.snapshot();
    if !args.watch {
        if printer.is_document() {
            return printer.document(&Nodes { nodes: now.members.iter().map(|member| node(member, false)).collect(), revision: now.revision });
        }
        if now.members.is_empty() {
            let labelled = if selector.is_empty() { String::new() } else { format!(" with labels {selector}") };
            note(&format!("No nodes found in namespace {namespace}{labelled}: -n sets the namespace."));
            return Ok(());
        }
        let mut rows = Rows::new(printer);
        return rows.show(&now.members.iter().map(|member| (member, false)).collect::<Vec<_>>());
    }
    let mut rows = Rows::new(printer);
    rows.table = rows.table.streaming();
    let mut known: BTreeMap<String, (Known, Member)> = BTreeMap::new();
    loop {
        if let Some(error) = &now.error {
            note(&format!("still trying: {error}"));
        } else {
            let fresh: BTreeMap<_, _> = now.members.iter().map(|member| (member.name().to_owned(), (key(member), member.clone()))).collect();
            let gone = known.iter().filter(|(name, _)| !fresh.contains_key(*name)).map(|(_, (_, member))| (member, true));
            let changed =
                fresh.iter().filter(|(name, (key, _))| known.get(*name).is_none_or(|(before, _)| before != key)).map(|(_, (_, member))| (member, false));
            let news: Vec<_> = gone.chain(changed).collect();
            if !news.is_empty() {
                rows.show(&news)?;
            }
            known = fresh;
        }
        now = members.changed().await;
    }
}

fn key(member: &Member) -> Known {
    (state(member), member.lease.token, member.lease.revision)
}

fn state(member: &Member) -> &'static str {
    match member.condition {
        Condition::Ready => "Ready",
        Condition::Unknown { .. } => "Unknown",
        Condition::Left => "Left",
    }
}

/// Ready: since the node was heard for the first time in this hold; unknown: since its last heartbeat ran out. When one left, a watch does not tell;
/// `tenure history` does.
fn since(member: &Member) -> Option<Timestamp> {
    match member.condition {
        Condition::Ready => timestamp(member.lease.acquire_time.as_ref()),
        Condition::Unknown { since } => since.and_then(|since| Timestamp::try_from(since).ok()),
        Condition::Left => None,
    }
}

fn node(member: &Member, deleted: bool) -> Node {
    let state = if deleted { "Deleted" } else { state(member) };
    Node { name: member.name().to_owned(), state, since: since(member).map(to_the_second), lease: view::Lease::from(&member.lease) }
}

struct Rows {
    printer: Printer,
    table: Table,
}

impl Rows {
    fn new(printer: Printer) -> Self {
        Self { printer, table: printer.table(if printer.is_wide() { WIDE } else { HEADERS }) }
    }

    /// Members, and whether each was deleted.
    fn show(&mut self, members: &[(&Member, bool)]) -> Result<(), Failed> {
        match self.printer.output {
            Some(Output::Json | Output::Yaml) => members.iter().try_for_each(|(member, deleted)| self.printer.one_of_many(&node(member, *deleted))),
            Some(Output::Name) => self.printer.text(&members.iter().map(|(member, _)| format!("lease/{}\n", member.name())).collect::<String>()),
            None | Some(Output::Table | Output::Wide) => {
                let now = clock::now();
                let rows: Vec<_> = members.iter().map(|(member, deleted)| row(member, *deleted, self.printer.is_wide(), now)).collect();
                self.printer.text(&self.table.print(&rows))
            }
        }
    }
}

fn row(member: &Member, deleted: bool, wide: bool, now: Timestamp) -> Vec<Cell> {
    let lease = &member.lease;
    let state = match member.condition {
        _ if deleted => Cell("Deleted".into(), Paint::Dim),
        Condition::Ready => Cell("Ready".into(), Paint::Green),
        Condition::Unknown { .. } => Cell("Unknown".into(), Paint::Red),
        Condition::Left => Cell("Left".into(), Paint::Dim),
    };
    let holder = if lease.holder.is_empty() { &lease.last_holder } else { &lease.holder };
    let mut row: Vec<Cell> = vec![
        member.name().into(),
        state,
        rows::or_dash(holder).into(),
        since(member).map_or_else(rows::dash, to_the_second).into(),
        timestamp(lease.create_time.as_ref()).map_or_else(rows::dash, |created| age(created, now)).into(),
    ];
    if wide {
        row.extend([
            rows::token(lease.token).into(),
            duration(lease.duration.as_ref()).map_or_else(rows::dash, short).into(),
            lease.transitions.to_string().into(),
            rows::or_dash(&String::from_utf8_lossy(&lease.holder_data)).into(),
            rows::labels(lease).into(),
        ]);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_and_silent_nodes_tell_since_when() {
        let at = |seconds: i64| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let now = Timestamp::from_second(1_000_100).unwrap();
        let mut lease =
            tenure_client::v1::Lease { name: "n1".into(), holder: "n1".into(), create_time: at(1_000_000), acquire_time: at(1_000_010), ..Default::default() };
        let text = |member: &Member, deleted| row(member, deleted, false, now).into_iter().map(|cell| cell.0).collect::<Vec<_>>().join(" ");
        let ready = Member { condition: Condition::Ready, lease: lease.clone() };
        assert_eq!(text(&ready, false), "n1 Ready n1 1970-01-12T13:46:50Z 100s");
        assert_eq!(text(&ready, true), "n1 Deleted n1 1970-01-12T13:46:50Z 100s");
        let since = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_050);
        let unknown = Member { condition: Condition::Unknown { since: Some(since) }, lease: lease.clone() };
        assert_eq!(text(&unknown, false), "n1 Unknown n1 1970-01-12T13:47:30Z 100s");
        lease.holder = String::new();
        lease.last_holder = "n1".into();
        assert_eq!(text(&Member { condition: Condition::Left, lease }, false), "n1 Left n1 - 100s");
    }
}
