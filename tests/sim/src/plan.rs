//! Everything about a run that follows from its seed: how many replicas, how fast, how wrong, what is asked of it.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// What the clocks of a run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// Drift within the promise, 0.1 % between any two.
    Promised,
    /// Drift beyond it and jump. Tokens must still be right; who believes what may not be.
    Wild,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What everything follows from.
    pub(crate) seed: u64,
    /// 3 or 5.
    pub(crate) replicas: u64,
    /// Of machines.
    pub(crate) clocks: Clocks,
    /// Faults at all.
    pub(crate) faults: bool,
    /// How long there are clients and faults.
    pub(crate) busy: Duration,
    /// Processes with an SDK client that holds, waits, elects, reads.
    pub(crate) clients: u64,
    /// Of leases.
    pub(crate) leases: u64,
    /// Of one message.
    pub(crate) latency: (Duration, Duration),
    /// Of one sync of a log.
    pub(crate) slowest_sync: Duration,
    /// A snapshot after this much log.
    pub(crate) snapshot_log_bytes: u64,
    /// Between the end of one fault and the next.
    pub(crate) quiet: (u64, u64),
    /// Events that may wait for one watcher, before it has to catch up.
    pub(crate) watch_queue: usize,
}

impl Plan {
    /// Of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7e0e_0e57);
        let slow = Duration::from_millis([2, 5, 10, 30][rng.random_range(0..4)]);
        Self {
            seed,
            replicas: if rng.random_bool(0.2) { 5 } else { 3 },
            clocks: if rng.random_bool(0.2) { Clocks::Wild } else { Clocks::Promised },
            faults: !rng.random_bool(0.05),
            busy: Duration::from_secs(rng.random_range(12..30)),
            clients: rng.random_range(3..6),
            leases: rng.random_range(2..6),
            latency: (Duration::from_millis(1), slow),
            slowest_sync: Duration::from_millis([0, 1, 4, 10][rng.random_range(0..4)]),
            snapshot_log_bytes: [8 << 10, 32 << 10, 128 << 10, 64 << 20][rng.random_range(0..4)],
            quiet: [(50, 600), (300, 2_500)][rng.random_range(0..2)],
            watch_queue: [1, 2, 16, 1_024][rng.random_range(0..4)],
        }
    }

    /// A generator for one part of the run, independent of what the others draw.
    pub(crate) fn rng(&self, part: &str) -> StdRng {
        StdRng::seed_from_u64(self.derived(part))
    }

    /// A seed for one part of the run.
    pub(crate) fn derived(&self, part: &str) -> u64 {
        part.bytes()
            .fold(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }
}
