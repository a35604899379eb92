//! Server identity: each replica's own lease, as operators and clients see it.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_tests::{
    Cluster, Settings, api, binaries, clock,
    replica::PATIENCE,
    v1::{self, lease::State},
};

const NAMESPACE: &str = "tenure-system";
const SELECTOR: &str = "tenure.dev/identity=tenured";
/// Not so short that a busy machine misses it.
const SHORT: &str = "server_identity_duration = \"4s\"\nhost_name = \"box-1.example.net\"\n";

/// The identity leases by node id.
type Servers = BTreeMap<u64, v1::Lease>;

/// What a lease's holder data says.
fn said(lease: &v1::Lease) -> anyhow::Result<serde_json::Value> {
    serde_json::from_slice(&lease.holder_data).with_context(|| format!("no JSON in {lease:?}"))
}

/// Waits until the leases are as wanted, asking a replica that runs.
async fn servers(cluster: &Cluster, what: &str, wanted: impl Fn(&Servers) -> bool) -> anyhow::Result<Servers> {
    let begun = clock::now();
    let mut seen = String::new();
    while clock::since(begun) < PATIENCE {
        for replica in cluster.replicas.iter().filter(|replica| replica.running()) {
            match tokio::time::timeout(Duration::from_secs(2), replica.api.list(NAMESPACE, SELECTOR)).await {
                Ok(Ok(leases)) => {
                    let servers = leases.into_iter().map(|lease| Ok((said(&lease)?["node_id"].as_u64().context("a number")?, lease)));
                    let servers = servers.collect::<anyhow::Result<Servers>>()?;
                    if wanted(&servers) {
                        return Ok(servers);
                    }
                    seen = format!("{servers:#?}");
                }
                other => seen = format!("{other:?}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("not {what} after {PATIENCE:?}: {seen}")
}

fn states(servers: &Servers) -> Vec<State> {
    servers.values().map(v1::Lease::state).collect()
}

fn all_live(servers: &Servers) -> bool {
    states(servers) == [State::Held; 3]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_publishes_itself_and_its_end_shows() -> anyhow::Result<()> {
    let mut cluster = Cluster::start("identity", Settings { top: SHORT, ..Settings::default() }).await?;
    let born = servers(&cluster, "three live servers", all_live).await?;
    for (id, lease) in &born {
        ensure!(lease.name.starts_with("tenured-") && lease.name.len() == 34, "{lease:?}");
        ensure!(lease.holder.starts_with(&format!("{}_", lease.name)), "{lease:?}");
        ensure!(lease.labels["kubernetes.io/hostname"] == "box-1.example.net", "{lease:?}");
        ensure!(api::to_millis(lease.retention.as_ref()) == 3_600_000, "{lease:?}");
        let (said, replica) = (said(lease)?, cluster.replica(*id)?);
        ensure!(said["client"] == replica.client.addr() && said["http"] == replica.http.addr(), "{said}");
    }

    // As operators ask.
    let printed = Command::new(binaries::tenure()?)
        .args(["--endpoints", &cluster.endpoints(), "get", "lease", "-n", NAMESPACE, "-l", SELECTOR, "-o", "name"])
        .output()?;
    let names: Vec<String> = born.values().map(|lease| format!("lease/{}", lease.name)).collect();
    let printed: Vec<String> = String::from_utf8(printed.stdout)?.lines().map(str::to_owned).collect();
    ensure!(printed.len() == 3 && names.iter().all(|name| printed.contains(name)), "{printed:?} is not {names:?}");

    // One is killed: it runs out, and nothing else changes.
    cluster.replica(2)?.kill()?;
    let killed = servers(&cluster, "one expired server", |servers| states(servers) == [State::Held, State::Expired, State::Held]).await?;
    ensure!([1, 3].iter().all(|id| killed[id].token == born[id].token), "{killed:#?}");
    ensure!(killed[&2].last_holder == born[&2].holder, "{killed:#?}");

    // It comes back: the same lease, under a larger token.
    cluster.start_all().await?;
    let back = servers(&cluster, "three live servers again", all_live).await?;
    ensure!(back[&2].name == born[&2].name && back[&2].uid == born[&2].uid && back[&2].token > born[&2].token, "{back:#?}");
    ensure!([1, 3].iter().all(|id| back[id].token == born[id].token), "{back:#?}");

    // One is stopped: it says so at once, and does not run out.
    cluster.replica(1)?.terminate().await?;
    let stopped = servers(&cluster, "a server that has left", |servers| states(servers)[0] != State::Held).await?;
    ensure!(stopped[&1].state() == State::Free, "it was not released: {stopped:#?}");
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replica_reclaims_its_lease_as_soon_as_it_is_back() -> anyhow::Result<()> {
    // As long as an hour, so that nothing can have run out.
    let top = "server_identity_duration = \"1h\"\n";
    let mut cluster = Cluster::start("identity-reclaim", Settings { top, ..Settings::default() }).await?;
    let born = servers(&cluster, "three live servers", all_live).await?;
    cluster.replica(3)?.kill()?;
    cluster.move_away(3)?;
    cluster.start_all().await?;
    let addr = cluster.replica(3)?.client.addr();
    let back = servers(&cluster, "a new token", |servers| all_live(servers) && servers[&3].token > born[&3].token).await?;
    ensure!(back[&3].name == born[&3].name && back[&3].transitions == born[&3].transitions, "{back:#?}");
    ensure!(said(&back[&3])?["client"] == addr, "the new address is not in {:?}", back[&3]);
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turned_off_nothing_is_published() -> anyhow::Result<()> {
    let cluster = Cluster::start("identity-off", Settings { top: "server_identity = false\n", ..Settings::default() }).await?;
    // Long after a replica would have published itself: it does so as soon as it knows a raft leader.
    for at in 0..20 {
        cluster.api().grant(api::acquire("ns", &format!("lease-{at}"), "me", 10_000)).await?;
    }
    let statuses = cluster.settled().await?;
    ensure!(statuses.iter().all(|status| status.leases == 20), "{statuses:#?}");
    ensure!(cluster.api().list(NAMESPACE, "").await?.is_empty(), "something was published");
    cluster.passed()
}
