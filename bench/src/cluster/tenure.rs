//! `tenured serve`, three times.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use tenure_proto::v1::{TransferLeaderRequest, cluster_service_client::ClusterServiceClient};

use super::{Launch, MEMBERS, Member, Status, http::Metrics, log_file, ports};
use crate::connect;

/// The one beside this program unless another is named.
pub(super) fn binary(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let binary = match named {
        Some(named) => named.to_owned(),
        None => std::env::current_exe()?.with_file_name("tenured"),
    };
    ensure!(binary.exists(), "{} is not there: build it (cargo build --profile dist -p tenure-server), or name it with --tenured-bin", binary.display());
    Ok(binary)
}

/// Not started yet.
pub(super) fn members(named: Option<&Path>, dir: &Path) -> anyhow::Result<Vec<Member>> {
    let binary = binary(named)?;
    let addresses = ports::free(3 * MEMBERS)?;
    let ports: Vec<&[String]> = addresses.chunks(3).collect();
    let mut founding = String::new();
    for (at, ports) in ports.iter().enumerate() {
        write!(founding, "\n[[members]]\nnode_id = {}\npeer = \"{}\"\n", at + 1, ports[1])?;
    }
    let mut members = Vec::new();
    for (at, ports) in ports.iter().enumerate() {
        let id = at + 1;
        let (data, config) = (dir.join(format!("data-{id}")), dir.join(format!("node-{id}.toml")));
        let listen = format!("[listen]\nclient = \"{}\"\npeer = \"{}\"\nhttp = \"{}\"\n", ports[0], ports[1], ports[2]);
        fs::write(&config, format!("node_id = {id}\ndata_dir = {data:?}\nbootstrap = true\n\n{listen}{founding}"))?;
        let arguments = vec!["serve".to_owned(), "--config".to_owned(), config.to_str().context("a path in UTF-8")?.to_owned()];
        let launch = Launch { binary: binary.clone(), arguments, log: log_file(dir, id) };
        members.push(Member { client: ports[0].clone(), http: ports[2].clone(), launch: Some(launch), child: None });
    }
    Ok(members)
}

/// From the metrics: `Status` looks at the whole table.
pub(super) async fn status(member: &Member) -> anyhow::Result<Status> {
    let metrics = Metrics::read(&member.http).await?;
    let get = |name: &str| metrics.get(name).with_context(|| format!("{name} in the metrics"));
    let (ready, leads, term) = (get("tenure_ready")?, get("tenure_is_raft_leader")?, get("tenure_raft_term")?);
    Ok(Status { ready: ready > 0.0, leads: leads > 0.0, term: term as u64 })
}

/// To the best caught-up member.
pub(super) async fn transfer(through: &Member) -> anyhow::Result<()> {
    let mut client = ClusterServiceClient::new(connect::channel(&through.client).await?);
    client.transfer_leader(TransferLeaderRequest::default()).await?;
    Ok(())
}
