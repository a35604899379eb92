//! Clocks that jump an hour, on replicas and on holders: nothing is lost, nothing is granted early.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tenure_client::{
    Acquired, Client, LeaderElection, Lease, LostReason, Step,
    clock::{Clock, Readings, SystemClock},
};
use tenure_tests::{
    Cluster, clock, disk,
    elector::{Belief, Elector, judge},
    faketime::{Faketime, Jumps},
    replica::PATIENCE,
    v1,
};

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(2);
const HOUR: i64 = 3600;

fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    Ok(Client::builder().endpoints(cluster.replicas.iter().map(|replica| replica.client.addr())).build()?)
}

/// Replicas whose clocks can jump, each for itself; none where libfaketime is not installed.
async fn cluster(test: &str, jumps: Jumps) -> anyhow::Result<Option<(Cluster, Vec<Faketime>)>> {
    let mut cluster = Cluster::prepare(test, tenure_tests::Settings::default())?;
    let faked: anyhow::Result<Vec<Faketime>> =
        cluster.replicas.iter().map(|replica| Faketime::new(cluster.dir(), &format!("replica-{}", replica.id))).collect();
    let faked = match faked {
        Ok(faked) => faked,
        Err(why) => {
            disk::skipped(test, &why);
            cluster.passed()?;
            return Ok(None);
        }
    };
    for (replica, faketime) in cluster.replicas.iter_mut().zip(&faked) {
        replica.env = faketime.env(jumps);
    }
    cluster.start_all().await?;
    Ok(Some((cluster, faked)))
}

/// How far the cluster's times for people are from the true one, in seconds.
fn ahead(lease: &v1::Lease) -> anyhow::Result<i64> {
    Ok(lease.acquire_time.context("is held")?.seconds - clock::wall_seconds())
}

/// A holder falls silent; the first in the queue must have the lease after its deadline, and not before.
async fn handed_over_in_time(client: &Client, name: &str, jump: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let silent = client.lease(name).duration(LEASE).acquire().await?;
    let mut next = client.lease(name).duration(LEASE).wait_forever().ask()?;
    let Step::Queued { .. } = next.next().await? else { anyhow::bail!("granted twice") };
    let (token, deadline) = (silent.token(), silent.deadline());
    drop(silent);
    jump().await?;
    let waiting = async {
        loop {
            if let Step::Held(lease) = next.next().await? {
                return anyhow::Ok((lease, clock::now()));
            }
        }
    };
    let (granted, at) = tokio::time::timeout(PATIENCE, waiting).await??;
    ensure!(at >= deadline.boottime_ns, "granted {:?} early", Duration::from_nanos(deadline.boottime_ns - at));
    ensure!(granted.token() > token, "the token went back from {token} to {}", granted.token());
    println!("{name}: granted {:?} after the deadline", Duration::from_nanos(at - deadline.boottime_ns));
    Ok(granted.release().await?)
}

