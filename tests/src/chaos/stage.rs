//! What a scenario acts upon: the cluster, its hosts, the users, and the record of it all; with the verbs that all scenarios share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tenure_checker::history::What;
use tokio::task::JoinHandle;

use super::{Setup, run::Plan, traffic::Traffic};
use crate::{
    Api, Cluster,
    api::may_retry,
    clock::{self, Rng},
    disk::Mount,
    faketime::Faketime,
    history::History,
    netns::Net,
    proxy::Proxy,
    replica::PATIENCE,
    v1::TransferLeaderRequest,
};

/// See the module.
#[derive(Debug)]
pub struct Stage {
    /// What was asked for.
    pub plan: Plan,
    /// As the scenario wants it.
    pub setup: Setup,
    /// The replicas.
    pub cluster: Cluster,
    /// The users.
    pub traffic: Traffic,
    /// Their hosts; none where there is no right to make them.
    pub net: Option<Net>,
    /// Before the peer ports of the replicas, in order, if the scenario wants them.
    pub peer_proxies: Vec<Proxy>,
    /// Before their client ports.
    pub client_proxies: Vec<Proxy>,
    /// Of the replicas in order, then of the users.
    pub faketimes: Vec<Faketime>,
    /// The disks of the replicas.
    pub mounts: Vec<Mount>,
    /// Everything that was seen.
    pub history: Arc<History>,
    /// For the scenario's choices.
    pub rng: Rng,
    /// Until when things shall go wrong.
    pub until: u64,
    pub(super) observers: Observers,
}

/// Who was raft leader in which term, as the replicas say themselves, all the time.
#[derive(Debug, Default)]
pub(super) struct Observers {
    terms: Arc<Mutex<BTreeMap<u64, u64>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Observers {
    /// Looks at one more replica.
    pub(super) fn watch(&mut self, id: u64, api: Api, history: &Arc<History>) {
        let (terms, history) = (Arc::clone(&self.terms), Arc::clone(history));
        self.tasks.push(tokio::spawn(async move {
            let mut last = (0, 0);
            loop {
                if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_millis(500), api.status()).await {
                    if (status.applied_index, status.state_hash) != last {
                        last = (status.applied_index, status.state_hash);
                        history.replicas(std::slice::from_ref(&status));
                    }
                    let leads = status.members.iter().any(|member| member.node_id == id && member.is_raft_leader);
                    if leads && terms.lock().unwrap_or_else(PoisonError::into_inner).insert(status.term, id).is_none() {
                        history.record(What::RaftLeader { node: id.to_string(), term: status.term });
                    }
                }
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        }));
    }

    /// How many were seen after the first.
    pub(super) fn changes(&self) -> usize {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner).len().saturating_sub(1)
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The host of a replica.
#[must_use]
pub(super) fn host(id: u64) -> String {
    format!("r{id}")
}

impl Stage {
    /// Whether there is time for more.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        clock::now() < self.until
    }

    /// Lets the users work for a while.
    pub async fn pass(&mut self, length: Duration) -> anyhow::Result<()> {
        let begun = clock::now();
        loop {
            self.traffic.read()?;
            let left = length.saturating_sub(clock::since(begun));
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(Duration::from_millis(200))).await;
        }
    }

    /// The same, for some time between these, in milliseconds.
    pub async fn pass_some(&mut self, least: u64, most: u64) -> anyhow::Result<()> {
        let length = Duration::from_millis(least + self.rng.below(most - least));
        self.pass(length).await
    }

    /// The raft leader's id.
    pub async fn raft_leader(&self) -> anyhow::Result<u64> {
        self.cluster.raft_leader().await
    }

    /// Any replica but this one.
    pub fn other_than(&mut self, id: u64) -> u64 {
        let others: Vec<u64> = self.ids().into_iter().filter(|other| *other != id).collect();
        let at = usize::try_from(self.rng.below(others.len() as u64)).unwrap_or(0);
        others.get(at).copied().unwrap_or(id)
    }

