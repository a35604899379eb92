//! A replica, or a majority at once, dies at a named place under load. Nothing that was acknowledged is lost, no vote is forgotten, and the
//! cluster goes on.

use std::{io::Write as _, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;

use crate::{
    Cluster, History, Settings, api, binaries, clock,
    replica::PATIENCE,
    storage::{
        Round,
        load::{Load, settled},
        points::{Drive, POINTS, Point},
        terms::Terms,
        verdict,
    },
    v1::{AddMemberRequest, TransferLeaderRequest},
};

const NAMESPACE: &str = "storage";

/// One failpoint, the seed says which.
pub async fn round(round: &mut Round) -> anyhow::Result<()> {
    let point = POINTS[usize::try_from(round.seed % POINTS.len() as u64)?];
    at(round, point).await
}

/// The round of a failpoint.
pub async fn at(round: &mut Round, point: Point) -> anyhow::Result<()> {
    let passage = 1 + round.rng.below(point.passages);
    let majority = point.drive == Drive::Load && round.rng.below(3) == 0;
    round.what = format!("{} at passage {passage}{}", point.name, if majority { ", on a majority" } else { "" });
    let program = binaries::tenured_failpoints()?;
    // Who comes back must find the log that contradicts its own, and not a snapshot.
    let snapshot_log_bytes = if point.drive == Drive::Conflict { "64MiB" } else { "64KiB" };
    let mut cluster = Cluster::prepare("storage-failpoints", Settings { snapshot_log_bytes, ..Settings::default() })?;
    for replica in &mut cluster.replicas {
        replica.program = Some(program.clone());
    }
    let armed = format!("{}:{passage}", point.name);
    let history = Arc::new(History::of("storage-failpoints"));
    let watched: Vec<_> = cluster.replicas.iter().map(|replica| (replica.id, replica.api.clone())).collect();
    let terms = Terms::watch(&watched);
    let first = 1 + round.rng.below(3);
    let mut stage = Stage { cluster, armed, victims: if majority { vec![first, 1 + first % 3] } else { vec![first] }, round, history };

    if matches!(point.drive, Drive::Found | Drive::Join) {
        stage.found(point).await?;
    } else {
        stage.cluster.start_all().await?;
    }
    let start = stage.cluster.api().grant(api::acquire(NAMESPACE, "first", "me", 1000)).await?.revision;
    let load = Load::spawn(&stage.history, &stage.cluster.apis(), NAMESPACE, "load", 6, &mut stage.round.rng);
    load.goes_on(50).await?;
    match point.drive {
        Drive::Load => stage.under_load(&load).await,
        Drive::Lead => stage.leading().await,
        Drive::Elections => stage.elections().await,
        Drive::Install => stage.install(&load).await,
        Drive::Conflict => stage.conflict(&load).await,
        Drive::Member | Drive::Change => stage.membership(point.drive).await,
        Drive::Stop => stage.stop().await,
        Drive::Torn => stage.torn().await,
        Drive::Found | Drive::Join => Ok(()),
    }
    .with_context(|| stage.cluster.replicas.iter().map(|replica| replica.log_tail(5)).collect::<Vec<_>>().join("\n"))?;

    // Back again, and on.
    let Stage { mut cluster, round, history, .. } = stage;
    for replica in &mut cluster.replicas {
        replica.env.clear();
    }
    cluster.start_all().await?;
    load.goes_on(100).await.context("after the restart")?;
    let ledger = load.stop().await;
    round.counts.operations += ledger.acknowledged;
    for api in cluster.apis() {
        history.read_all(&api, NAMESPACE).await?;
        ledger.verify_at(&api, NAMESPACE).await?;
        round.counts.recovered += 1;
    }
    history.witness(&cluster.api(), NAMESPACE, start).await?;
    history.replicas(&cluster.settled().await?);
    let report = history.judged()?;
    for property in ["P2", "P4", "P6.replay", "P6.search", "P8"] {
        ensure!(report.checked_of(property) > 1, "{property} had nothing to check: the round says nothing");
    }

    // By their logs, a majority has voted in the term of the newest raft leader.
    cluster.kill_all()?;
    let newest = terms.sound()?;
    let mut voted = 0;
    for replica in &cluster.replicas {
        let checked = verdict::check(&replica.data_dir).await?;
        ensure!(checked.starts && !checked.said.contains("DAMAGED"), "after all: {}", checked.said);
        voted += usize::from(checked.voted().is_some_and(|term| term >= newest));
    }
    ensure!(voted > cluster.replicas.len() / 2, "only {voted} replicas remember a vote in term {newest}, which had a raft leader");
    cluster.passed()
}

struct Stage<'a> {
    cluster: Cluster,
    /// The failpoint, for the environment.
    armed: String,
    victims: Vec<u64>,
    round: &'a mut Round,
    history: Arc<History>,
}

