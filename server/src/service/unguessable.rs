//! Numbers that nobody outside can guess, whatever of them was seen: request ids, page tokens.

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// `StdRng` is meant for cryptography: what it made tells nothing of what it makes next.
#[derive(Debug)]
pub(super) struct Unguessable(Mutex<StdRng>);

impl Unguessable {
    /// `seed` must be random, and never told.
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    pub(super) fn next(&self) -> u128 {
        self.0.lock().random()
    }
}
