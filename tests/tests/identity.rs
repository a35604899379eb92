//! Server identity: each replica's own lease, as operators see it, and as clients find the servers by it.

use std::{collections::BTreeMap, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_client::{Client, Error, LostReason};
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

/// Waits until a client knows what it is to know.
async fn knows(client: &Client, what: &str, wanted: impl Fn(&[String]) -> bool) -> anyhow::Result<()> {
    let begun = clock::now();
    while clock::since(begun) < PATIENCE {
        if wanted(&client.endpoints()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("{what}: the client knows {:?}", client.endpoints())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_was_given_one_endpoint_goes_on_when_that_replica_is_killed() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("identity-discover").await?;
    servers(&cluster, "three live servers", all_live).await?;
    let addresses: Vec<String> = cluster.replicas.iter().map(|replica| replica.client.addr()).collect();
    let simple = Client::builder().endpoints([&addresses[0]]).build()?;
    let client = Client::builder().endpoints([&addresses[0]]).discover(true).build()?;
    let lease = client.lease("found").duration(Duration::from_secs(6)).acquire().await?;
    knows(&client, "the other two", |known| addresses.iter().all(|address| known.contains(address))).await?;
    ensure!(simple.cluster_status().await.is_ok() && simple.endpoints() == addresses[..1], "not asked to, it learned {:?}", simple.endpoints());

    cluster.replica(1)?.kill()?;
    let found = client.get(v1::GetRequest { name: "found".into(), ..Default::default() }).await?;
    ensure!(found.token == lease.token() && addresses[1..].contains(&client.endpoint()), "{found:?} at {}", client.endpoint());
    // It is not on its own: without being asked to, it is lost.
    let error = simple.get(v1::GetRequest { name: "found".into(), ..Default::default() }).await.err().context("nobody is there")?;
    ensure!(matches!(error, Error::NotApplied(_)), "{error}");
    // Longer than the lease lasts by itself.
    let kept = tokio::time::timeout(Duration::from_secs(8), lease.lost()).await;
    ensure!(kept.is_err() && lease.is_held(), "it was lost: {kept:?}");
    lease.release().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_lease_survives_the_move_of_every_replica_to_another_address() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("identity-move").await?;
    servers(&cluster, "three live servers", all_live).await?;
    let old: Vec<String> = cluster.replicas.iter().map(|replica| replica.client.addr()).collect();
    let client = Client::builder().endpoints(old.clone()).discover(true).build()?;
    let lease = client.lease("held").duration(Duration::from_secs(6)).acquire().await?;
    for id in 1..=3 {
        cluster.replica(id)?.terminate().await?;
        cluster.move_away(id)?;
        cluster.start_all().await?;
        let now = cluster.replica(id)?.client.addr();
        servers(&cluster, "three live servers", |servers| all_live(servers) && said(&servers[&id]).is_ok_and(|said| said["client"] == now)).await?;
        knows(&client, "the new address", |known| known.contains(&now)).await?;
        ensure!(lease.is_held(), "lost when replica {id} moved: {:?}", lease.lost_reason());
    }
    // Nobody is at the old addresses any more, and the client is not in need of them.
    let new: Vec<String> = cluster.replicas.iter().map(|replica| replica.client.addr()).collect();
    let found = client.get(v1::GetRequest { name: "held".into(), ..Default::default() }).await?;
    ensure!(found.token == lease.token() && new.contains(&client.endpoint()), "{found:?} at {}", client.endpoint());
    ensure!(old.iter().chain(&new).all(|address| client.endpoints().contains(address)), "{:?}", client.endpoints());
    // The cluster agrees: one vote each, all at their new addresses, and the whole of it still works without one of them.
    let statuses = cluster.settled().await?;
    ensure!(statuses.iter().all(|status| status.members.iter().all(|member| new.contains(&member.client_addr))), "{statuses:#?}");
    cluster.replica(2)?.kill()?;
    let kept = tokio::time::timeout(Duration::from_secs(8), lease.lost()).await;
    ensure!(kept.is_err() && lease.is_held(), "it was lost: {kept:?}");
    lease.release().await?;
    ensure!(matches!(lease.lost_reason(), Some(LostReason::Released)), "{:?}", lease.lost_reason());
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_where_another_cluster_answers_is_not_learned() -> anyhow::Result<()> {
    let one = || Settings { replicas: 1, ..Settings::default() };
    let (mine, other) = (Cluster::start("identity-mine", one()).await?, Cluster::start("identity-other", one()).await?);
    let is_live = |servers: &Servers| states(servers) == [State::Held];
    servers(&mine, "a live server", is_live).await?;
    servers(&other, "a live server", is_live).await?;
    // As if a container advertised an address at which somebody else is, here; and one at which nobody is.
    let nobody = tenure_tests::ports::find()?;
    for (name, address) in [("tenured-elsewhere", other.endpoints()), ("tenured-nowhere", nobody.addr())] {
        let labels = [("tenure.dev/identity".to_owned(), "tenured".to_owned())].into();
        let holder_data = format!("{{\"client\":\"{address}\"}}").into_bytes().into();
        mine.api().grant(v1::AcquireRequest { labels, holder_data, ..api::acquire(NAMESPACE, name, "x", 60_000) }).await?;
    }
    let client = Client::builder().endpoints([mine.endpoints()]).build()?;
    ensure!(client.discover().await? == [mine.endpoints()], "{:?}", client.endpoints());
    let given = Client::builder().endpoints([nobody.addr(), mine.endpoints()]).build()?;
    ensure!(given.discover().await?.len() == 2, "what was given is forgotten: {:?}", given.endpoints());
    other.passed()?;
    mine.passed()
}
