//! What the user of the SDK sees on bad days: work that cannot be stopped, callbacks that panic, futures dropped at any moment, no quorum, replicas that
//! come back elsewhere. And never two that believe.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{bail, ensure};
use tenure_client::{Acquired, CancellationToken, Client, Error, LeaderElection, Leadership, LostReason, RunError};
use tenure_tests::{Cluster, clock, proxy::Proxy, replica::PATIENCE, v1};

const SECOND: Duration = Duration::from_secs(1);

fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    Ok(Client::builder().endpoints(cluster.replicas.iter().map(|replica| replica.client.addr())).build()?)
}

fn election(client: &Client, name: &str, lease: Duration) -> anyhow::Result<LeaderElection> {
    Ok(LeaderElection::builder(client, "default", name).lease_duration(lease).build()?)
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| anyhow::anyhow!("{what}: not within {PATIENCE:?}"))
}

async fn ends(client: &Client, name: &str) -> anyhow::Result<Vec<v1::EndReason>> {
    let history = client.history(v1::HistoryRequest { name: name.into(), ..Default::default() }).await?;
    Ok(history.holds.iter().map(v1::Hold::end_reason).filter(|reason| *reason != v1::EndReason::Unspecified).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_never_comes_back_is_reported_and_its_lease_is_left_to_run_out() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-still-running").await?;
    let client = client(&cluster)?;
    let (cancel, let_go, stopped) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (cancelling, go_on) = (cancel.clone(), Arc::clone(&let_go));
    let work = move |_, _| async move {
        cancelling.cancel();
        // Never reaches an await, so that nothing can abort it.
        while !go_on.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let running = election(&client, "stuck", SECOND)?;
    let finished = soon("reported", running.run(cancel, work, || stopped.store(true, Ordering::Relaxed), |_| ())).await?;
    let_go.store(true, Ordering::Relaxed);
    ensure!(matches!(finished, Err(RunError::StillRunning)), "{finished:?}");
    ensure!(stopped.load(Ordering::Relaxed), "on_stopped is called however it ended");
    let next = soon("elected", election(&client, "stuck", SECOND)?.campaign()).await??;
    ensure!(next.is_leader());
    let ends = ends(&client, "stuck").await?;
    ensure!(ends == [v1::EndReason::Expired], "somebody else was let in while the work ran on: {ends:?}");
    cluster.passed()
}

#[tokio::test]
async fn each_callback_may_panic_and_the_next_one_leads_at_once() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-callbacks").await?;
    let client = client(&cluster)?;
    let election = election(&client, "panics", 20 * SECOND)?;
    let begun = clock::now();
    let error = soon("ended", election.run(CancellationToken::new(), |_, _| -> std::future::Ready<()> { panic!("at the start") }, || (), |_| ())).await?;
    ensure!(matches!(&error, Err(RunError::Panicked(words)) if words == "at the start"), "{error:?}");
    let error = soon("ended", election.run(CancellationToken::new(), |_, _| async {}, || panic!("at the end"), |_| ())).await?;
    ensure!(matches!(&error, Err(RunError::Panicked(words)) if words == "at the end"), "{error:?}");
    // While it only waits: the news of somebody else.
    let other = self::election(&client, "panics", 20 * SECOND)?;
    let leading = soon("elected", other.campaign()).await??;
    let error = soon("ended", election.run(CancellationToken::new(), |_, _| async {}, || (), |_| panic!("at the news"))).await?;
    ensure!(matches!(&error, Err(RunError::Panicked(words)) if words == "at the news"), "{error:?}");
    leading.resign().await?;
    let leading = soon("elected", other.campaign()).await??;
    ensure!(leading.is_leader() && clock::since(begun) < 20 * SECOND, "a lease was left behind");
    let ends = ends(&client, "panics").await?;
    ensure!(ends.iter().all(|reason| *reason == v1::EndReason::Released), "{ends:?}");
    cluster.passed()
}

/// Counts itself away when it is dropped.
struct Alive(Arc<AtomicU64>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_anything_at_any_moment_leaves_no_belief_no_place_and_no_work_behind() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-dropped").await?;
    let near = client(&cluster)?;
    let first = soon("elected", election(&near, "main", SECOND)?.campaign()).await??;

    // A campaign in the queue, with its client.
    {
        let client = client(&cluster)?;
        let election = election(&client, "main", SECOND)?;
        let campaign = election.campaign();
        ensure!(tokio::time::timeout(SECOND / 2, campaign).await.is_err(), "elected beside another");
    }
    // run() while it leads: its work goes with it.
    let alive = Arc::new(AtomicU64::new(1));
    let (guard, stopped) = (Alive(Arc::clone(&alive)), CancellationToken::new());
    let (told, stopping) = (tokio::sync::oneshot::channel(), stopped.clone());
    let work = move |stop: CancellationToken, _| async move {
        let _guard = guard;
        told.0.send(stop).ok();
        stopping.cancelled().await;
    };
    let other = election(&near, "other", SECOND)?;
    let running = other.run(CancellationToken::new(), work, || (), |_| ());
    let stop = tokio::select! {
        finished = running => bail!("ended: {finished:?}"),
        stop = soon("started", told.1) => stop??,
    };
    // Dropped with the end of the select.
    soon("told to stop", stop.cancelled()).await?;
    soon("aborted", async {
        while alive.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await?;

    // A guard while its renewal is on the way, and everything else with it.
    let proxy = Proxy::start(&cluster.replicas[0].client.addr()).await?;
    let stop = {
        let client = Client::builder().endpoints([&proxy.addr]).build()?;
        let lease = client.lease("third").duration(2 * SECOND).acquire().await?;
        proxy.cut_answers(true);
        tokio::time::sleep(SECOND).await;
        ensure!(lease.is_held());
        lease.cancellation()
    };
    ensure!(stop.is_cancelled(), "a dropped guard still says go on");

    // Nobody is in the way of those who come after.
    let next = election(&near, "main", SECOND)?;
    let (resigned, next) = tokio::join!(first.resign(), soon("elected", next.campaign()));
    resigned?;
    let next = next??;
    let seen = near.get(v1::GetRequest { name: "main".into(), ..Default::default() }).await?;
    ensure!(next.is_leader() && seen.waiters == 0 && seen.token == next.token(), "{seen:?}");
    for name in ["other", "third"] {
        ensure!(soon("elected", election(&near, name, SECOND)?.campaign()).await??.is_leader());
    }
    cluster.passed()
}

#[test]
fn runtime_that_is_shut_down_takes_every_belief_along() -> anyhow::Result<()> {
    let outer = tokio::runtime::Runtime::new()?;
    let cluster = outer.block_on(Cluster::three("sdk-shutdown"))?;
    for round in 0..10 {
        let inner = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = client(&cluster)?;
        // So soon after the grant that the task which renews it may not even know.
        let lease = inner.block_on(client.lease(format!("job-{round}")).duration(20 * SECOND).acquire())?;
        let stop = lease.cancellation();
        ensure!(lease.is_held() && !stop.is_cancelled());
        inner.shutdown_timeout(PATIENCE);
        // Nothing renews it any more, so whoever works under it elsewhere is told.
        let reason = outer.block_on(soon("lost", lease.lost()))?;
        ensure!(stop.is_cancelled() && !lease.is_held() && matches!(reason, LostReason::NotRenewed(_)), "{reason}");
    }
    outer.block_on(async { cluster.passed() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_calls_say_so_holders_stop_in_time_and_nobody_is_elected() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sdk-quorum").await?;
    let client = Client::builder().endpoints(cluster.replicas.iter().map(|replica| replica.client.addr())).request_timeout(2 * SECOND).build()?;
    let leading = soon("elected", election(&client, "main", 3 * SECOND)?.campaign()).await??;
    let lease = client.lease("job").duration(3 * SECOND).acquire().await?;
    let candidate = election(&client, "main", 3 * SECOND)?;
    let campaign = tokio::spawn(async move { candidate.campaign().await });
    // The one that stays knows of it: a replica hears of a commit a moment after its client.
    let staying = Client::builder().endpoints([cluster.replicas[2].client.addr()]).build()?;
    soon("known everywhere", staying.get(v1::GetRequest { name: "job".into(), ..Default::default() })).await??;
    for id in [1, 2] {
        cluster.replica(id)?.kill()?;
    }
    let (reason, stopped) = (soon("lost", leading.lost()).await?, leading.lease().remaining());
    ensure!(matches!(reason, LostReason::NotRenewed(Some(_))), "it does not say why: {reason}");
    ensure!(!leading.is_leader() && !stopped.is_zero(), "told in time to stop in: {stopped:?}");
    ensure!(matches!(soon("lost", lease.lost()).await?, LostReason::NotRenewed(Some(_))));

    // Each call ends by its deadline, and says what may be concluded.
    let begun = clock::now();
    let name = || "job".to_owned();
    let read = client.get(v1::GetRequest { name: name(), ..Default::default() }).await.unwrap_err();
    ensure!(read.is_retryable(), "a read changes nothing: {read}");
    let asked = client.lease("new").duration(SECOND).try_acquire().await;
    let Err(asked) = asked else { bail!("granted without a quorum: {asked:?}") };
    ensure!(matches!(asked, Error::NotApplied(_) | Error::OutcomeUnknown(_)) && asked.to_string().contains("acquire"), "{asked}");
    ensure!(clock::since(begun) < 4 * SECOND + PATIENCE / 6, "calls outlast their deadline: {:?}", clock::since(begun));
    let stale = client.get(v1::GetRequest { name: name(), stale: true, ..Default::default() }).await?;
    ensure!(stale.token == lease.token(), "what the replica last knew: {stale:?}");
    ensure!(!campaign.is_finished(), "elected by a minority");

    cluster.start_all().await?;
    let next = soon("elected", campaign).await???;
    ensure!(next.is_leader() && next.token() > leading.token());
    let Acquired::Held(lease) = soon("granted", client.lease("new").duration(SECOND).try_acquire()).await?? else { bail!("the failed attempt left a hold") };
    lease.release().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_come_back_at_new_addresses_cost_no_lease_while_one_is_where_it_was() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sdk-moved").await?;
    let client = client(&cluster)?;
    let lease = client.lease("job").duration(4 * SECOND).acquire().await?;
    let leading = soon("elected", election(&client, "main", 4 * SECOND)?.campaign()).await??;
    let founders: Vec<(u64, String)> = cluster.replicas.iter().map(|replica| (replica.id, replica.peer.addr())).collect();
    let mut old = Vec::new();
    for id in [1, 2] {
        let replica = cluster.replica(id)?;
        replica.terminate().await?;
        old.push(replica.move_client_port()?);
        let replica = cluster.replicas.iter().find(|replica| replica.id == id).expect("is one of them");
        cluster.configure(replica, &founders, true)?;
        cluster.start_all().await?;
    }
    tokio::time::sleep(5 * SECOND).await;
    ensure!(lease.is_held() && leading.is_leader(), "{:?} {:?}", lease.lost_reason(), leading.lease().lost_reason());
    ensure!(client.endpoint() == cluster.replicas[2].client.addr(), "{}", client.endpoint());
    // Who is told the new address goes on with the same lease.
    let moved = Client::builder().endpoints([cluster.replicas[0].client.addr()]).build()?;
    let seen = soon("found", moved.get(v1::GetRequest { name: "job".into(), ..Default::default() })).await??;
    ensure!(seen.token == lease.token() && seen.holder == lease.holder(), "{seen:?}");
    let status = moved.cluster_status().await?;
    ensure!(status.members.iter().any(|member| member.client_addr == cluster.replicas[1].client.addr()), "nobody says where it went: {status:?}");
    cluster.passed()
}

async fn watched(leadership: &Leadership) -> u64 {
    let mut last = clock::now();
    while leadership.is_leader() {
        last = clock::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proclaim_whose_answer_is_lost_never_makes_two_that_believe() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-proclaim-lost").await?;
    let proxy = Proxy::start(&cluster.replicas[0].client.addr()).await?;
    let far = Client::builder().endpoints([&proxy.addr]).request_timeout(SECOND).build()?;
    let near = client(&cluster)?;
    for dropped in [false, true] {
        let candidate = election(&near, "main", 20 * SECOND)?;
        let mut leading = soon("elected", election(&far, "main", 20 * SECOND)?.campaign()).await??;
        let stop = leading.cancellation();
        let next = tokio::spawn(async move { (candidate.campaign().await, clock::now()) });
        soon("queued", async {
            while near.get(v1::GetRequest { name: "main".into(), ..Default::default() }).await?.waiters == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        })
        .await??;
        // It is done, and nobody hears of it. Then what may have been granted is given back, and the next one leads.
        proxy.cut_answers(true);
        if dropped {
            ensure!(tokio::time::timeout(SECOND / 2, leading.proclaim(b"moved")).await.is_err(), "answered through a cut");
        } else {
            let error = soon("given up", leading.proclaim(b"moved")).await?.unwrap_err();
            ensure!(error.outcome_unknown(), "{error}");
        }
        let believed = watched(&leading).await;
        let (elected, at) = soon("elected", next).await??;
        let elected = elected?;
        ensure!(believed < at && stop.is_cancelled(), "both believed for {:?}", Duration::from_nanos(believed.saturating_sub(at)));
        ensure!(elected.token() > leading.token());
        proxy.cut_answers(false);
        elected.resign().await?;
    }
    cluster.passed()
}

#[tokio::test]
async fn proclaim_that_fails_ends_the_leadership_and_resign_hands_over() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("sdk-proclaim-none").await?;
    let client = Client::builder().endpoints([cluster.replicas[0].client.addr()]).request_timeout(SECOND / 2).build()?;
    let mut leading = soon("elected", election(&client, "main", 20 * SECOND)?.campaign()).await??;
    let (token, stop) = (leading.token(), leading.cancellation());
    cluster.replica(1)?.kill()?;
    let error = soon("given up", leading.proclaim(b"moved")).await?.unwrap_err();
    ensure!(matches!(error, Error::NotApplied(_) | Error::OutcomeUnknown(_)), "{error}");
    let reason = leading.lost().await;
    ensure!(!leading.is_leader() && stop.is_cancelled() && matches!(reason, LostReason::Superseded), "{reason}");
    cluster.start_all().await?;
    soon("resigned", async { while leading.resign().await.is_err() {} }).await?;
    let begun = clock::now();
    let next = soon("elected", election(&client, "main", 20 * SECOND)?.campaign()).await??;
    ensure!(next.is_leader() && next.token() > token && clock::since(begun) < 10 * SECOND, "what was left of the lease was not handed over");
    cluster.passed()
}
