//! What a replica refuses to start with, or to do once started, and that it says so in a way that helps.

use std::time::Duration;

use anyhow::ensure;
use tenure_tests::{Cluster, api, clock, replica::PATIENCE};

/// Starts replica `id` and expects it to end with an error that has all these words.
async fn refuses(cluster: &mut Cluster, id: u64, words: &[&str]) -> anyhow::Result<()> {
    let replica = cluster.replica(id)?;
    std::fs::write(&replica.log, "")?;
    replica.spawn()?;
    let status = replica.exited().await?;
    let said = replica.log_text()?;
    ensure!(!status.success(), "it started: {said}");
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    ensure!(!said.contains("panicked"), "{said}");
    println!("{}", said.trim());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_typo_is_named_with_its_line() -> anyhow::Result<()> {
    let mut cluster = Cluster::prepare("config-typo", Default::default())?;
    let path = cluster.replica(1)?.config.clone();
    let good = std::fs::read_to_string(&path)?;
    let line = good.lines().position(|line| line.starts_with("bootstrap")).expect("is there") + 1;
    std::fs::write(&path, good.replace("bootstrap", "bootstrapp"))?;
    refuses(&mut cluster, 1, &["node-1.toml", "bootstrapp", &format!("line {line}")]).await?;
    std::fs::write(&path, good.replace("min_duration = \"1s\"", "min_duration = \"5 parsecs\""))?;
    refuses(&mut cluster, 1, &["min_duration", "line"]).await?;
    std::fs::remove_file(&path)?;
    refuses(&mut cluster, 1, &["node-1.toml"]).await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn port_in_use_is_named() -> anyhow::Result<()> {
    let mut cluster = Cluster::prepare("port-in-use", Default::default())?;
    let ports = [cluster.replica(1)?.client.addr(), cluster.replica(1)?.peer.addr(), cluster.replica(1)?.http.addr()];
    for addr in ports {
        let taken = std::net::TcpListener::bind(&addr)?;
        refuses(&mut cluster, 1, &[&addr, "in use"]).await?;
        drop(taken);
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_directory_of_another_node_or_in_use_is_refused() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("foreign-dir").await?;
    cluster.api().grant(api::acquire("default", "lease", "me", 60_000)).await?;
    let (one, two) = (cluster.replica(1)?.data_dir.clone(), cluster.replica(2)?.data_dir.clone());

    // While replica 1 runs, nobody else may have its directory.
    cluster.replica(2)?.kill()?;
    let config = cluster.replica(2)?.config.clone();
    let good = std::fs::read_to_string(&config)?;
    std::fs::write(&config, good.replace(&*two.to_string_lossy(), &one.to_string_lossy()))?;
    refuses(&mut cluster, 2, &["data-1"]).await?;
    // Nor when it does not run: the directory says whose it is.
    cluster.replica(1)?.kill()?;
    refuses(&mut cluster, 2, &["data-1", "node"]).await?;
    std::fs::write(&config, good)?;
    cluster.start_all().await?;
    ensure!(cluster.api().get("default", "lease").await?.holder == "me");
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_directory_of_a_known_member_does_not_vote() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("amnesia").await?;
    cluster.api().grant(api::acquire("default", "lease", "me", 600_000)).await?;
    cluster.kill_all()?;
    cluster.replica(3)?.wipe()?;
    // 1 alone with a forgetful 3: a majority by number, which must not be one.
    cluster.replica(1)?.spawn()?;
    cluster.replica(3)?.spawn()?;
    let begun = clock::now();
    while clock::since(begun) < Duration::from_secs(5) {
        for id in [1, 3] {
            cluster.replica(id)?.still_alive().ok();
            let request = api::acquire("default", "another", "me", 5000);
            let answer = tokio::time::timeout(Duration::from_millis(400), cluster.replica(id)?.api.acquire(request)).await;
            ensure!(!matches!(answer, Ok(Ok(_))), "replica {id} took a write: {answer:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said = cluster.replica(3)?.log_text()?;
    ensure!(said.to_lowercase().contains("remove") && said.contains("add"), "it does not say how to replace it: {said}");

    // With 2 there is a real majority, and nothing is lost.
    cluster.replica(2)?.spawn()?;
    cluster.replica(1)?.ready().await?;
    cluster.replica(2)?.ready().await?;
    ensure!(clock::since(begun) < PATIENCE * 2);
    ensure!(cluster.api().get("default", "lease").await?.holder == "me");
    // Still no member: it holds nothing that counts.
    let status = cluster.api().status().await?;
    ensure!(status.members.len() == 3, "{status:?}");
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_that_the_cluster_was_not_founded_with_is_said_at_the_start() -> anyhow::Result<()> {
    let mut cluster = Cluster::start("other-limits", tenure_tests::Settings { replicas: 1, ..Default::default() }).await?;
    let replica = cluster.replica(1)?;
    ensure!(!replica.log_text()?.contains("founded with another limit"), "nothing differs: {}", replica.log_text()?);
    replica.terminate().await?;
    let config = std::fs::read_to_string(&replica.config)?;
    std::fs::write(&replica.config, config.replace("[limits]\n", "[limits]\nleases_per_namespace = 7\nwaiters_per_lease = 3\n"))?;
    std::fs::write(&replica.log, "")?;
    replica.spawn()?;
    replica.ready().await?;
    let said = replica.log_text()?;
    for words in ["limits.leases_per_namespace\" configured=7 in_force=2000000", "limits.waiters_per_lease\" configured=3 in_force=10000"] {
        ensure!(said.contains(words), "{words:?} is not in: {said}");
    }
    cluster.passed()
}