    /// Of the founders.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        (1..=self.setup.replicas).collect()
    }

    /// The network; scenarios that use it need it.
    pub fn net(&self) -> anyhow::Result<&Net> {
        self.net.as_ref().context("this scenario needs hosts")
    }

    /// The hosts of all replicas but these.
    #[must_use]
    pub fn hosts_besides(&self, ids: &[u64]) -> Vec<String> {
        self.ids().into_iter().filter(|id| !ids.contains(id)).map(host).collect()
    }

    /// The hosts of all users.
    #[must_use]
    pub fn user_hosts(&self) -> Vec<String> {
        self.traffic.users.iter().map(|user| user.name.clone()).collect()
    }

    /// kill -9; the fault's number.
    pub fn kill(&mut self, id: u64) -> anyhow::Result<u64> {
        let fault = self.history.fault("kill -9", id);
        self.cluster.replica(id)?.kill()?;
        Ok(fault)
    }

    /// Starts it again, and waits until it serves.
    pub async fn start(&mut self, id: u64, fault: u64) -> anyhow::Result<()> {
        let replica = self.cluster.replica(id)?;
        replica.spawn()?;
        self.history.record(What::Boot { node: id.to_string() });
        replica.ready().await?;
        self.history.healed(fault);
        Ok(())
    }

    /// Stopped, as a debugger or a hypervisor would.
    pub fn stop(&mut self, id: u64) -> anyhow::Result<u64> {
        let fault = self.history.fault("SIGSTOP", id);
        self.cluster.replica(id)?.signal(Signal::STOP)?;
        Ok(fault)
    }

    /// It goes on.
    pub fn resume(&mut self, id: u64, fault: u64) -> anyhow::Result<()> {
        self.cluster.replica(id)?.signal(Signal::CONT)?;
        self.history.healed(fault);
        Ok(())
    }

    /// Waits until an operation is served that was answered after this moment.
    pub async fn served_after(&mut self, moment: u64) -> anyhow::Result<()> {
        let begun = clock::now();
        while self.traffic.served(moment, u64::MAX) == 0 {
            ensure!(clock::since(begun) < PATIENCE, "nothing was served for {PATIENCE:?}");
            self.pass(Duration::from_millis(50)).await?;
        }
        Ok(())
    }

    /// Waits until another replica than this one leads.
    pub async fn led_by_another_than(&mut self, id: u64) -> anyhow::Result<u64> {
        let begun = clock::now();
        loop {
            // One that is cut off may believe that it leads; the one with the larger term does.
            let leads = self.raft_leader().await?;
            if leads != id {
                return Ok(leads);
            }
            ensure!(clock::since(begun) < PATIENCE, "replica {id} still leads after {PATIENCE:?}");
            self.pass(Duration::from_millis(50)).await?;
        }
    }

    /// Hands raft leadership to this replica; whether it took it is for the cluster to say.
    pub async fn transfer_to(&mut self, id: u64) -> anyhow::Result<()> {
        let begun = clock::now();
        for turn in 0.. {
            let mut through = self.cluster.replicas[turn % self.cluster.replicas.len()].api.cluster.clone();
            let asked = tokio::time::timeout(Duration::from_secs(5), through.transfer_leader(TransferLeaderRequest { node_id: id })).await;
            match asked {
                Ok(Ok(_)) => break,
                Ok(Err(status)) if !may_retry(&status) => return Err(status.into()),
                _ => ensure!(clock::since(begun) < PATIENCE, "raft leadership cannot be handed to replica {id}: {asked:?}"),
            }
            self.pass(Duration::from_millis(100)).await?;
        }
        Ok(())
    }

    /// Starts what has ended by itself, as a service manager does; whether there was any.
    pub async fn restart_what_ended(&mut self) -> anyhow::Result<Vec<u64>> {
        let mut ended = Vec::new();
        for replica in &mut self.cluster.replicas {
            if replica.running() && replica.still_alive().is_err() {
                ended.push(replica.id);
            }
        }
        for id in &ended {
            self.cluster.replica(*id)?.spawn()?;
            self.history.record(What::Boot { node: id.to_string() });
        }
        Ok(ended)
    }
}