async fn jumping_replicas(test: &str, jumps: Jumps, to: &[i64]) -> anyhow::Result<()> {
    let Some((cluster, faked)) = cluster(test, jumps).await? else { return Ok(()) };
    let client = client(&cluster)?;
    let mut kept: Vec<Lease> = Vec::new();
    for at in 0..10 {
        kept.push(client.lease(format!("kept-{at}")).duration(3 * SECOND).acquire().await?);
    }
    for seconds in to {
        let mut seen = 0;
        let jump = async || {
            // It may have changed: then nobody's times have jumped, and the one that is it now is next.
            for _ in 0..5 {
                let raft_leader = cluster.raft_leader().await?;
                let at = cluster.replicas.iter().position(|replica| replica.id == raft_leader).context("is one of them")?;
                faked[at].jump(*seconds)?;
                let probe = client.lease("probe").duration(SECOND).acquire().await?;
                seen = ahead(&client.get(v1::GetRequest { name: "probe".into(), ..Default::default() }).await?)?;
                probe.release().await?;
                if (seen - seconds).abs() < 60 {
                    break;
                }
            }
            Ok(())
        };
        handed_over_in_time(&client, &format!("handed-{seconds}"), jump).await?;
        ensure!((seen - seconds).abs() < 60, "the clock did not jump by {seconds} s but by {seen} s: nothing was tested");
    }
    tokio::time::sleep(4 * SECOND).await;
    for lease in &kept {
        ensure!(lease.is_held(), "{} was lost: {:?}", lease.name(), lease.lost_reason());
    }
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wall_clock_of_the_raft_leader_that_jumps_an_hour_ends_no_lease_and_grants_none_early() -> anyhow::Result<()> {
    jumping_replicas("sdk-clock-wall", Jumps::Wall, &[HOUR, -HOUR, 0]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_of_the_raft_leader_that_jump_an_hour_end_no_lease_and_grant_none_early() -> anyhow::Result<()> {
    jumping_replicas("sdk-clock-timers", Jumps::Timers, &[HOUR, 2 * HOUR]).await
}

async fn jumping_holders(test: &str, jumps: Jumps, to: &[i64], stays: bool) -> anyhow::Result<()> {
    let cluster = Cluster::three(test).await?;
    let files: Vec<PathBuf> = (0..2).map(|at| cluster.dir().join(format!("believed-{at}"))).collect();
    let (mut electors, mut faked) = (Vec::new(), Vec::new());
    for (at, file) in files.iter().enumerate() {
        let faketime = match Faketime::new(cluster.dir(), &format!("elector-{at}")) {
            Ok(faketime) => faketime,
            Err(why) => {
                disk::skipped(test, &why);
                return cluster.passed();
            }
        };
        let program = env!("CARGO_BIN_EXE_elector");
        electors.push(Elector::start_in(program, &cluster.endpoints(), "main", LEASE, file, &faketime.env(jumps))?);
        faked.push(faketime);
    }
    let leads = async |since: u64| {
        let leading = electors.iter().enumerate().map(|(at, elector)| Box::pin(async move { elector.leads_after(since).await.map(|_| at) }));
        anyhow::Ok(tokio::time::timeout(PATIENCE, futures::future::select_ok(leading)).await??.0)
    };
    for seconds in to {
        let leading = leads(clock::now()).await?;
        faked[leading].jump(*seconds)?;
        tokio::time::sleep(LEASE + SECOND).await;
        leads(clock::now()).await?;
    }
    drop(electors);
    let beliefs: Vec<Belief> = judge(&files)?;
    ensure!(!stays || beliefs.len() == 1, "it lost its lease for a jump of the wall clock: {beliefs:?}");
    println!("{test}: {} leaderships over {} jumps", beliefs.len(), to.len());
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elected_leader_whose_wall_clock_jumps_an_hour_leads_on() -> anyhow::Result<()> {
    jumping_holders("sdk-clock-holder", Jumps::Wall, &[HOUR, -HOUR, 0], true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elected_leader_whose_timers_jump_an_hour_is_never_one_of_two() -> anyhow::Result<()> {
    jumping_holders("sdk-clock-holder-timers", Jumps::Timers, &[HOUR, 2 * HOUR], false).await
}

/// The clocks that leases are measured with, and what they jump by.
#[derive(Debug, Default)]
struct Jumping(AtomicU64);

impl Clock for Jumping {
    fn readings(&self) -> Readings {
        SystemClock.readings().plus(Duration::from_secs(self.0.load(Ordering::Relaxed)))
    }
}

#[tokio::test]
async fn holder_whose_very_clocks_jump_gives_up_at_once_and_nobody_is_granted_early() -> anyhow::Result<()> {
    let cluster = Cluster::three("sdk-clock-elapsed").await?;
    let jumping = Arc::new(Jumping::default());
    let shared: Arc<dyn Clock> = Arc::clone(&jumping) as _;
    let far = Client::builder().endpoints(cluster.replicas.iter().map(|replica| replica.client.addr())).clock(shared).build()?;
    let near = client(&cluster)?;
    handed_over_in_time(&near, "before", async || Ok(())).await?;

    let lease = far.lease("job").duration(3 * LEASE).acquire().await?;
    let begun = clock::now();
    let stop = lease.cancellation();
    ensure!(lease.is_held());
    jumping.0.store(3600, Ordering::Relaxed);
    // Asked, it says so at once, and the token fires within a quarter of a second.
    ensure!(!lease.is_held() && lease.remaining().is_zero(), "{:?} left", lease.remaining());
    tokio::time::timeout(PATIENCE, stop.cancelled()).await?;
    let reason = lease.lost().await;
    ensure!(matches!(reason, LostReason::NotRenewed(_)), "{reason}");
    // The cluster goes by its own: it is too soon for anybody else.
    if let Acquired::Held(other) = near.lease("job").duration(LEASE).try_acquire().await? {
        ensure!(clock::since(begun) >= 2 * LEASE, "granted {:?} after the first", clock::since(begun));
        other.release().await?;
    }
    // Calls, campaigns and renewals go on in the new time.
    let leadership = tokio::time::timeout(PATIENCE, LeaderElection::builder(&far, "default", "job").lease_duration(LEASE).build()?.campaign()).await??;
    tokio::time::sleep(2 * LEASE).await;
    ensure!(leadership.is_leader(), "{:?}", leadership.lease().lost_reason());
    cluster.passed()
}
