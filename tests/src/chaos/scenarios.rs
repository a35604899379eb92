//! The scenarios, by what goes wrong.

mod crashes;
mod network;
mod pauses;
mod work;

use super::Scenario;

/// All of them.
pub const ALL: &[&[Scenario]] = &[crashes::ALL, network::ALL, pauses::ALL, work::ALL];
