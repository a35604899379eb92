//! Heartbeats and the view of them, against real replicas.

use std::time::{Duration, SystemTime};

use anyhow::ensure;
use tenure_client::{Client, Condition, Heartbeat, HeartbeatBuilder, Members, Pulse, Snapshot};
use tenure_tests::{Cluster, proxy::Proxy, replica::PATIENCE};

fn client(cluster: &Cluster) -> Client {
    Client::builder().endpoints(cluster.replicas.iter().map(|replica| replica.client.addr())).build().expect("they are addresses")
}

fn heartbeat(client: &Client, name: &str) -> HeartbeatBuilder {
    Heartbeat::builder(client, "nodes", name).duration(Duration::from_secs(1)).label("tier", "web")
}

async fn pulse(heartbeat: &mut Heartbeat, so: impl Fn(&Pulse) -> bool) -> anyhow::Result<Pulse> {
    let waiting = async {
        let mut now = heartbeat.pulse();
        while !so(&now) {
            now = heartbeat.changed().await;
        }
        now
    };
    Ok(tokio::time::timeout(PATIENCE, waiting).await?)
}

async fn members(members: &mut Members, so: impl Fn(&Snapshot) -> bool) -> anyhow::Result<Snapshot> {
    let waiting = async {
        let mut now = members.snapshot();
        while !so(&now) {
            now = members.changed().await;
        }
        now
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(now) => Ok(now),
        Err(_) => anyhow::bail!("not seen: {:?}", members.snapshot()),
    }
}

fn is(snapshot: &Snapshot, name: &str, so: impl Fn(Condition) -> bool) -> bool {
    snapshot.members.iter().any(|member| member.name() == name && so(member.condition))
}

#[tokio::test]
async fn members_show_who_is_ready_who_fell_silent_and_who_left() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sdk-members").await?;
    let client = client(&cluster);
    let mut view = Members::builder(&client, "nodes").selector("tier=web").open().await?;
    ensure!(view.snapshot().members.is_empty());
    let proxy = Proxy::start(&cluster.replicas[0].client.addr()).await?;
    let far = Client::builder().endpoints([&proxy.addr]).build()?;
    let (mut a, mut b) = (heartbeat(&client, "a").start()?, heartbeat(&far, "b").data("10.0.0.2").start()?);
    let _other = Heartbeat::builder(&client, "nodes", "c").start()?;
    let beating = |pulse: &Pulse| matches!(pulse, Pulse::Beating { .. });
    pulse(&mut a, beating).await?;
    pulse(&mut b, beating).await?;
    let ready = |condition| condition == Condition::Ready;
    let seen = members(&mut view, |now| is(now, "a", ready) && is(now, "b", ready)).await?;
    ensure!(seen.members.len() == 2 && &seen.members[1].lease.holder_data[..] == b"10.0.0.2", "{seen:?}");

    proxy.cut(true);
    pulse(&mut b, |pulse| matches!(pulse, Pulse::Lost(_) | Pulse::Waiting { .. })).await?;
    let seen = members(&mut view, |now| is(now, "b", |condition| matches!(condition, Condition::Unknown { .. }))).await?;
    let Condition::Unknown { since: Some(since) } = seen.members[1].condition else { anyhow::bail!("since when? {seen:?}") };
    ensure!(since > SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
    proxy.cut(false);
    pulse(&mut b, beating).await?;
    members(&mut view, |now| is(now, "b", ready)).await?;

    // A replica that dies costs neither the heartbeats nor the view.
    cluster.replica(1)?.kill()?;
    b.stop().await.ok();
    a.stop().await?;
    members(&mut view, |now| is(now, "a", |condition| condition == Condition::Left) && now.error.is_none()).await?;
    cluster.passed()
}

#[tokio::test]
async fn restarted_node_has_its_lease_back_at_once_and_two_of_one_name_do_not_fight() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-heartbeat").await?;
    let client = client(&cluster);
    let mut old = heartbeat(&client, "a").start()?;
    let Pulse::Beating { token } = pulse(&mut old, |pulse| matches!(pulse, Pulse::Beating { .. })).await? else { anyhow::bail!("not beating") };
    let mut new = heartbeat(&client, "a").start()?;
    let Pulse::Beating { token: newer } = pulse(&mut new, |pulse| matches!(pulse, Pulse::Beating { .. })).await? else { anyhow::bail!("not beating") };
    ensure!(newer > token);
    pulse(&mut old, |pulse| matches!(pulse, Pulse::Waiting { holder, .. } if holder == "a")).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(matches!(new.pulse(), Pulse::Beating { token } if token == newer), "they fight: {:?}", new.pulse());
    // When the new one leaves, the old one is back.
    new.stop().await?;
    pulse(&mut old, |pulse| matches!(pulse, Pulse::Beating { token } if *token > newer)).await?;
    old.stop().await?;
    cluster.passed()
}
