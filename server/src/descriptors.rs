//! File descriptors: how many this process may have, and how many it has.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};

/// What a replica may count on; the machine's or a simulation's.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    /// This replica may have so many open at a time.
    pub limit: u64,
    /// How many the process has open now; `None` where that cannot be told.
    pub open: fn() -> Option<u64>,
}

impl Descriptors {
    /// Raises this process's soft limit to its hard one: the usual soft limit, 1,024, is for programs that use `select`.
    #[must_use]
    pub fn raised() -> Self {
        let before = getrlimit(Resource::Nofile);
        // Not every system takes what it names as its hard limit; then the soft one stays.
        let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: before.maximum, maximum: before.maximum });
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self { limit, open: || open_now().ok() }
    }

    /// For one of so many replicas in this process.
    #[must_use]
    pub fn shared_by(self, replicas: u64) -> Self {
        Self { limit: self.limit / replicas, ..self }
    }

    /// Where there is no limit, as in a simulation.
    #[must_use]
    pub fn boundless() -> Self {
        Self { limit: u64::MAX, open: || None }
    }
}

/// The one that this takes itself is not counted.
fn open_now() -> io::Result<u64> {
    Ok((std::fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_and_open_files_are_counted() {
        let descriptors = Descriptors::raised();
        assert_eq!(Some(descriptors.limit), getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)));
        let before = (descriptors.open)().expect("Linux says");
        assert!(before > 2 && before <= descriptors.limit);
        assert_eq!(descriptors.shared_by(2).limit, descriptors.limit / 2);
    }
}
