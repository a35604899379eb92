//! Clocks that jump while a process runs, by libfaketime. Where it is not installed, tests say so and pass.
//!
//! What it does to us: it stands in for libc's `clock_gettime`, which std's `SystemTime` and `Instant` (tokio's timers, openraft's elections) go
//! through. `tenured` and the SDK measure leases with CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW asked of the kernel directly (rustix), which no library
//! can fake: a jump of those takes a [`tenure_client::clock::Clock`] of one's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// The clocks of the processes that were started with [`Faketime::env`].
#[derive(Debug)]
pub struct Faketime {
    library: PathBuf,
    file: PathBuf,
}

/// Which clocks jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jumps {
    /// The wall clock, as when somebody sets it.
    Wall,
    /// CLOCK_MONOTONIC too, so that every timer is due at once. No machine does that; a broken hypervisor might.
    Timers,
}

/// Where it is installed.
pub fn library() -> anyhow::Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let library = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    library.context("libfaketime is not installed (Debian: apt-get install faketime)")
}

impl Faketime {
    /// The right time for now. An error when libfaketime is not installed.
    pub fn new(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let faketime = Self { library: library()?, file: dir.join(format!("faketime-{name}")) };
        faketime.jump(0)?;
        Ok(faketime)
    }

    /// For the processes whose clocks are to be faked.
    #[must_use]
    pub fn env(&self, jumps: Jumps) -> Vec<(String, String)> {
        let monotonic = if jumps == Jumps::Wall { "1" } else { "0" };
        [
            ("LD_PRELOAD", self.library.to_string_lossy().as_ref()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_string_lossy().as_ref()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", monotonic),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// From now on they are this many seconds ahead of the true time, or behind it.
    pub fn jump(&self, seconds: i64) -> anyhow::Result<()> {
        self.tell(&format!("{seconds:+}\n"))
    }

    /// From now on they run at this rate.
    pub fn rate(&self, rate: f64) -> anyhow::Result<()> {
        self.tell(&format!("+0 x{rate}\n"))
    }

    fn tell(&self, text: &str) -> anyhow::Result<()> {
        // Renamed into place: nobody reads a half.
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, text)?;
        Ok(fs::rename(fresh, &self.file)?)
    }
}
