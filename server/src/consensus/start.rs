//! Bringing a replica's Raft up from its data directory.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use openraft::{SnapshotPolicy, storage::RaftLogStorage};
use tenure_lease::{LeaseTable, RaftLeaderId};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Consensus, Inner, Leadership, Replicated,
    leadership::{Contact, Observer},
    log_check::{self, Found},
    log_store::{LogControl, LogMeter, LogStore},
    network::Network,
    outgoing::Hurry,
    snapshot::{self, SnapshotFile, Snapshots},
    state_machine::StateMachine,
    types::{Raft, TypeConfig, core_leader},
};
use crate::{
    config::Config,
    disk::{Expected, SharedDisk, SystemDisk},
    identity::Identity,
    peer::Peers,
    replica::Progress,
};

/// Where a data directory has its log.
const LOG_DIR: &str = "raft-log";
/// Entries kept for followers that lag a little, so that they need no snapshot: so many at most,
const KEPT_ENTRIES: u64 = 1000;
/// and one for each so many bytes of log between snapshots, so that a small log stays small.
const BYTES_PER_KEPT_ENTRY: u64 = 1024;
/// A dead receiver is noticed by keep-alive; this bounds a slow one.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// What the newest snapshot says.
pub(crate) struct Recovered {
    snapshots: Snapshots,
    newest: Option<SnapshotFile>,
}

/// Reads the newest snapshot, if there is any, and refuses a damaged one. Blocking.
pub(crate) fn recover(disk: &SharedDisk, data_dir: &Path) -> anyhow::Result<(LeaseTable, Progress, Recovered)> {
    let recovered = Recovered::open(disk, data_dir)?;
    let Some(file) = &recovered.newest else {
        return Ok((LeaseTable::new(), Progress::default(), recovered));
    };
    let mut body = file.body()?;
    let table = LeaseTable::restore(&mut body).map_err(|error| file.damaged(error))?;
    let progress = Progress { index: recovered.index().unwrap_or(0), leader: recovered.leader(), revision: table.revision(), clock: table.clock() };
    tracing::info!(path = %file.path.display(), index = progress.index, revision = progress.revision, "snapshot loaded");
    Ok((table, progress, recovered))
}

impl Recovered {
    /// Finds and verifies the newest snapshot.
    pub(crate) fn open(disk: &SharedDisk, data_dir: &Path) -> anyhow::Result<Self> {
        let snapshots = Snapshots::open(Arc::clone(disk), data_dir).with_context(|| format!("cannot use the snapshots in {}", data_dir.display()))?;
        let newest = snapshots.newest()?;
        Ok(Self { snapshots, newest })
    }

    /// What the state has to be restored from.
    #[cfg(test)]
    pub(crate) fn newest(&self) -> Option<&SnapshotFile> {
        self.newest.as_ref()
    }

    fn index(&self) -> Option<u64> {
        self.newest.as_ref().and_then(|file| file.meta.last_log_id).map(|id| id.index())
    }

    fn leader(&self) -> RaftLeaderId {
        self.newest.as_ref().and_then(|file| file.meta.last_log_id.as_ref().map(core_leader)).unwrap_or_default()
    }
}

/// Opens the log on disk after checking every record of it. Blocking.
pub(crate) fn open_log(disk: &SharedDisk, data_dir: &Path, identity: &Identity, recovered: &Recovered, snapshot_log_bytes: u64) -> anyhow::Result<LogStore> {
    let expected = Expected { member: identity.cluster_id().is_some(), snapshot_index: recovered.index(), snapshot_log_bytes };
    let counted = if recovered.newest.is_none() { ahead(identity.node_id(), snapshot_log_bytes) } else { 0 };
    Ok(LogStore::new(Arc::clone(disk), disk.open_log(&data_dir.join(LOG_DIR), expected)?, snapshot_log_bytes, counted))
}

/// By how much a replica's first snapshot comes early. Logs are of the same length everywhere, so all replicas would take their snapshots in the same
/// moment; while one is slow, the others are a quorum. What is between their first ones stays between all that follow. Multiples of the golden ratio
/// keep any few neighbours apart.
fn ahead(node_id: u64, snapshot_log_bytes: u64) -> u64 {
    let fraction = node_id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u64::try_from((u128::from(fraction) * u128::from(snapshot_log_bytes)) >> 32).unwrap_or(0)
}

