//! The guard of a held lease, against real replicas: what it says when the network, the holder or the replicas misbehave.

use std::time::Duration;

use anyhow::{bail, ensure};
use tenure_client::{Acquired, Client, Heartbeat, LeaderElection, LostReason, Pulse, Step};
use tenure_tests::{Cluster, clock, proxy::Proxy, replica::PATIENCE, v1};

fn client(cluster: &Cluster) -> Client {
    let endpoints: Vec<_> = cluster.replicas.iter().map(|replica| replica.client.addr()).collect();
    Client::builder().endpoints(endpoints).build().expect("they are addresses")
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| anyhow::anyhow!("{what}: not within {PATIENCE:?}"))
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn lease_is_kept_handed_over_and_lost_with_the_reason() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-lease").await?;
    let client = client(&cluster);
    let first = client.lease("job").duration(SECOND).data("10.0.0.1").acquire().await?;
    ensure!(first.is_held() && first.remaining() <= SECOND);

    let Acquired::Denied(denied) = client.lease("job").duration(SECOND).try_acquire().await? else { bail!("granted twice") };
    ensure!(denied.holder == first.holder() && &denied.holder_data[..] == b"10.0.0.1", "{denied:?}");

    let mut second = client.lease("job").duration(SECOND).wait_forever().ask()?;
    let Step::Queued { position: 1, .. } = soon("queued", second.next()).await?? else { bail!("not queued") };
    // Renewed for three times its duration.
    tokio::time::sleep(3 * SECOND).await;
    ensure!(first.is_held() && first.lost_reason().is_none());

    let cancelled = first.cancellation();
    let begun = clock::now();
    first.release().await?;
    ensure!(cancelled.is_cancelled() && !first.is_held() && matches!(first.lost().await, LostReason::Released));
    let Step::Held(second) = soon("handed over", second.next()).await?? else { bail!("not handed over") };
    println!("handed over after {:?}", clock::since(begun));
    ensure!(second.token() > first.token());
    drop(first);

    // What an operator ends is told with the next renewal.
    client.delete(v1::DeleteRequest { name: "job".into(), force: true, ..Default::default() }).await?;
    let reason = soon("lost", second.lost()).await?;
    ensure!(matches!(reason, LostReason::Ended { reason: v1::EndReason::Revoked, .. }), "{reason}");
    ensure!(!second.is_held() && second.remaining().is_zero());
    cluster.passed()
}

#[tokio::test]
async fn dropped_guards_and_dropped_waits_leave_nothing_behind() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-drop").await?;
    let client = client(&cluster);
    let held = client.lease("a").duration(SECOND).acquire().await?;
    let cancelled = held.cancellation();
    let mut waiting = client.lease("a").duration(SECOND).wait_forever().ask()?;
    soon("queued", waiting.next()).await??;
    let mut behind = client.lease("a").duration(SECOND).wait_forever().ask()?;
    soon("queued", behind.next()).await??;
    drop(waiting);
    drop(held);
    ensure!(cancelled.is_cancelled());
    let begun = clock::now();
    loop {
        if let Step::Held(_) = soon("granted", behind.next()).await?? {
            break;
        }
    }
    // The dropped hold runs out, and the dropped wait is not in the way.
    ensure!(clock::since(begun) < 2 * SECOND, "took {:?}", clock::since(begun));
    // An attempt that is given up at any moment leaves no hold behind.
    for millis in 0..20 {
        let attempt = client.lease(format!("b{millis}")).duration(30 * SECOND).try_acquire();
        // One that was faster is held, and would be for its 30 seconds.
        if let Ok(Ok(Acquired::Held(lease))) = tokio::time::timeout(Duration::from_micros(millis * 200), attempt).await {
            lease.release().await?;
        }
    }
    let begun = clock::now();
    for millis in 0..20 {
        let name = format!("b{millis}");
        drop(soon("free again", client.lease(name).duration(SECOND).acquire()).await??);
    }
    ensure!(clock::since(begun) < 15 * SECOND, "an abandoned attempt held on: {:?}", clock::since(begun));
    cluster.passed()
}

#[tokio::test]
async fn deadline_counts_from_the_send_and_not_from_the_answer() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-late").await?;
    let proxy = Proxy::start(&cluster.replicas[0].client.addr()).await?;
    let client = Client::builder().endpoints([&proxy.addr]).build()?;
    // Makes the connection.
    client.list(v1::ListRequest::default()).await?;
    proxy.delay_answers(Duration::from_millis(600));
    let begun = clock::now();
    let lease = client.lease("job").duration(2 * SECOND).acquire().await?;
    let took = clock::since(begun);
    ensure!(took >= Duration::from_millis(600), "the proxy did not delay: {took:?}");
    let limit = begun + clock::nanos(Duration::from_millis(1_996));
    ensure!(lease.deadline().boottime_ns <= limit, "counts from later than the send");
    // Answers that take longer than a third of the duration still keep it.
    tokio::time::sleep(5 * SECOND).await;
    ensure!(lease.is_held(), "{:?}", lease.lost_reason());
    // And ones that come after the deadline do not.
    proxy.delay_answers(3 * SECOND);
    let reason = soon("lost", lease.lost()).await?;
    ensure!(matches!(reason, LostReason::NotRenewed(_)) && !lease.is_held(), "{reason}");
    ensure!(!lease.remaining().is_zero(), "told before the deadline, with time to stop");
    proxy.delay_answers(Duration::ZERO);
    tokio::time::sleep(SECOND).await;
    ensure!(!lease.is_held(), "a late answer revived it");
    cluster.passed()
}

