//! The yardstick of bounds: clusters of real processes under one client, peer or disk that does too much, and beside it a well-behaved client (the
//! bystander) that must hardly notice. A scenario is an attack, what varies in the cluster, and what must hold; its run ends in one row of a table.
//!
//! The attacks break no promise by themselves: they are what careless or hostile programs do to the ports. They go to the processes that the run has
//! started, over loopback, and are bounded in number and in time.

pub mod attacks;
mod bystander;
mod hurt;
mod memory;
mod report;
mod run;
mod scenarios;
mod stage;

use std::{future::Future, pin::Pin};

pub use attacks::{Orders, Told};
pub use report::{Figures, Row, table};
pub use run::{Plan, run};
pub use scenarios::ALL;

/// What an attacking process does until its orders say that it is over.
pub type Attack = fn(Orders) -> Pin<Box<dyn Future<Output = anyhow::Result<Told>> + Send>>;

/// What is taken from replicas by the run itself, and given back at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurt {
    /// Nothing: the attacking process does it all.
    Nothing,
    /// The space on the disks of so many replicas, followers first.
    Space(usize),
    /// The inodes on the disks of so many replicas, followers first.
    Inodes(usize),
}

impl Hurt {
    /// How many replicas are hurt.
    #[must_use]
    pub const fn victims(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Space(replicas) | Self::Inodes(replicas) => replicas,
        }
    }
}

/// What differs from three replicas with the configuration as it is shipped.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The limit of open files of every replica, soft and hard; `None`: this machine's.
    pub descriptors: Option<u64>,
    /// `snapshot.log_bytes`: a quarter of it is the size of the log's files.
    pub snapshot_log_bytes: &'static str,
    /// Leases that are there before the attack.
    pub leases: u32,
    /// The data directories are on file systems of their own of so many MiB.
    pub disk_mib: Option<u64>,
    /// What the run takes away.
    pub hurt: Hurt,
    /// A replica that takes more memory is killed at once, as the kernel would do where memory is short.
    pub memory_mib: Option<u64>,
    /// What the data directories grow by is judged as well.
    pub disk_is_bounded: bool,
}

/// The configuration as it is shipped.
pub const SHIPPED: Setup =
    Setup { descriptors: None, snapshot_log_bytes: "64MiB", leases: 0, disk_mib: None, hurt: Hurt::Nothing, memory_mib: None, disk_is_bounded: false };

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The yardstick, whole.
    Yardstick,
    /// The yardstick; or every replica refuses to start and its log names the limit of descriptors.
    YardstickOrRefusal,
    /// A replica that was hurt may stop. The others keep to the yardstick; afterwards all serve, with all that was acknowledged.
    VictimsMayStop,
    /// There is no majority meanwhile. Afterwards all serve, with all that was acknowledged.
    NoMajority,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The row of the table of attacks in docs/abuse.md.
    pub row: &'static str,
    /// As it is asked for.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    /// What must hold beside or instead of the yardstick, in one sentence; empty: the yardstick and nothing else.
    pub must: &'static str,
    /// What differs in the cluster.
    pub setup: Setup,
    /// How it is judged.
    pub expect: Expect,
    /// The attacking process.
    pub attack: Attack,
}

/// By name, or by row.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name || scenario.row == name)
}

/// For docs/abuse.md.
#[must_use]
pub fn markdown() -> String {
    let mut text = "| row | scenario | what happens | what must hold |\n|---|---|---|---|\n".to_owned();
    for Scenario { row, name, what, must, .. } in ALL {
        let must = if must.is_empty() { "the yardstick" } else { must };
        text.push_str(&format!("| {row} | `{name}` | {what} | {must} |\n"));
    }
    text
}
