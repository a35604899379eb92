//! One input, one verdict: no panic (in whatever thread), no more memory than the bytes are worth, no more time.

use std::{
    any::Any,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{clock, memory, targets::Target};

/// An input is a few kilobytes: what it makes a reader allocate must not be megabytes times that.
const MOST_MEMORY: usize = 64 << 20;
/// Of a processor's time. Builds without optimisation are twenty times slower.
const MOST_TIME: Duration = Duration::from_secs(5);

/// Why an input is a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where, or what of: the same for the same mistake.
    pub place: String,
    /// What was said.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// What panics say, by the hook; of all threads.
static SAID: Mutex<Vec<Violation>> = Mutex::new(Vec::new());

/// While an input runs.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// From now on panics are taken down instead of printed, while an input runs.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let otherwise = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !RUNNING.load(Relaxed) {
                return otherwise(info);
            }
            let place = info.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
            let message = words(info.payload());
            SAID.lock().unwrap_or_else(PoisonError::into_inner).push(Violation { place, message });
        }));
    });
}

fn words(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(without words)".to_owned())
}

/// Runs one input; whether the target took it for valid. Not for two threads at a time: panics of one would be taken for the other's.
///
/// # Errors
/// What it broke.
pub fn run(target: &Target, input: &[u8]) -> Result<bool, Violation> {
    listen();
    let before = clock::used();
    RUNNING.store(true, Relaxed);
    let (result, peak) = memory::peak_of(|| panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    RUNNING.store(false, Relaxed);
    let used = clock::used().saturating_sub(before);
    let said = std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(first) = said.into_iter().next() {
        return Err(first);
    }
    let too_much = |what: &str, message| Err(Violation { place: format!("{what} of {}", target.name), message });
    match result {
        Err(panic) => too_much("a panic", words(&*panic)),
        Ok(_) if peak > MOST_MEMORY => too_much("memory", format!("{peak} bytes for an input of {}", input.len())),
        Ok(_) if used > MOST_TIME => too_much("time", format!("{used:?} of a processor for an input of {} bytes", input.len())),
        Ok(taken) => Ok(taken),
    }
}
