//! Giving up what was asked for: a place in the queue, or a grant that came too late. Never without a word for long, and never against who insists on
//! leaving at once.

use std::{future::Future, pin::pin, time::Duration};

use rustix::process::Signal;
use tenure_client::Error;
use tokio::time::sleep;

use crate::{
    print::note,
    signals::{ENDING, Signals},
};

/// A cluster that is there has answered by then.
const A_MOMENT: Duration = Duration::from_millis(250);

/// Waits until the cluster knows, or until another signal says not to. `left` says what becomes of it otherwise.
pub(crate) async fn give_up(place: &str, left: &str, giving_up: impl Future<Output = Result<(), Error>>, signals: &mut Signals) {
    let mut giving_up = pin!(giving_up);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            result = &mut giving_up => {
                if let Err(error) = result {
                    note(&format!("the place in the queue of {place} could not be given up ({error}); {left}"));
                }
                return;
            }
            signal = signals.next() => match signal {
                signal if ENDING.contains(&signal) => {
                    note(&format!("left without giving up the place in the queue of {place}; {left}"));
                    return;
                }
                Signal::TSTP => crate::child::suspend_ourselves(),
                _ => {}
            },
            () = sleep(A_MOMENT), if !told => {
                told = true;
                note(&format!("giving up the place in the queue of {place}; press Ctrl-C again to leave it"));
            }
        }
    }
}
