//! Named places at which a test has this process die, with the cargo feature `failpoints`; without it, nothing.
//!
//! `TENURE_FAILPOINT=log_before_fsync:7` kills the process at the seventh passage as `kill -9` does: nothing is flushed, nothing is dropped,
//! nobody is told. No release has the feature.

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) const fn pass(_name: &str) {}

#[cfg(feature = "failpoints")]
pub(crate) use armed::pass;

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    struct Failpoint {
        name: String,
        passage: u64,
        passed: AtomicU64,
    }

    /// From the environment, once.
    fn armed() -> Option<&'static Failpoint> {
        static ARMED: OnceLock<Option<Failpoint>> = OnceLock::new();
        let read = || {
            let text = std::env::var("TENURE_FAILPOINT").ok()?;
            let parsed = text.split_once(':').and_then(|(name, passage)| Some((name.to_owned(), passage.parse().ok()?)));
            let (name, passage) = parsed.unwrap_or_else(|| panic!("TENURE_FAILPOINT={text} is not NAME:PASSAGE"));
            Some(Failpoint { name, passage, passed: AtomicU64::new(0) })
        };
        ARMED.get_or_init(read).as_ref()
    }

    pub(crate) fn pass(name: &str) {
        let Some(armed) = armed().filter(|armed| armed.name == name) else { return };
        if armed.passed.fetch_add(1, Ordering::Relaxed) + 1 == armed.passage {
            eprintln!("failpoint {name}: killed at passage {}", armed.passage);
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
            loop {
                std::thread::park();
            }
        }
    }
}