#[tokio::test]
async fn holder_that_is_cut_off_stops_before_the_next_one_starts() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-cut").await?;
    let proxy = Proxy::start(&cluster.replicas[0].client.addr()).await?;
    let far = Client::builder().endpoints([&proxy.addr]).build()?;
    let near = client(&cluster);
    for round in 0..5 {
        let lease = far.lease("job").duration(SECOND).acquire().await?;
        let mut next = near.lease("job").duration(SECOND).wait_forever().ask()?;
        soon("queued", next.next()).await??;
        proxy.cut(true);
        let (stopped, started) = tokio::join!(
            async {
                lease.cancellation().cancelled().await;
                clock::now()
            },
            async {
                loop {
                    if let Step::Held(lease) = soon("granted", next.next()).await?? {
                        return anyhow::Ok((lease, clock::now()));
                    }
                }
            }
        );
        let (held, started) = started?;
        println!("round {round}: the next one started {:?} after the first one stopped", Duration::from_nanos(started.saturating_sub(stopped)));
        ensure!(stopped < started && !lease.is_held(), "both at once in round {round}");
        proxy.cut(false);
        held.release().await?;
    }
    cluster.passed()
}

#[tokio::test]
async fn replicas_that_die_one_after_the_other_cost_no_lease_and_no_place() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sdk-rolling").await?;
    let client = client(&cluster);
    let mut held = Vec::new();
    for at in 0..50 {
        held.push(client.lease(format!("lease-{at}")).duration(3 * SECOND).acquire().await?);
    }
    let mut waiting = Vec::new();
    for at in 0..3 {
        let mut asking = client.lease("lease-0").holder(format!("waiter-{at}")).duration(3 * SECOND).wait_forever().ask()?;
        soon("queued", asking.next()).await??;
        waiting.push(asking);
    }
    for id in 1..=3 {
        cluster.replica(id)?.kill()?;
        tokio::time::sleep(2 * SECOND).await;
        cluster.start_all().await?;
    }
    for lease in &held {
        ensure!(lease.is_held(), "{} was lost: {:?}", lease.name(), lease.lost_reason());
    }
    held[0].release().await?;
    let mut tokens = vec![held[0].token()];
    for (at, mut asking) in waiting.into_iter().enumerate() {
        let lease = loop {
            if let Step::Held(lease) = soon("granted", asking.next()).await?? {
                break lease;
            }
        };
        ensure!(lease.holder() == format!("waiter-{at}"));
        tokens.push(lease.token());
        lease.release().await?;
    }
    ensure!(tokens.is_sorted(), "out of order: {tokens:?}");
    cluster.passed()
}

#[tokio::test]
async fn wrong_endpoints_and_silent_servers_end_calls_and_not_campaigns() -> anyhow::Result<()> {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
    let build = |endpoint: &str| {
        let quickly = Duration::from_millis(300);
        Client::builder().endpoints([endpoint]).attempt_timeout(quickly / 3).request_timeout(quickly).build()
    };
    let error = soon("refused", build(&nobody)?.lease("job").try_acquire()).await?.unwrap_err();
    ensure!(error.is_retryable() && error.to_string().contains(&nobody), "{error}");
    let silent = silent.local_addr()?.to_string();
    let error = soon("given up", build(&silent)?.lease("job").try_acquire()).await?.unwrap_err();
    ensure!(error.outcome_unknown(), "{error}");
    // Patient ones go on until they are dropped, and say why they wait.
    let election = LeaderElection::builder(&build(&silent)?, "default", "job").build()?;
    ensure!(tokio::time::timeout(2 * SECOND, election.campaign()).await.is_err(), "elected by nobody");
    let mut heartbeat = Heartbeat::builder(&build(&silent)?, "nodes", "a").start()?;
    let pulse = soon("told", heartbeat.changed()).await?;
    ensure!(matches!(pulse, Pulse::Waiting { error: Some(_), .. }), "{pulse:?}");
    Ok(())
}

#[tokio::test]
async fn one_replica_that_goes_silent_costs_no_lease() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-silent").await?;
    let proxy = Proxy::start(&cluster.replicas[0].client.addr()).await?;
    // The silent one is in use; the client has to find out.
    let client = Client::builder().endpoints([proxy.addr.clone(), cluster.replicas[1].client.addr()]).build()?;
    let mut held = Vec::new();
    for at in 0..20 {
        held.push(client.lease(format!("lease-{at}")).duration(2 * SECOND).acquire().await?);
    }
    for cut in [true, false, true] {
        proxy.cut(cut);
        tokio::time::sleep(3 * SECOND).await;
    }
    for lease in &held {
        ensure!(lease.is_held(), "{} was lost: {:?}", lease.name(), lease.lost_reason());
    }
    cluster.passed()
}
