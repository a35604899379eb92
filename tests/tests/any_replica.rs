//! Any replica takes any call, and reads see every write that was acknowledged before, whichever replica took it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tenure_tests::{
    Cluster, api, millis,
    v1::{self, acquire_response, event, lease, release_response, renew_result},
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_works_through_every_replica() -> anyhow::Result<()> {
    let cluster = Cluster::three("any-replica").await?;
    let mut cluster_ids = Vec::new();
    for (at, replica) in cluster.apis().into_iter().enumerate() {
        let name = format!("lease-{at}");
        let mut client = replica.lease.clone();

        let put = v1::PutRequest { namespace: "ns".into(), name: name.clone(), labels: [("app".to_owned(), name.clone())].into(), ..Default::default() };
        let created = client.put(put).await?.into_inner();
        let header = created.header.context("a header")?;
        ensure!(header.served_by == at as u64 + 1, "{header:?}");
        cluster_ids.push(header.cluster_id);
        let created = created.lease.context("a lease")?.revision;
        let watch = v1::WatchRequest { namespace: "ns".into(), name: name.clone(), after_revision: created, ..Default::default() };
        let mut watch = client.watch(watch).await?.into_inner();

        let granted = replica.grant(v1::AcquireRequest { holder_data: b"10.0.0.1:80".to_vec().into(), ..api::acquire("ns", &name, "me", 10_000) }).await?;
        ensure!(granted.token > created && granted.state() == lease::State::Held && granted.holder == "me", "{granted:?}");
        let denied = replica.acquire(api::acquire("ns", &name, "you", 10_000)).await?;
        ensure!(
            matches!(&denied.result, Some(acquire_response::Result::Denied(denied)) if denied.lease.as_ref().is_some_and(|lease| lease.holder == "me")),
            "{denied:?}"
        );

        let renewed = replica.renew(vec![v1::RenewItem { duration: millis(20_000), ..api::renewal(granted.token) }]).await?;
        ensure!(matches!(&renewed.results[..], [v1::RenewResult { result: Some(renew_result::Result::Renewed(_)) }]), "{renewed:?}");
        ensure!(api::to_millis(renewed.renew_within.as_ref()) == 6666, "{renewed:?}");
        let got = replica.get("ns", &name).await?;
        let left = api::to_millis(got.expires_in.as_ref());
        ensure!((15_000..=20_000).contains(&left), "{got:?}");
        ensure!(got.holder_data.as_ref() == b"10.0.0.1:80" && got.labels.get("app") == Some(&name), "{got:?}");

        let released = replica.release("ns", &name, granted.token).await?;
        ensure!(released.outcome() == release_response::Outcome::Released, "{released:?}");
        let again = replica.release("ns", &name, granted.token).await?;
        ensure!(again.outcome() == release_response::Outcome::AlreadyReleased, "{again:?}");
        let listed = replica.list("ns", &format!("app={name}")).await?;
        ensure!(listed.len() == 1 && listed[0].state() == lease::State::Free && listed[0].last_holder == "me", "{listed:?}");

        let history = client.history(v1::HistoryRequest { namespace: "ns".into(), name: name.clone(), limit: 0 }).await?.into_inner();
        ensure!(history.holds.len() == 1 && history.holds[0].token == granted.token && history.holds[0].end_reason() == v1::EndReason::Released, "{history:?}");
        client.delete(v1::DeleteRequest { namespace: "ns".into(), name: name.clone(), ..Default::default() }).await?;
        ensure!(replica.get("ns", &name).await.map_err(|status| status.code()) == Err(Code::NotFound));

        let mut types = Vec::new();
        while types.last() != Some(&event::Type::Deleted) {
            let answer = tokio::time::timeout(Duration::from_secs(10), watch.message()).await??.context("the watch ended")?;
            types.extend(answer.events.iter().map(v1::Event::r#type));
        }
        ensure!(types == [event::Type::Acquired, event::Type::Released, event::Type::Deleted], "{types:?}");
        let status = replica.status().await?;
        ensure!(status.members.len() == 3 && status.members.iter().filter(|member| member.is_raft_leader).count() == 1, "{status:?}");
    }
    ensure!(!cluster_ids[0].is_empty() && cluster_ids.iter().all(|id| *id == cluster_ids[0]), "{cluster_ids:?}");
    cluster.passed()
}

/// How often a thread of a replica has waited for something, the one with that name.
fn waits_of_thread(replica: &tenure_tests::replica::Replica, name: &str) -> anyhow::Result<u64> {
    for task in std::fs::read_dir(format!("/proc/{}/task", replica.pid()?.as_raw_pid()))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim_end() == name {
            let status = std::fs::read_to_string(task.join("status"))?;
            let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).context("the kernel counts")?;
            return Ok(waits.trim().parse()?);
        }
    }
    anyhow::bail!("replica {} has no thread {name}", replica.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_send_is_read_and_answered_by_another_thread_than_raft_runs_on() -> anyhow::Result<()> {
    const CALLS: u64 = 500;
    let cluster = Cluster::three("client-thread").await?;
    for (replica, api) in cluster.replicas.iter().zip(cluster.apis()) {
        let before = waits_of_thread(replica, "clients")?;
        // One after the other, and each needs nothing but this replica: whoever reads one and answers it waits for the next, unless that is there first.
        for _ in 0..CALLS {
            let stale = v1::GetRequest { namespace: "ns".into(), name: "nobody".into(), stale: true, ..Default::default() };
            let answer = api.lease.clone().get(stale).await.map_err(|status| status.code());
            ensure!(matches!(answer, Err(Code::NotFound)), "{answer:?}");
        }
        let waited = waits_of_thread(replica, "clients")? - before;
        ensure!(waited > CALLS / 10, "replica {}: its thread for clients waited {waited} times in {CALLS} calls", replica.id);
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_sees_what_another_replica_acknowledged_just_before() -> anyhow::Result<()> {
    let cluster = Cluster::three("linearizable").await?;
    let replicas = cluster.apis();
    for turn in 0..60_usize {
        let (writer, reader) = (&replicas[turn % 3], &replicas[(turn + 1 + turn / 3 % 2) % 3]);
        let granted = writer.grant(api::acquire("default", "shared", &format!("holder-{turn}"), 10_000)).await?;
        let seen = reader.get("default", "shared").await?;
        ensure!(seen.token == granted.token && seen.holder == granted.holder, "turn {turn}: {seen:?} after {granted:?}");
        reader.release("default", "shared", granted.token).await?;
        let seen = writer.list("default", "").await?;
        ensure!(seen.len() == 1 && seen[0].state() == lease::State::Free, "turn {turn}: {seen:?}");
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_at_different_replicas_are_granted_in_the_order_of_their_enqueueing() -> anyhow::Result<()> {
    let cluster = Cluster::three("queue").await?;
    let replicas = cluster.apis();
    let mut token = replicas[0].grant(api::acquire("default", "queue", "first", 30_000)).await?.token;
    let mut waiting = Vec::new();
    for at in 0..6_usize {
        let request = v1::AcquireRequest { wait_for: millis(30_000), ..api::acquire("default", "queue", &format!("waiter-{at}"), 30_000) };
        let mut answers = replicas[at % 3].lease.clone().acquire(request).await?.into_inner();
        let answer = answers.message().await?.context("an answer")?;
        ensure!(matches!(&answer.result, Some(acquire_response::Result::Queued(queued)) if queued.position as usize == at + 1), "{answer:?}");
        waiting.push(answers);
    }
    ensure!(replicas[1].get("default", "queue").await?.waiters == 6);
    // The fourth gives up: those behind it move on.
    drop(waiting.remove(3));
    for (turn, mut answers) in waiting.into_iter().enumerate() {
        replicas[turn % 3].release("default", "queue", token).await?;
        let granted = loop {
            let answer = tokio::time::timeout(Duration::from_secs(15), answers.message()).await??.context("an answer")?;
            match answer.result {
                Some(acquire_response::Result::Granted(granted)) => break granted,
                Some(acquire_response::Result::Queued(_)) => {}
                other => anyhow::bail!("{other:?}"),
            }
        };
        let lease = granted.lease.context("a lease")?;
        ensure!(granted.must_renew && lease.token > token, "turn {turn}: {lease:?} after {token}");
        token = lease.token;
        let renewed = replicas[(turn + 1) % 3].renew(vec![api::renewal(token)]).await?;
        ensure!(matches!(&renewed.results[..], [v1::RenewResult { result: Some(renew_result::Result::Renewed(_)) }]), "{renewed:?}");
    }
    let last = replicas[2].get("default", "queue").await?;
    // Who gave up keeps its place for a while, skipped: it might come back.
    ensure!(last.holder == "waiter-5" && last.waiters <= 1, "{last:?}");
    cluster.passed()
}
