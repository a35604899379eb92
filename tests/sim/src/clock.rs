//! Clocks of simulated machines: they drift, and jump when told. True time is turmoil's.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;

/// True time in nanoseconds; 0 outside of a simulated host.
pub(crate) fn now() -> u64 {
    nanoseconds(turmoil::sim_elapsed().unwrap_or_default())
}

/// Of a length of time.
pub(crate) fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// One machine's clocks; they go on while its processes are down.
#[derive(Clone)]
pub(crate) struct MachineClock {
    inner: Arc<Mutex<Clocks>>,
}

#[derive(Clone, Copy)]
struct Clocks {
    /// CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW.
    both: [Line; 2],
    /// Milliseconds.
    wall_offset: i64,
}

/// A clock that runs evenly since it was last touched.
#[derive(Clone, Copy)]
struct Line {
    /// True time of the touch.
    since: u64,
    /// Its reading then.
    reading: u64,
    /// Parts per billion too fast.
    drift: i64,
}

impl Line {
    fn at(&self, now: u64) -> u64 {
        let elapsed = i128::from(now.saturating_sub(self.since));
        let own = elapsed + elapsed * i128::from(self.drift) / 1_000_000_000;
        self.reading.saturating_add(u64::try_from(own.max(0)).unwrap_or(u64::MAX))
    }

    /// When it will show this, if nobody touches it.
    fn when(&self, reading: u64) -> u64 {
        let own = i128::from(reading.saturating_sub(self.reading));
        self.since.saturating_add(u64::try_from(own * 1_000_000_000 / (1_000_000_000 + i128::from(self.drift))).unwrap_or(u64::MAX))
    }

    fn touch(&mut self, now: u64) {
        self.reading = self.at(now);
        self.since = now;
    }
}

impl MachineClock {
    /// `drifts`: parts per billion of the two clocks; `origin`: their readings at the beginning.
    pub(crate) fn new(drifts: [i64; 2], origin: u64, wall_offset: i64) -> Self {
        let line = |drift, reading| Line { since: 0, reading, drift };
        let both = [line(drifts[0], origin), line(drifts[1], origin / 2)];
        Self { inner: Arc::new(Mutex::new(Clocks { both, wall_offset })) }
    }

    /// Runs at another rate from now on.
    pub(crate) fn drift(&self, now: u64, drifts: [i64; 2]) {
        let mut clocks = self.inner.lock();
        for (line, drift) in clocks.both.iter_mut().zip(drifts) {
            line.touch(now);
            line.drift = drift;
        }
    }

    /// Both elapsed-time clocks, and the wall's (milliseconds), go forward at once.
    pub(crate) fn jump(&self, now: u64, by: [Duration; 2], wall: i64) {
        let mut clocks = self.inner.lock();
        for (line, by) in clocks.both.iter_mut().zip(by) {
            line.touch(now);
            line.reading = line.reading.saturating_add(nanoseconds(by));
        }
        clocks.wall_offset += wall;
    }

    fn both(&self) -> [u64; 2] {
        let (clocks, now) = (*self.inner.lock(), now());
        clocks.both.map(|line| line.at(now))
    }

    /// True time at which the first of the two shows its part of this reading.
    pub(crate) fn when(&self, reading: tenure_client::clock::Readings) -> u64 {
        let clocks = *self.inner.lock();
        clocks.both[0].when(reading.boottime_ns).min(clocks.both[1].when(reading.monotonic_raw_ns))
    }
}

impl fmt::Debug for MachineClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineClock")
    }
}

impl tenure_server::clock::Clock for MachineClock {
    fn readings(&self) -> tenure_server::clock::Readings {
        let [boottime_ns, monotonic_raw_ns] = self.both();
        tenure_server::clock::Readings { boottime_ns, monotonic_raw_ns }
    }

    fn wall_unix_ms(&self) -> u64 {
        let offset = self.inner.lock().wall_offset;
        (1_700_000_000_000 + now() / 1_000_000).saturating_add_signed(offset)
    }
}

impl tenure_client::clock::Clock for MachineClock {
    fn readings(&self) -> tenure_client::clock::Readings {
        let [boottime_ns, monotonic_raw_ns] = self.both();
        tenure_client::clock::Readings { boottime_ns, monotonic_raw_ns }
    }
}
