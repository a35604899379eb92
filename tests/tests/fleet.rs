//! The main job: a fleet of nodes heartbeats leases through all replicas while the raft leader is killed.

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_tests::{
    Cluster, History, api, binaries, clock,
    probe::Probe,
    replica::PATIENCE,
    v1::{self, event, lease},
    watcher::Watcher,
    workload::{Ending, Holder, Outcome, Plan},
};

const NODES: usize = 200;
const SILENCED: usize = 20;
/// A tenth of what kubelets do: 40 s, renewed every 10 s.
const DURATION_MS: u64 = 4000;
const EVERY: Duration = Duration::from_secs(1);

fn tenure(cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(binaries::tenure()?).env("TENURE_ENDPOINTS", cluster.endpoints()).args(args).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tenure {}: {} {stderr}", args.join(" "), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_of_two_hundred_nodes_outlives_the_raft_leader() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("fleet").await?;
    let history = Arc::new(History::of("fleet"));
    let probe = Probe::spawn(&cluster.apis(), &history).await?;
    let start = cluster.api().status().await?.header.context("a header")?.revision;
    let mut watcher = Watcher::recorded(&cluster.apis(), 0, "kube-node-lease", start, &history);
    let mut nodes = Vec::new();
    for at in 0..NODES {
        // Connections of its own for each node, as in life.
        let replicas: Vec<_> = cluster.replicas.iter().map(|replica| tenure_tests::Api::new(&replica.client.addr())).collect();
        let name = format!("node-{at}");
        let mut plan = Plan::new("kube-node-lease", &name, &name, DURATION_MS, &replicas, at);
        plan.every = EVERY;
        nodes.push(Holder::spawn(plan, Arc::clone(&history)));
    }
    for node in &mut nodes {
        node.granted().await?;
    }

    // Some nodes die, and the raft leader with them.
    let live = nodes.split_off(SILENCED);
    let mut silenced = Vec::new();
    for node in nodes {
        let name = node.plan.lease.clone();
        silenced.push((name, node.stop(Ending::Silence).await?));
    }
    let raft_leader = cluster.raft_leader().await?;
    let killed = clock::now();
    let fault = history.fault("kill -9", raft_leader);
    cluster.replica(raft_leader)?.kill()?;
    ensure!(probe.writes_again(killed, PATIENCE).await, "no write after the raft leader was killed");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let gap = probe.longest_silence(killed);
    cluster.start_all().await?;
    history.healed(fault);

    // All shown as EXPIRED within their bound: the deadline that each had computed itself, 1 % of the duration, what the failover took, and a busy machine.
    let bound = Duration::from_millis(DURATION_MS / 100 + 500) + gap + Duration::from_secs(2);
    let mut over = 0;
    for (name, hold) in &silenced {
        ensure!(hold.outcome == Outcome::Stopped(Ending::Silence), "{name}: {hold:?}");
        let expired = loop {
            let expired = |event: &v1::Event| event.r#type() == event::Type::Expired && event.lease.as_ref().is_some_and(|lease| lease.name == *name);
            if watcher.events().iter().any(expired) {
                break clock::now();
            }
            ensure!(clock::now() < hold.deadline + clock::nanos(bound), "{name} has not expired {bound:?} after its deadline");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        over = over.max(expired.saturating_sub(hold.deadline));
    }
    println!("gap {gap:?}; the last EXPIRED was seen {:?} after its holder's deadline", Duration::from_nanos(over));

    let listed = cluster.api().list("kube-node-lease", "").await?;
    let count = |state| listed.iter().filter(|lease| lease.state() == state).count();
    ensure!(count(lease::State::Expired) == SILENCED && count(lease::State::Held) == NODES - SILENCED, "{} expired", count(lease::State::Expired));
    let table = tenure(&cluster, &["list", "-n", "kube-node-lease"])?;
    let row = |name: &str| table.lines().find(|line| line.split_whitespace().any(|word| word == name)).map(str::to_owned).unwrap_or_default();
    ensure!(
        table
            .lines()
            .next()
            .is_some_and(|head| head.split_whitespace().collect::<Vec<_>>() == ["NAMESPACE", "NAME", "HOLDER", "STATE", "EXPIRES-IN", "TOKEN", "AGE"]),
        "{table}"
    );
    ensure!(row("node-0").contains("EXPIRED"), "{table}");
    ensure!(row("node-199").contains("HELD") && row("node-199").matches("node-199").count() == 2, "{table}");

    let mut renewals = 0;
    for node in live {
        let name = node.plan.lease.clone();
        let hold = node.stop(Ending::Release).await?;
        ensure!(hold.outcome == Outcome::Stopped(Ending::Release), "{name} lost its lease: {hold:?}");
        renewals += hold.renewals;
    }
    println!("{renewals} renewals by live nodes");
    drop(probe);
    let end = history.witness(&cluster.api(), "kube-node-lease", start).await?;
    watcher.reached(end).await?;
    history.replicas(&cluster.settled().await?);
    history.check()?;
    let fleet = |event: &&v1::Event| event.lease.as_ref().is_some_and(|lease| lease.name.starts_with("node-"));
    let changed_hands = watcher.events().iter().filter(fleet).filter(|event| event.r#type() == event::Type::Acquired).count();
    ensure!(changed_hands == NODES, "{changed_hands} grants for {NODES} nodes");
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_found_by_label() -> anyhow::Result<()> {
    let cluster = Cluster::three("identity").await?;
    let manifest = cluster.dir().join("servers.yaml");
    let mut text = String::new();
    for server in ["kube-apiserver-a", "kube-apiserver-b"] {
        text += &format!(
            "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata:\n  name: {server}\n  namespace: kube-system\n  labels:\n    \
             apiserver.kubernetes.io/identity: kube-apiserver\nspec:\n  holderIdentity: {server}_1\n  leaseDurationSeconds: 3600\n---\n"
        );
    }
    std::fs::write(&manifest, text.trim_end_matches("---\n"))?;
    tenure(&cluster, &["apply", "-f", &manifest.to_string_lossy()])?;
    cluster.api().grant(api::acquire("kube-system", "something-else", "me", 60_000)).await?;
    let found = tenure(&cluster, &["get", "lease", "-n", "kube-system", "-l", "apiserver.kubernetes.io/identity=kube-apiserver"])?;
    ensure!(found.contains("kube-apiserver-a_1") && found.contains("kube-apiserver-b_1") && !found.contains("something-else"), "{found}");
    let names = tenure(&cluster, &["get", "lease", "-n", "kube-system", "-l", "apiserver.kubernetes.io/identity!=kube-apiserver", "-o", "name"])?;
    ensure!(names.lines().count() == 1 && names.contains("something-else"), "{names}");
    cluster.passed()
}
