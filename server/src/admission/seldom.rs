//! Something that may happen a thousand times a second is said once a second.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Sleep;

const EVERY: Duration = Duration::from_secs(1);

/// Says whether it is time for another line. Within a runtime.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: Option<Pin<Box<Sleep>>>,
    passed_over: u64,
}

impl Seldom {
    /// `Some`: say it, and that it happened so many times since it was last said.
    pub(crate) fn now(&self) -> Option<u64> {
        let mut state = self.0.lock();
        state.passed_over += 1;
        let early = state.next.as_mut().is_some_and(|next| next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        if early {
            return None;
        }
        state.next = Some(Box::pin(tokio::time::sleep(EVERY)));
        Some(std::mem::take(&mut state.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_said_once_a_second_with_its_number() {
        let seldom = Seldom::default();
        assert_eq!(seldom.now(), Some(1));
        for _ in 0..20 {
            assert_eq!(seldom.now(), None);
        }
        tokio::time::sleep(EVERY * 2).await;
        assert_eq!(seldom.now(), Some(21));
    }
}
