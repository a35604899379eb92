//! The scenarios, by what goes wrong.

mod clocks;
mod crashes;
mod disks;
mod links;
mod network;
mod operations;
mod pauses;
mod work;

use super::Scenario;

/// All of them.
pub const ALL: &[&[Scenario]] = &[crashes::ALL, disks::ALL, network::ALL, links::ALL, pauses::ALL, clocks::ALL, operations::ALL, work::ALL];
