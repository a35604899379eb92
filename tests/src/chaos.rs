//! Chaos on real processes: clusters of `tenured serve` on hosts of their own, users with the real SDK who never stop, one thing that goes wrong, and
//! the checker's word on all that was seen. A scenario is a name, what happens, and what must hold; its run ends in one line.
//!
//! Nothing here is timed to pass: phases end when enough was served, and a run with too little traffic has failed, since it shows nothing.

pub mod campaign;
mod hurt;
mod run;
mod scenarios;
mod setup;
mod stage;
mod store;
mod traffic;
pub mod user;

use std::{future::Future, pin::Pin};

pub use run::{Plan, Summary, run};
pub use scenarios::ALL;
pub use setup::{Disks, Setup};
pub use stage::Stage;

/// What a scenario does while the users work.
pub type Act = for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// What a machine must have for a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Hosts of our own: root, iproute2, nftables.
    Hosts,
    /// File systems of our own: root, loop devices.
    Mounts,
    /// strace, and the right to trace.
    Strace,
    /// libfaketime.
    Faketime,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// As it is asked for.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    /// What must hold, beside what always must.
    pub must: &'static str,
    /// Without these it is skipped, and says so.
    pub needs: &'static [Need],
    /// Operations a second that must be served while things go wrong. 0: nothing can be demanded.
    pub floor: u64,
    /// No keeper may lose its lease.
    pub keeps: bool,
    /// Changes the usual.
    pub prepare: fn(&mut Setup),
    /// What goes wrong.
    pub act: Act,
}

/// Removes what runs left behind that were killed.
pub fn sweep() {
    crate::netns::sweep();
    hurt::sweep();
    run::sweep();
}

/// By name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().flat_map(|group| group.iter()).find(|scenario| scenario.name == name)
}

/// All, in order.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    ALL.iter().flat_map(|group| group.iter())
}

/// For docs/chaos.md.
#[must_use]
pub fn table() -> String {
    let mut text = "| name | what happens | what must hold |\n|---|---|---|\n".to_owned();
    for Scenario { name, what, must, keeps, .. } in all() {
        let keep = if *keeps { ". Keepers keep" } else { "" };
        text.push_str(&format!("| `{name}` | {what} | {must}{keep} |\n"));
    }
    text
}
