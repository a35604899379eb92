//! The only file of this crate that makes randomness: jitter, the endpoint to start with, request ids. Never anything that must be secret.

use std::{sync::Mutex, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// One generator for a client and all its clones.
#[derive(Debug)]
pub(crate) struct Random(Mutex<StdRng>);

impl Random {
    /// The same seed makes the same choices, in tests and simulators.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// From the operating system.
    pub(crate) fn from_os() -> Self {
        Self(Mutex::new(StdRng::from_os_rng()))
    }

    fn with<T>(&self, f: impl FnOnce(&mut StdRng) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Below `bound`; 0 when that is 0.
    pub(crate) fn below(&self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.with(|rng| rng.random_range(0..bound)) }
    }

    /// Between half of `delay` and all of it, so that clients that failed together do not come back together.
    pub(crate) fn jitter(&self, delay: Duration) -> Duration {
        delay.mul_f64(self.with(|rng| rng.random_range(0.5..=1.0)))
    }

    /// `length` give or take `share` of it.
    pub(crate) fn around(&self, length: Duration, share: f64) -> Duration {
        if share <= 0.0 { length } else { length.mul_f64((1.0 + self.with(|rng| rng.random_range(-share..=share))).max(0.0)) }
    }

    /// A fresh name for one attempt.
    pub(crate) fn request_id(&self) -> String {
        uuid::Builder::from_random_bytes(self.with(|rng| rng.random())).into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        assert_eq!(a.request_id(), b.request_id());
        assert_eq!(a.jitter(Duration::from_secs(1)), b.jitter(Duration::from_secs(1)));
        assert_ne!(a.request_id(), a.request_id());
    }

    #[test]
    fn jitter_stays_between_half_and_all() {
        let random = Random::seeded(1);
        for _ in 0..1_000 {
            let delay = random.jitter(Duration::from_millis(100));
            assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&delay), "{delay:?}");
        }
    }
}
