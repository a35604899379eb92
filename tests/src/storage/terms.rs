//! Looks at every replica all the time: a term has one raft leader, and a majority has voted for it, whatever died in between.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use crate::Api;

/// See the module. Ends when dropped.
#[derive(Debug)]
pub struct Terms {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    leaders: BTreeMap<u64, u64>,
    wrong: Vec<String>,
}

impl Terms {
    /// Looks at these, which may come and go.
    #[must_use]
    pub fn watch(replicas: &[(u64, Api)]) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let mut tasks = JoinSet::new();
        for (id, api) in replicas.iter().cloned() {
            let seen = Arc::clone(&seen);
            tasks.spawn(async move {
                loop {
                    if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_millis(500), api.status()).await {
                        let leads = status.members.iter().any(|member| member.node_id == id && member.is_raft_leader);
                        seen.lock().unwrap_or_else(PoisonError::into_inner).add(id, status.term, leads);
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
        Self { seen, _tasks: tasks }
    }

    /// No term had two; the newest that had one.
    pub fn sound(&self) -> anyhow::Result<u64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.wrong.is_empty(), "{}", seen.wrong.join("; "));
        seen.leaders.keys().next_back().copied().context("no raft leader was ever seen")
    }
}

impl Seen {
    fn add(&mut self, id: u64, term: u64, leads: bool) {
        if leads {
            let leader = *self.leaders.entry(term).or_insert(id);
            if leader != id {
                self.wrong.push(format!("term {term} has two raft leaders, {leader} and {id}"));
            }
        }
    }
}
