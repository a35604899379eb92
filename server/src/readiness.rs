//! The one answer to "may a client be sent here?", for gRPC health and `/readyz` alike.
//!
//! Not before what was on disk is recovered (a [`Readiness`] is followed only then), not without a raft leader that is known, and not while going down.

use tokio::sync::watch;

use crate::consensus::Leadership;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    /// `None`: ready; otherwise why not.
    state: watch::Sender<Option<&'static str>>,
}

impl Readiness {
    pub(crate) fn new() -> Self {
        Self { state: watch::Sender::new(Some("recovering")) }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state.borrow().is_none()
    }

    pub(crate) fn why_not(&self) -> Option<&'static str> {
        *self.state.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<&'static str>> {
        self.state.subscribe()
    }

    /// For good: nothing makes a replica that goes down ready again.
    pub(crate) fn going_down(&self) {
        self.state.send_replace(Some(GOING_DOWN));
    }

    /// Follows what is known of the raft leader, until the replica stops.
    pub(crate) async fn follow(&self, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let reason = leadership.borrow_and_update().raft_leader.is_none().then_some("no raft leader is known");
            self.state.send_if_modified(|state| {
                let changes = *state != reason && *state != Some(GOING_DOWN);
                if changes {
                    *state = reason;
                }
                changes
            });
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }
}

const GOING_DOWN: &str = "going down";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_recovered_and_led_and_not_going_down() {
        let readiness = Readiness::new();
        assert_eq!(readiness.why_not(), Some("recovering"));
        let leadership = watch::Sender::new(Leadership::default());
        let following = tokio::spawn({
            let (readiness, leadership) = (readiness.clone(), leadership.subscribe());
            async move { readiness.follow(leadership).await }
        });
        let mut seen = readiness.subscribe();
        seen.wait_for(|state| *state == Some("no raft leader is known")).await.expect("followed");
        leadership.send_modify(|known| known.raft_leader = Some(2));
        seen.wait_for(Option::is_none).await.expect("followed");
        leadership.send_modify(|known| known.raft_leader = None);
        seen.wait_for(Option::is_some).await.expect("followed");
        readiness.going_down();
        leadership.send_modify(|known| known.raft_leader = Some(1));
        drop(leadership);
        following.await.expect("ends with its source");
        assert_eq!(readiness.why_not(), Some("going down"));
    }
}
