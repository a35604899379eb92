//! What attacking processes do: one function for each attack, which goes on until its orders say that it is over, and then tells what it counted.
//!
//! An attacking process has the lowest priority, so that on few cores the servers come first, and comes from addresses of its own (127.0.0.2 and
//! up), as another machine would. It goes to the addresses in its orders only, and takes it as it comes when it is refused or cut off.

pub(super) mod bodies;
pub(super) mod calls;
pub(super) mod connections;
pub(super) mod frames;
mod line;
pub(super) mod peers;
mod storm;
pub(super) mod streams;
pub(super) mod writes;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use serde::{Deserialize, Serialize};

use crate::clock;

/// For an attacking process; JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Name of the scenario.
    pub attack: String,
    /// When it is over, by [`crate::clock::now`].
    pub until: u64,
    /// Client addresses of the replicas, in order.
    pub client: Vec<String>,
    /// Peer addresses.
    pub peer: Vec<String>,
    /// HTTP addresses.
    pub http: Vec<String>,
    /// Index of the raft leader when the attack begins.
    pub leader: usize,
    /// Namespace of the leases that were put there beforehand.
    pub filled: String,
}

impl Orders {
    fn left(&self) -> Duration {
        Duration::from_nanos(self.until.saturating_sub(clock::now()))
    }

    fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Waits until it is over.
    async fn end(&self) {
        tokio::time::sleep(self.left()).await;
    }

    /// What is still being done when it is over is given up.
    async fn meanwhile<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.left(), doing).await.ok()
    }

    fn leader_client(&self) -> &str {
        &self.client[self.leader]
    }

    fn followers<'a>(&self, addrs: &'a [String]) -> Vec<&'a String> {
        addrs.iter().enumerate().filter(|(at, _)| *at != self.leader).map(|(_, addr)| addr).collect()
    }
}

/// What an attacking process has to tell; JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Numbers for people.
    pub counts: String,
    /// What it saw that must not be.
    pub complaints: Vec<String>,
    /// By lease of [`Told::NAMESPACE`]: the last number that was acknowledged for its label [`Told::NUMBER`].
    pub acknowledged: BTreeMap<String, u64>,
}

impl Told {
    /// Of the leases whose numbers are acknowledged.
    pub const NAMESPACE: &'static str = "acknowledged";
    /// The label.
    pub const NUMBER: &'static str = "number";

    fn of(counts: impl Into<String>) -> Self {
        Self { counts: counts.into(), ..Self::default() }
    }
}

/// The whole attacking process: what it told, as a line of JSON.
///
/// # Errors
/// The orders are no JSON, nobody knows the attack, or it could not even begin.
pub fn perform(orders: &str) -> anyhow::Result<String> {
    let orders: Orders = serde_json::from_str(orders).context("orders are JSON")?;
    let scenario = super::find(&orders.attack).with_context(|| format!("there is no scenario {}", orders.attack))?;
    nice(19).context("cannot lower the priority")?;
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).context("cannot raise the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let told = runtime.block_on((scenario.attack)(orders));
    runtime.shutdown_background();
    Ok(serde_json::to_string(&told?)?)
}
