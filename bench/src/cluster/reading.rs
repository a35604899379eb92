//! What a cluster has used between two readings.

use std::time::Duration;

use anyhow::Context as _;

use super::{Cluster, Target, http::Metrics};
use crate::{
    clock::{self, Moment},
    usage,
};

/// The counters at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    at: Moment,
    generator: Duration,
    members: Vec<Duration>,
    written: u64,
    syncs: Option<f64>,
    entries: Option<f64>,
}

/// Between two readings; of all members together unless it says otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) time: Duration,
    /// CPU of each member.
    pub(crate) members: Vec<Duration>,
    /// CPU of this process.
    pub(crate) generator: Duration,
    /// Bytes to disk.
    pub(crate) written: u64,
    /// Of the log; where the members count them.
    pub(crate) syncs: Option<f64>,
    /// Of the log, committed; once, not for each member.
    pub(crate) entries: Option<f64>,
}

impl Usage {
    pub(crate) fn cpu(&self) -> Duration {
        self.members.iter().sum()
    }
}

/// `(sum of fsyncs, most log entries)`.
async fn counted(cluster: &Cluster) -> anyhow::Result<(Option<f64>, Option<f64>)> {
    let (syncs, entries) = match cluster.target {
        Target::Tenure => ("tenure_log_syncs_total", "tenure_log_last_index"),
        Target::Etcd => ("etcd_disk_wal_fsync_duration_seconds_count", "etcd_server_proposals_committed_total"),
    };
    let (mut sum, mut most) = (None, None);
    for member in &cluster.members {
        let metrics = Metrics::read(&member.http).await?;
        sum = metrics.get(syncs).map(|n| n + sum.unwrap_or(0.0)).or(sum);
        most = metrics.get(entries).map(|n| n.max(most.unwrap_or(0.0))).or(most);
    }
    Ok((sum, most))
}

impl Cluster {
    /// None if its processes are not ours.
    pub(crate) async fn reading(&self) -> anyhow::Result<Option<Reading>> {
        if !self.is_ours() {
            return Ok(None);
        }
        let (syncs, entries) = counted(self).await?;
        let mut reading = self.processes()?;
        (reading.syncs, reading.entries) = (syncs, entries);
        Ok(Some(reading))
    }

    fn processes(&self) -> anyhow::Result<Reading> {
        let pids = self.pids();
        let members = pids.iter().map(|pid| usage::cpu(*pid)).collect::<anyhow::Result<_>>()?;
        let written = pids.iter().map(|pid| usage::written(*pid)).sum::<anyhow::Result<u64>>()?;
        Ok(Reading { at: clock::now(), generator: usage::cpu(std::process::id())?, members, written, syncs: None, entries: None })
    }

    /// Since that reading, up to now.
    pub(crate) async fn used_since(&self, before: &Reading) -> anyhow::Result<Usage> {
        let now = self.processes()?;
        let (syncs, entries) = counted(self).await?;
        let since = |now: Option<f64>, before: Option<f64>| Some(now? - before?);
        Ok(Usage {
            time: before.at.until(now.at),
            members: now.members.iter().zip(&before.members).map(|(now, before)| now.saturating_sub(*before)).collect(),
            generator: now.generator.saturating_sub(before.generator),
            written: now.written.saturating_sub(before.written),
            syncs: since(syncs, before.syncs),
            entries: since(entries, before.entries),
        })
    }
    /// Bytes in RAM of each member.
    pub(crate) fn rss(&self) -> anyhow::Result<Vec<u64>> {
        self.pids().into_iter().map(usage::rss).collect()
    }

    /// Index of the newest snapshot of each member of Tenure.
    pub(crate) async fn snapshots(&self) -> anyhow::Result<Vec<u64>> {
        let mut indexes = Vec::new();
        for member in &self.members {
            indexes.push(Metrics::read(&member.http).await?.get("tenure_snapshot_index").context("tenure_snapshot_index")? as u64);
        }
        Ok(indexes)
    }
}
