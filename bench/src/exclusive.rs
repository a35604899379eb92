//! One lease that many want: who has it, as the generator sees it, and how long it takes to change hands.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use anyhow::{bail, ensure};

use crate::clock::{self, Moment};

/// Shared by all who want it. Two at a time, or a token that does not grow, is an error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exclusive(Rc<State>);

#[derive(Debug, Default)]
struct State {
    holder: Cell<Option<usize>>,
    token: Cell<u64>,
    given_up: RefCell<Option<Moment>>,
}

impl Exclusive {
    /// `who` has it now, by a token that nobody told. How long it took since the one before began to give it up.
    pub(crate) fn enter_untold(&self, who: usize) -> anyhow::Result<Duration> {
        if let Some(other) = self.0.holder.replace(Some(who)) {
            bail!("{who} was granted what {other} holds");
        }
        Ok(self.0.given_up.take().map_or(Duration::ZERO, Moment::passed))
    }

    /// Likewise by this token.
    pub(crate) fn enter(&self, who: usize, token: u64) -> anyhow::Result<Duration> {
        let before = self.0.token.replace(token);
        ensure!(before < token, "{who} was granted token {token} after {before}");
        self.enter_untold(who)
    }

    /// Just before `who` says that it does not want it any more.
    pub(crate) fn leave(&self, who: usize) -> anyhow::Result<()> {
        ensure!(self.0.holder.take() == Some(who), "{who} gives up what it does not have");
        *self.0.given_up.borrow_mut() = Some(clock::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_a_time_and_old_tokens_are_noticed() {
        let lease = Exclusive::default();
        lease.enter(1, 10).expect("nobody has it");
        lease.enter(2, 11).expect_err("1 has it");
        let lease = Exclusive::default();
        lease.enter(1, 10).expect("nobody has it");
        lease.leave(1).expect("has it");
        lease.leave(1).expect_err("has it no more");
        lease.enter(2, 10).expect_err("an old token");
    }
}
