//! The signals that a long-running command hears. What was ignored when it started (nohup, a shell's background job) stays ignored.

use std::{fs, future::poll_fn, io, task::Poll};

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Each caught signal; others do what they always do.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    /// Needs a runtime.
    pub(crate) fn listen(which: &[Signal]) -> io::Result<Self> {
        let ignored = ignored();
        let heard = which.iter().filter(|signal| ignored >> (signal.as_raw() - 1) & 1 == 0);
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

/// One bit for each; nothing when the kernel does not tell.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