impl Stage<'_> {
    /// Starts a replica that will die.
    fn arm(&mut self, id: u64) -> anyhow::Result<()> {
        let armed = self.armed.clone();
        let replica = self.cluster.replica(id)?;
        if replica.running() {
            replica.kill()?;
        }
        replica.env = vec![("TENURE_FAILPOINT".into(), armed)];
        replica.spawn()
    }

    /// Waits until it has died, and at the failpoint.
    async fn died(&mut self, id: u64) -> anyhow::Result<()> {
        let (name, replica) = (self.armed.clone(), self.cluster.replica(id)?);
        let (status, said) = (replica.exited().await.with_context(|| format!("{name} is not passed"))?, replica.log_text()?);
        ensure!(said.contains("failpoint "), "replica {id} ended by itself, {status}: {said}");
        self.round.counts.faults += 1;
        Ok(())
    }

    /// `true`: it still lives, and may for a while.
    fn lives(&mut self, id: u64, since: u64) -> anyhow::Result<bool> {
        if self.cluster.replica(id)?.ended()?.is_none() {
            ensure!(clock::since(since) < PATIENCE * 2, "{} is not passed", self.armed);
            return Ok(true);
        }
        let said = self.cluster.replica(id)?.log_text()?;
        ensure!(said.contains("failpoint "), "replica {id} ended by itself: {said}");
        self.round.counts.faults += 1;
        Ok(false)
    }

    async fn under_load(&mut self, load: &Load) -> anyhow::Result<()> {
        for id in self.victims.clone() {
            self.arm(id)?;
        }
        for id in self.victims.clone() {
            self.died(id).await?;
        }
        if self.victims.len() == 1 { load.goes_on(30).await.context("with one replica dead") } else { Ok(()) }
    }

    /// Hands raft leadership to this replica, or to whoever takes it (0).
    async fn transfer(&self, to: u64) {
        for api in self.cluster.apis() {
            let transfer = async { api.cluster.clone().transfer_leader(TransferLeaderRequest { node_id: to }).await };
            if matches!(tokio::time::timeout(Duration::from_secs(2), transfer).await, Ok(Ok(_))) {
                break;
            }
        }
    }

    async fn leading(&mut self) -> anyhow::Result<()> {
        let id = self.victims[0];
        self.arm(id)?;
        let begun = clock::now();
        while self.lives(id, begun)? {
            self.transfer(id).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    async fn elections(&mut self) -> anyhow::Result<()> {
        let id = self.victims[0];
        self.arm(id)?;
        let begun = clock::now();
        while self.lives(id, begun)? {
            self.transfer(0).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn install(&mut self, load: &Load) -> anyhow::Result<()> {
        let id = self.victims[0];
        let api = self.cluster.replica(id)?.api.clone();
        let last = settled(|| api.status()).await?.last_log_index;
        self.cluster.replica(id)?.kill()?;
        let begun = clock::now();
        loop {
            load.goes_on(100).await?;
            let mut behind = 0;
            for replica in self.cluster.replicas.iter().filter(|replica| replica.id != id) {
                // What a snapshot keeps of the log, and a good deal more.
                behind += u64::from(settled(|| replica.api.status()).await?.snapshot_index > last + 300);
            }
            if behind == 2 {
                break;
            }
            ensure!(clock::since(begun) < PATIENCE * 2, "the others take no snapshots");
        }
        self.arm(id)?;
        self.died(id).await?;
        load.goes_on(30).await
    }

    async fn conflict(&mut self, load: &Load) -> anyhow::Result<()> {
        // What was under way may have got to one of the others after all.
        for _ in 0..6 {
            let leader = self.cluster.raft_leader().await?;
            let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != leader).collect();
            for id in &others {
                self.cluster.replica(*id)?.signal(Signal::STOP)?;
            }
            // What comes now is in its log, and in the others' sockets, where it is forgotten.
            tokio::time::sleep(Duration::from_millis(200)).await;
            for id in &others {
                self.cluster.replica(*id)?.kill()?;
            }
            self.cluster.replica(leader)?.kill()?;
            for id in &others {
                self.cluster.replica(*id)?.spawn()?;
            }
            load.goes_on(60).await?;
            self.arm(leader)?;
            if self.cluster.replica(leader)?.ready_or_ended().await?.is_some() {
                let said = self.cluster.replica(leader)?.log_text()?;
                ensure!(said.contains("failpoint "), "replica {leader} ended by itself: {said}");
                self.round.counts.faults += 1;
                return load.goes_on(30).await;
            }
            let replica = self.cluster.replica(leader)?;
            replica.kill()?;
            replica.env.clear();
            replica.spawn()?;
            replica.ready().await?;
        }
        bail!("{} is not passed", self.armed)
    }

    async fn membership(&mut self, drive: Drive) -> anyhow::Result<()> {
        let added = self.cluster.add_replica(4)?;
        added.program = Some(binaries::tenured_failpoints()?);
        added.spawn()?;
        let addr = added.peer.addr();
        let id = self.victims[0];
        self.arm(id)?;
        let apis = self.cluster.apis();
        let others: Vec<_> = apis.iter().enumerate().filter(|(at, _)| *at as u64 + 1 != id && *at < 3).map(|(_, api)| api.clone()).collect();
        let victim = apis[usize::try_from(id)? - 1].clone();
        let request = AddMemberRequest { node_id: 4, peer_addr: addr, learner_only: false };
        let add = |api: &crate::Api| {
            let (mut cluster, request) = (api.cluster.clone(), request.clone());
            async move { tokio::time::timeout(Duration::from_secs(10), cluster.add_member(request)).await }
        };
        let begun = clock::now();
        while self.lives(id, begun)? {
            if drive == Drive::Change {
                self.transfer(id).await;
                drop(add(&victim).await);
            } else {
                drop(add(&others[0]).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // It takes the others, and it may have been half done.
        let begun = clock::now();
        loop {
            match add(&others[0]).await {
                Ok(Ok(_)) => break,
                other => ensure!(clock::since(begun) < PATIENCE * 2, "replica 4 cannot be added: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let id = self.victims[0];
        self.arm(id)?;
        self.cluster.replica(id)?.ready().await?;
        self.cluster.replica(id)?.signal(Signal::TERM)?;
        self.died(id).await
    }

    async fn torn(&mut self) -> anyhow::Result<()> {
        let id = self.victims[0];
        let replica = self.cluster.replica(id)?;
        replica.kill()?;
        let files = std::fs::read_dir(replica.data_dir.join("raft-log"))?.flatten().map(|entry| entry.path());
        let newest = files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).max().context("a log file")?;
        // A record's type, and the beginning of what it is about.
        std::fs::OpenOptions::new().append(true).open(newest)?.write_all(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        self.arm(id)?;
        self.died(id).await
    }

    async fn found(&mut self, point: Point) -> anyhow::Result<()> {
        self.victims = match (point.drive, point.name) {
            // Whoever leads first.
            (_, "bootstrap_before_propose") => vec![1, 2, 3],
            // The lowest node id founds.
            (Drive::Found, _) => vec![1],
            _ => self.victims.clone(),
        };
        for id in 1..=3 {
            if self.victims.contains(&id) { self.arm(id)? } else { self.cluster.replica(id)?.spawn()? }
        }
        let begun = clock::now();
        let mut dead = Vec::new();
        while dead.is_empty() {
            for id in self.victims.clone() {
                if self.cluster.replica(id)?.ended()?.is_some() {
                    dead.push(id);
                }
            }
            if clock::since(begun) > PATIENCE {
                bail!("{} is not passed", self.armed);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for id in dead {
            let said = self.cluster.replica(id)?.log_text()?;
            ensure!(said.contains("failpoint "), "replica {id} ended by itself: {said}");
            self.round.counts.faults += 1;
        }
        // The rest of those who would die, too: the restart is of all.
        for id in self.victims.clone() {
            let replica = self.cluster.replica(id)?;
            if replica.running() {
                replica.kill()?;
            }
            replica.env.clear();
        }
        self.cluster.start_all().await
    }
}
