//! `cluster …`: the replicas themselves.

use std::time::Duration;

use serde::Serialize;
use tenure_client::{
    Client, Error,
    v1::{AddMemberRequest, Member, RemoveMemberRequest, StatusResponse, TransferLeaderRequest, member::Role},
};

use crate::{
    args::{Cluster, Output},
    fail::Failed,
    print::{Printer, note},
    rows::or_dash,
    table::{Cell, Paint},
    text::short,
};

const MEMBER: &[&str] = &["NODE", "ROLE", "RAFT-LEADER", "REACHABLE", "MATCHED", "CLIENT", "PEER"];
const MEMBER_WIDE: &[&str] = &["NODE", "ROLE", "RAFT-LEADER", "REACHABLE", "MATCHED", "CLIENT", "PEER", "HTTP", "REPLICA"];
/// How often progress is looked at while a member is added.
const LOOK: Duration = Duration::from_millis(500);
/// By then a new member that can be reached is a learner.
const SOON: u32 = 6;
/// It may be behind a network that only the replicas see.
const RAFT_LEADER_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    cluster_id: String,
    served_by: u64,
    raft_leader: String,
    term: u64,
    revision: u64,
    last_log_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    lease_clock_ms: u64,
    leases: u64,
    held: u64,
    waiters: u64,
    watches: u64,
    /// In hexadecimal: it uses all 64 bits, which JSON numbers do not keep.
    state_hash: String,
    version: String,
    members: Vec<MemberView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberView {
    node_id: u64,
    role: &'static str,
    is_raft_leader: bool,
    reachable: bool,
    matched_index: u64,
    client_addr: String,
    peer_addr: String,
    http_addr: String,
    replica_id: String,
}

impl From<&Member> for MemberView {
    fn from(member: &Member) -> Self {
        Self {
            node_id: member.node_id,
            role: role(member.role()),
            is_raft_leader: member.is_raft_leader,
            reachable: member.reachable,
            matched_index: member.matched_index,
            client_addr: member.client_addr.clone(),
            peer_addr: member.peer_addr.clone(),
            http_addr: member.http_addr.clone(),
            replica_id: member.replica_id.clone(),
        }
    }
}

#[derive(Serialize)]
struct Members {
    members: Vec<MemberView>,
}

pub(crate) async fn run(client: &Client, printer: Printer, command: Cluster) -> Result<(), Failed> {
    match command {
        Cluster::Status => status(printer, &look(client).await?),
        Cluster::TransferLeader { node } => {
            let answer = client.transfer_leader(TransferLeaderRequest { node_id: node.unwrap_or_default() }).await?;
            #[derive(Serialize)]
            #[serde(rename_all = "camelCase")]
            struct Transferred {
                raft_leader_id: u64,
            }
            if printer.is_document() {
                return printer.document(&Transferred { raft_leader_id: answer.raft_leader_id });
            }
            printer.line(&format!("node {} is the raft leader", answer.raft_leader_id))
        }
        Cluster::AddMember { node, peer_addr, learner_only } => add(client, printer, AddMemberRequest { node_id: node, peer_addr, learner_only }).await,
        Cluster::RemoveMember { node } => {
            let answer = client.remove_member(RemoveMemberRequest { node_id: node }).await?;
            changed(printer, &answer.members, &format!("node {node} removed"))
        }
    }
}

/// The raft leader's view if it can be had (it knows how far the others are), otherwise that of whoever answers.
/// A client of one endpoint is asking about that replica.
async fn look(client: &Client) -> Result<StatusResponse, Error> {
    let status = client.cluster_status().await?;
    let raft_leader = status.header.as_ref().map_or("", |header| header.raft_leader.as_str());
    if client.endpoint_count() == 1 || raft_leader.is_empty() || from_raft_leader(&status) {
        return Ok(status);
    }
    let Ok(direct) = Client::builder().endpoints([raft_leader]).request_timeout(RAFT_LEADER_PATIENCE).build() else { return Ok(status) };
    Ok(direct.cluster_status().await.unwrap_or(status))
}

fn from_raft_leader(status: &StatusResponse) -> bool {
    let served_by = status.header.as_ref().map_or(0, |header| header.served_by);
    status.members.iter().any(|member| member.node_id == served_by && member.is_raft_leader)
}

fn status(printer: Printer, status: &StatusResponse) -> Result<(), Failed> {
    let header = status.header.clone().unwrap_or_default();
    match printer.output {
        Some(Output::Json | Output::Yaml) => printer.document(&StatusView {
            cluster_id: header.cluster_id,
            served_by: header.served_by,
            raft_leader: header.raft_leader,
            term: status.term,
            revision: header.revision,
            last_log_index: status.last_log_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            lease_clock_ms: status.lease_clock_ms,
            leases: status.leases,
            held: status.held,
            waiters: status.waiters,
            watches: status.watches,
            state_hash: format!("{:016x}", status.state_hash),
            version: status.version.clone(),
            members: status.members.iter().map(MemberView::from).collect(),
        }),
        Some(Output::Name) => printer.text(&status.members.iter().map(|member| format!("node/{}\n", member.node_id)).collect::<String>()),
        None | Some(Output::Table | Output::Wide) => printer.text(&(summary(status) + "\n" + &members(printer, &status.members, from_raft_leader(status)))),
    }
}

fn summary(status: &StatusResponse) -> String {
    let header = status.header.clone().unwrap_or_default();
    let clock = short(Duration::from_millis(status.lease_clock_ms));
    let StatusResponse { term, applied_index, last_log_index, leases, held, waiters, watches, version, .. } = status;
    format!(
        "cluster {}, raft leader {}, term {term}\n{leases} leases, {held} held, {waiters} waiting; lease clock {clock}, revision {}\n\
         seen by node {}: applied {applied_index} of {last_log_index}, {watches} watches, version {version}\n",
        or_dash(&header.cluster_id),
        or_dash(&header.raft_leader),
        header.revision,
        header.served_by,
    )
}

