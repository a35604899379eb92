//! What differs from scenario to scenario: how many there are of everything, what is between them, and what their disks and clocks are like.

use std::path::PathBuf;

use super::user::{Extra, Orders};
use crate::faketime::Jumps;

/// Where replicas keep their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disks {
    /// In folders of this machine.
    Folders,
    /// In a tmpfs of so many MiB each, which can be full.
    Small(u64),
    /// In an ext4 of so many MiB each, which can lose power.
    Own(u64),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many found the cluster.
    pub replicas: u64,
    /// Hosts for more.
    pub spares: u64,
    /// User processes, each on a host of its own.
    pub users: u64,
    /// `snapshot.log_bytes`.
    pub snapshot_log_bytes: &'static str,
    /// See there.
    pub disks: Disks,
    /// Replicas reach each other through proxies.
    pub peer_proxies: bool,
    /// Users reach replicas through proxies.
    pub client_proxies: bool,
    /// Replicas and users have clocks that can be set.
    pub faketime: Option<Jumps>,
    /// How fast all clocks of the replicas run that can be faked, in turn, for all their life: a monotonic clock never goes back.
    pub rates: Vec<f64>,
    /// How much faster the clocks of each user run, in parts per million.
    pub skews: [i64; 3],
    /// Whether these are within the promise.
    pub clocks_within_promise: bool,
    /// See [`Orders::leases`].
    pub leases: u64,
    /// See [`Orders::durations`].
    pub durations: Vec<u64>,
    /// See [`Orders::keepers`].
    pub keepers: u64,
    /// See [`Orders::keeper_ms`].
    pub keeper_ms: u64,
    /// See [`Orders::patience_ms`].
    pub patience_ms: u64,
    /// See [`Orders::extras`].
    pub extras: Vec<Extra>,
}

impl Setup {
    /// The usual.
    #[must_use]
    pub fn usual(replicas: u64) -> Self {
        Self {
            replicas,
            spares: 0,
            users: 3,
            snapshot_log_bytes: "1MiB",
            disks: Disks::Folders,
            peer_proxies: false,
            client_proxies: false,
            faketime: None,
            rates: Vec::new(),
            skews: [0; 3],
            clocks_within_promise: true,
            leases: 8,
            durations: vec![300, 600, 1_200, 3_000],
            keepers: 4,
            keeper_ms: 6_000,
            patience_ms: 4_000,
            extras: Vec::new(),
        }
    }

    /// For user number `at`, from 0.
    pub(super) fn orders(&self, at: usize, seed: u64, endpoints: Vec<String>, store: String) -> Orders {
        Orders {
            name: String::new(),
            seed,
            first_number: 0,
            endpoints,
            journal: PathBuf::new(),
            store,
            leases: self.leases,
            durations: self.durations.clone(),
            skew_ppm: self.skews.get(at).copied().unwrap_or(0),
            patience_ms: self.patience_ms,
            keepers: self.keepers,
            keeper_ms: self.keeper_ms,
            extras: self.extras.clone(),
        }
    }
}
