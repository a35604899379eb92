//! The signals that a command hears, whatever it was started with.
//!
//! A parent hands down which signals are ignored and which are blocked, and both survive exec. What was ignored stays ignored (`nohup`, a shell's
//! background job), except SIGCHLD: where that is ignored the kernel keeps no exit code, so that no wrapper can tell how its command has ended. What
//! was blocked and is needed here is let through, since a signal that never comes cannot end anything.

use std::{fs, future::poll_fn, io, process, sync::mpsc, task::Poll};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Named};
use rustix::process::{Signal, getpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::fail::signalled;

/// Each of them asks this process to end.
pub(crate) const ENDING: &[Signal] = &[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Must reach this process.
const NEEDED: &[Named] =
    &[Named::SIGINT, Named::SIGTERM, Named::SIGHUP, Named::SIGQUIT, Named::SIGUSR1, Named::SIGUSR2, Named::SIGTSTP, Named::SIGCONT, Named::SIGCHLD];

/// The signals that were blocked when this process began, for the command that it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inherited(SigSet);

impl Inherited {
    /// Lets through what this process needs. To be called before there is another thread, as each has a mask of its own, taken from its maker's.
    pub(crate) fn set_aside() -> io::Result<Self> {
        let needed: SigSet = NEEDED.iter().copied().collect();
        Ok(Self(needed.thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?))
    }

    /// Runs `spawn` as if what was blocked at the start were blocked still, so that the new process begins as it would have without us; but it hears
    /// TERM, which tells it that its lease ends, and SIGCHLD, without which programs never learn that their children have ended.
    pub(crate) fn lend<T>(self, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut mask = self.0;
        mask.remove(Named::SIGTERM);
        mask.remove(Named::SIGCHLD);
        let ours = mask.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let spawned = spawn();
        ours.thread_set_mask()?;
        spawned
    }
}

/// Each caught signal; others do what they always do.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    /// Needs a runtime.
    pub(crate) fn listen(which: &[Signal]) -> io::Result<Self> {
        let ignored = ignored();
        let heard = which.iter().filter(|signal| **signal == Signal::CHILD || ignored >> (signal.as_raw() - 1) & 1 == 0);
        heard.map(|&which| Ok((which, signal(SignalKind::from_raw(which.as_raw()))?))).collect::<io::Result<_>>().map(Self)
    }

    /// The next one. Cancel-safe. Several of a kind may be one.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let came = self.0.iter_mut().find_map(|(which, stream)| matches!(stream.poll_recv(context), Poll::Ready(Some(()))).then_some(*which));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// For commands that leave signals to the kernel, which has no default for the first process of a container: that one only gets what it catches. A
/// thread of its own, so that it ends also while the rest waits for somebody to read its output.
pub(crate) fn end_the_first_process() -> io::Result<()> {
    if !getpid().is_init() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tell, ready) = mpsc::channel();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listening = Signals::listen(ENDING);
            let failed = listening.as_ref().err().map(io::Error::kind);
            let _ = tell.send(failed);
            if let Ok(mut signals) = listening {
                let signal = signals.next().await;
                process::exit(signalled(signal).into());
            }
        });
    });
    match ready.recv() {
        Ok(Some(failed)) => Err(failed.into()),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// One bit for each; nothing when the kernel does not tell.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