/// `sure`: the raft leader says so. Anybody else knows only of itself that it is reachable.
fn members(printer: Printer, members: &[Member], sure: bool) -> String {
    let rows: Vec<_> = members.iter().map(|member| row(member, printer.is_wide(), sure)).collect();
    printer.table(if printer.is_wide() { MEMBER_WIDE } else { MEMBER }).print(&rows)
}

fn row(member: &Member, wide: bool, sure: bool) -> Vec<Cell> {
    let reachable = match (member.reachable, sure) {
        (true, _) => Cell("yes".into(), Paint::Green),
        (false, true) => Cell("no".into(), Paint::Red),
        (false, false) => "?".into(),
    };
    let mut row: Vec<Cell> = vec![
        member.node_id.to_string().into(),
        role(member.role()).into(),
        if member.is_raft_leader { "yes" } else { "-" }.into(),
        reachable,
        if member.matched_index == 0 { "-".into() } else { member.matched_index.to_string().into() },
        or_dash(&member.client_addr).into(),
        or_dash(&member.peer_addr).into(),
    ];
    if wide {
        row.extend([or_dash(&member.http_addr).into(), or_dash(&member.replica_id).into()]);
    }
    row
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Voter => "VOTER",
        Role::Learner => "LEARNER",
        Role::Unspecified => "UNKNOWN",
    }
}

fn changed(printer: Printer, members: &[Member], done: &str) -> Result<(), Failed> {
    if printer.is_document() {
        return printer.document(&Members { members: members.iter().map(MemberView::from).collect() });
    }
    printer.text(&format!("{done}\n\n{}", self::members(printer, members, members.iter().any(|member| member.matched_index != 0))))
}

async fn add(client: &Client, printer: Printer, request: AddMemberRequest) -> Result<(), Failed> {
    let (node, at) = (request.node_id, request.peer_addr.clone());
    note(&format!("adding node {node} at {at} as a learner"));
    let answer = tokio::select! {
        answer = client.add_member(request) => answer?,
        never = progress(client, node, &at) => match never {},
    };
    changed(printer, &answer.members, &format!("node {node} added"))
}

/// Tells how far the new member is, whenever that changes.
async fn progress(client: &Client, node: u64, at: &str) -> std::convert::Infallible {
    let mut told = String::new();
    let mut looks = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        looks += 1;
        let Ok(status) = look(client).await else { continue };
        let text = match progress_text(&status, node) {
            Some(text) => text,
            None if looks > SOON => format!("still trying: does tenured run with node_id = {node} and listen for peers at {at}?"),
            None => continue,
        };
        if text != told {
            note(&text);
            told = text;
        }
    }
}

fn progress_text(status: &StatusResponse, node: u64) -> Option<String> {
    let new = status.members.iter().find(|member| member.node_id == node)?;
    let newest = status.members.iter().map(|member| member.matched_index).max().unwrap_or_default().max(status.last_log_index);
    // Only the raft leader knows; another replica may have answered.
    Some(match new.matched_index {
        0 => format!("node {node} is a {}", role(new.role())),
        matched => format!("node {node} is a {} and has {matched} of {newest} entries", role(new.role())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure_client::v1::ResponseHeader;

    fn example() -> StatusResponse {
        let member = |node_id: u64, leads: bool| Member {
            node_id,
            role: Role::Voter.into(),
            client_addr: format!("127.0.0.1:74{}0", node_id - 1),
            peer_addr: format!("127.0.0.1:74{}1", node_id - 1),
            is_raft_leader: leads,
            matched_index: if leads { 90 } else { 80 },
            reachable: leads,
            ..Default::default()
        };
        let header = ResponseHeader { cluster_id: "c-1".into(), revision: 7, served_by: 2, raft_leader: "127.0.0.1:7400".into() };
        StatusResponse {
            header: Some(header),
            members: vec![member(1, true), member(2, false)],
            term: 3,
            last_log_index: 90,
            applied_index: 89,
            lease_clock_ms: 61_000,
            leases: 5,
            held: 2,
            version: "0.1.0".into(),
            ..Default::default()
        }
    }

    #[test]
    fn status_shows_the_cluster_then_its_members() {
        let printer = Printer::new(Some(Output::Table));
        assert_eq!(
            summary(&example()) + "\n" + &members(printer, &example().members, true),
            "cluster c-1, raft leader 127.0.0.1:7400, term 3\n\
             5 leases, 2 held, 0 waiting; lease clock 1m1s, revision 7\n\
             seen by node 2: applied 89 of 90, 0 watches, version 0.1.0\n\
             \n\
             NODE   ROLE    RAFT-LEADER   REACHABLE   MATCHED   CLIENT           PEER\n\
             1      VOTER   yes           yes         90        127.0.0.1:7400   127.0.0.1:7401\n\
             2      VOTER   -             no          80        127.0.0.1:7410   127.0.0.1:7411\n"
        );
    }

    #[test]
    fn only_the_raft_leader_calls_others_unreachable() {
        assert!(!from_raft_leader(&example()));
        let cell = |sure| row(&example().members[1], false, sure).remove(3);
        assert_eq!((cell(true), cell(false)), (Cell("no".into(), Paint::Red), "?".into()));
    }

    #[test]
    fn progress_says_how_far_the_new_member_is() {
        assert_eq!(progress_text(&example(), 2).unwrap(), "node 2 is a VOTER and has 80 of 90 entries");
        assert_eq!(progress_text(&example(), 4), None);
    }
}
