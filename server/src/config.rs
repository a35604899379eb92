//! What a replica is told. [`Settings::load`] reads a file; whatever is in a [`Config`] has been checked.
//!
//! Reads no environment and no clock: what decides is what the file says.

mod file;
mod units;

use std::{path::PathBuf, time::Duration};

pub use file::ConfigError;

/// A configuration file, read and checked: the replica's own settings and what the process around it needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For [`crate::run()`].
    pub config: Config,
    /// What to bind; may differ from what is advertised.
    pub listen: Addresses,
    /// How log lines look.
    pub log: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// One replica's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// 1 or more, unique in the cluster.
    pub node_id: u64,
    /// Everything on disk.
    pub data_dir: PathBuf,
    /// host:port that clients, peers and probes are told to use; the listeners may be bound elsewhere.
    pub advertise: Addresses,
    /// The members that found the cluster, this one included; peer addresses by node id.
    pub initial_members: Vec<(u64, String)>,
    /// Permission to found a cluster when every initial member is reachable and empty.
    pub bootstrap: bool,
    /// Raft timing.
    pub raft: RaftTiming,
    /// Bounds on what clients may ask.
    pub limits: ServiceLimits,
    /// Take a snapshot after this many bytes of log. Default [`DEFAULT_SNAPSHOT_LOG_BYTES`].
    pub snapshot_log_bytes: u64,
    /// Keep history in sled.
    pub history: bool,
    /// How long this replica's identity lease lasts unless it is renewed, which it is every third of that; see [`DEFAULT_SERVER_IDENTITY`]. `None`:
    /// it publishes none.
    pub server_identity: Option<Duration>,
    /// Of the machine, for the identity lease's name and labels. Whoever starts the replica finds it out; nothing in here asks the machine.
    pub host_name: String,
}

/// Reads a duration as configuration files write it: "50ms", "1.5s".
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    <units::Span as units::FromText>::from_text(text).map(|span| span.0)
}

/// 64 MiB: some seconds of replay at a restart.
pub const DEFAULT_SNAPSHOT_LOG_BYTES: u64 = 64 << 20;

/// 30 s: three renewals, so that a restart or a change of raft leader never shows, and who died shows soon.
pub const DEFAULT_SERVER_IDENTITY: Duration = Duration::from_secs(30);

/// Where to reach a replica, host:port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Client gRPC; default port 7400.
    pub client: String,
    /// Peers; default port 7401.
    pub peer: String,
    /// HTTP; default port 7402.
    pub http: String,
}

/// Raft timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTiming {
    /// Default 50 ms.
    pub heartbeat: Duration,
    /// Default 150 ms.
    pub election_min: Duration,
    /// Default 300 ms.
    pub election_max: Duration,
}

impl Default for RaftTiming {
    fn default() -> Self {
        Self { heartbeat: Duration::from_millis(50), election_min: Duration::from_millis(150), election_max: Duration::from_millis(300) }
    }
}

/// Bounds on what clients may ask (DESIGN section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Default 1 s, down to 100 ms.
    pub min_duration: Duration,
    /// 24 h.
    pub max_duration: Duration,
    /// Commands waiting to be proposed, in each of two lanes (renewals and the like, and the rest); more are refused with RESOURCE_EXHAUSTED.
    pub queue: usize,
    /// Default 2,000,000.
    pub leases_per_namespace: u64,
    /// Default 10,000.
    pub waiters_per_lease: u32,
    /// Connections to the client port from one source address. Default: a quarter of what the port takes.
    pub connections_per_source: Option<usize>,
    /// Events that wait for one watcher's stream, before it has to catch up from those that are remembered. 1,024; simulations have less.
    pub watch_queue: usize,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            min_duration: Duration::from_secs(1),
            max_duration: Duration::from_secs(24 * 3600),
            queue: 65_536,
            leases_per_namespace: 2_000_000,
            waiters_per_lease: 10_000,
            connections_per_source: None,
            watch_queue: 1_024,
        }
    }
}