/// Every snapshot, oldest first: its index, or what is wrong with it. Reads all of each, tables included, and changes nothing. Blocking.
pub(crate) fn inspect_snapshots(data_dir: &Path) -> anyhow::Result<Vec<anyhow::Result<u64>>> {
    let look = |path: &Path| -> anyhow::Result<u64> {
        let file = snapshot::verify(&SystemDisk::shared(), path)?;
        LeaseTable::restore(&mut file.body()?).map_err(|error| file.damaged(error))?;
        Ok(file.meta.last_log_id.map_or(0, |id| id.index()))
    };
    Ok(Snapshots::existing(SystemDisk::shared(), data_dir).paths()?.iter().map(|path| look(path)).collect())
}

/// Every record of the log; changes nothing. `member`: it may not be missing. Blocking.
pub(crate) fn inspect_log(data_dir: &Path, member: bool, snapshot_index: Option<u64>) -> anyhow::Result<Found> {
    Ok(log_check::inspect(&data_dir.join(LOG_DIR), Expected { member, snapshot_index, ..Expected::default() })?)
}

impl Consensus {
    /// Starts Raft on a log storage of any kind; `state` holds what `recovered` says. Committed entries that the snapshot lacks are applied
    /// before this returns.
    pub(crate) async fn start<L>(
        config: &Config,
        identity: Identity,
        peers: Peers,
        state: Arc<dyn Replicated>,
        recovered: Recovered,
        log: L,
    ) -> anyhow::Result<Self>
    where
        L: RaftLogStorage<TypeConfig> + LogControl + Clone,
    {
        let Recovered { snapshots, newest } = recovered;
        let hurry = Hurry::default();
        let state_machine = StateMachine::new(state, snapshots.clone(), newest, hurry.clone());
        let applied_leader = state_machine.applied_leader();
        let raft_config = Arc::new(raft_config(config)?);
        let node_id = config.node_id;
        let (told, leadership) = watch::channel(Leadership::default());
        let network = Network::new(peers, leadership.clone(), hurry.clone());
        let raft = Raft::new(node_id, raft_config, network, log.clone(), state_machine).await;
        let raft = raft.map_err(|fatal| anyhow::anyhow!("Raft cannot start: {fatal}"))?;

        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let contact = Arc::new(Contact::default());
        let observer = Observer { raft: raft.clone(), node_id, applied_leader, contact: Arc::clone(&contact), patience: config.raft.election_max, told };
        tasks.spawn(observer.run(stopping.clone()));
        tasks.spawn(take_snapshots(raft.clone(), log.meter(), stopping.clone()));
        let inner = Inner {
            node_id,
            raft,
            leadership,
            contact,
            snapshots,
            receiving: tokio::sync::Mutex::default(),
            reads: parking_lot::Mutex::default(),
            log: Arc::new(log),
            hurry,
            identity,
            stopping,
            tasks,
            runtime: tokio::runtime::Handle::current(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

fn raft_config(config: &Config) -> anyhow::Result<openraft::Config> {
    let timing = config.raft;
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = openraft::Config {
        cluster_name: "tenure".to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        install_snapshot_timeout: ms(SNAPSHOT_TIMEOUT),
        // Snapshots are triggered by bytes of log, see take_snapshots.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: KEPT_ENTRIES.min(config.snapshot_log_bytes / BYTES_PER_KEPT_ENTRY),
        // A replica that cannot win does not disturb those that can.
        enable_pre_vote: Some(true),
        // A restarted raft leader stands for election like anybody else: its applied state has to be rebuilt first.
        enable_leader_restore: Some(false),
        // Else a raft leader without a quorum keeps one follower loyal for ever.
        quorum_loss_probe_interval: Some(2 * ms(timing.election_max)),
        broadcast_submitted_on_append: Some(true),
        ..openraft::Config::default()
    };
    config.validate().context("raft timing")
}

async fn take_snapshots(raft: Raft, meter: Arc<LogMeter>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = meter.filled() => {}
        }
        // Purging what it covers follows by itself, once it is written and verified.
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ahead;

    #[test]
    fn replicas_take_their_snapshots_at_different_times() {
        for replicas in [3, 5, 7] {
            let mut places: Vec<u64> = (1..=replicas).map(|id| ahead(id, 1_000)).collect();
            places.sort_unstable();
            places.push(places[0] + 1_000);
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 80), "{places:?}");
        }
        assert!(ahead(u64::MAX, u64::MAX) < u64::MAX);
        assert_eq!(ahead(3, 0), 0);
    }
}
