//! A node that says that it is alive, in the kubelet's shape: one lease under the node's own name, renewed every quarter of its duration.
//!
//! It must never fight another process of the same name for the lease: one that was taken over waits until that one is gone.

use std::time::Duration;

use tenure_proto::v1::EndReason;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    asking::{LeaseBuilder, Step, host_name},
    client::Client,
    error::Error,
    hold::LostReason,
    lease::Lease,
};

/// After an error of the cluster, until the next attempt; jittered.
const PAUSE: Duration = Duration::from_secs(1);

/// Settings of a [`Heartbeat`]. The defaults are the kubelet's.
#[derive(Clone, Debug)]
#[must_use]
pub struct HeartbeatBuilder {
    lease: LeaseBuilder,
    duration: Duration,
    every: Option<Duration>,
}

/// What is known of a heartbeat.
#[derive(Clone, Debug)]
pub enum Pulse {
    /// Not heard yet: nobody has answered, or another process has the name (then with its holder). With the last error, if there was one.
    Waiting {
        /// Who has the lease; empty if that is not known.
        holder: String,
        /// The last failure.
        error: Option<Error>,
    },
    /// Others see this node as ready. With the token of the hold.
    Beating {
        /// Of the present hold; a new one after each loss.
        token: u64,
    },
    /// Others see, or will soon see, this node as gone. It is trying to come back.
    Lost(LostReason),
    /// [`Heartbeat::stop`] was called, or the settings are wrong (then with the error).
    Stopped(Option<Error>),
}

/// A heartbeat in the background. Dropping it stops it without a word: others see the node as unknown when the lease runs out.
#[derive(Debug)]
pub struct Heartbeat {
    stop: CancellationToken,
    pulse: watch::Receiver<Pulse>,
    task: Option<tokio::task::JoinHandle<Result<(), Error>>>,
}

impl HeartbeatBuilder {
    /// How long after the last heartbeat others say that the node's state is unknown. Default 40 s.
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Time between heartbeats, give or take 4 %. Default: a quarter of the duration (10 s); at most a third.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = Some(interval);
        self
    }

    /// Default: the name of the lease. A restarted process of the same name has its lease back at once.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.lease = self.lease.holder(holder);
        self
    }

    /// Published while it beats: an address, say. At most 4 KiB.
    pub fn data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.lease = self.lease.data(data);
        self
    }

    /// For [`Members`](crate::Members) to select by; set when the first heartbeat creates the lease.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.lease = self.lease.label(key, value);
        self
    }

    /// How long the cluster remembers a node that is gone. Default 1 h.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.lease = self.lease.retention(retention);
        self
    }

    /// Starts the background task. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the durations do not go together. Everything else is told by [`Heartbeat::pulse`].
    pub fn start(self) -> Result<Heartbeat, Error> {
        let every = self.every.unwrap_or(self.duration / 4);
        let lease = self.lease.duration(self.duration).renew_every(every).jitter(0.04);
        lease.clone().ask()?;
        let stop = CancellationToken::new();
        let (told, pulse) = watch::channel(Pulse::Waiting { holder: String::new(), error: None });
        let task = Task { lease, duration: self.duration, stop: stop.clone(), told, fenced: false };
        Ok(Heartbeat { stop, pulse, task: Some(tokio::spawn(task.run())) })
    }
}

impl Heartbeat {
    /// Settings first. An empty name is this host's; an empty namespace is `default`.
    pub fn builder(client: &Client, namespace: impl Into<String>, name: impl Into<String>) -> HeartbeatBuilder {
        let name = Some(name.into()).filter(|name| !name.is_empty()).unwrap_or_else(host_name);
        let lease = client.lease(&name).namespace(namespace).holder(name).reclaim(true).wait_forever();
        HeartbeatBuilder { lease, duration: Duration::from_secs(40), every: None }
    }

    /// How it is now.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.borrow().clone()
    }

    /// Waits for the next change of [`Heartbeat::pulse`] and returns it. After [`Pulse::Stopped`] it returns that at once.
    pub async fn changed(&mut self) -> Pulse {
        // An error says that the task is gone, and its last word stays.
        let _ = self.pulse.changed().await;
        self.pulse.borrow_and_update().clone()
    }

    /// Stops and releases: others see at once that the node has left.
    ///
    /// # Errors
    /// As [`Lease::release`]; the lease then runs out by itself.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        match self.task.take() {
            Some(task) => task.await.unwrap_or(Ok(())),
            None => Ok(()),
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            // After stop() it is not ours any more.
            task.abort();
        }
    }
}

struct Task {
    lease: LeaseBuilder,
    duration: Duration,
    stop: CancellationToken,
    told: watch::Sender<Pulse>,
    /// Another process took the name over.
    fenced: bool,
}

impl Task {
    async fn run(mut self) -> Result<(), Error> {
        let stop = self.stop.clone();
        loop {
            let lease = tokio::select! {
                () = stop.cancelled() => break,
                lease = self.acquire() => match lease {
                    Ok(lease) => lease,
                    Err(error) => {
                        self.told.send_replace(Pulse::Stopped(Some(error.clone())));
                        return Err(error);
                    }
                },
            };
            self.told.send_replace(Pulse::Beating { token: lease.token() });
            tokio::select! {
                () = stop.cancelled() => {
                    let released = lease.release().await;
                    self.told.send_replace(Pulse::Stopped(None));
                    return released;
                }
                reason = lease.lost() => {
                    self.fenced = matches!(reason, LostReason::Ended { reason: EndReason::Reclaimed, .. });
                    self.told.send_replace(Pulse::Lost(reason));
                }
            }
        }
        self.told.send_replace(Pulse::Stopped(None));
        Ok(())
    }

    /// Goes on until it is held, or the call is wrong.
    async fn acquire(&self) -> Result<Lease, Error> {
        loop {
            let mut asking = self.lease.clone().reclaim(!self.fenced).ask()?;
            let error = loop {
                match asking.next().await {
                    Ok(Step::Held(lease)) => return Ok(lease),
                    Ok(Step::Queued { lease, .. } | Step::Denied(lease)) => {
                        self.told.send_if_modified(|pulse| {
                            let same = matches!(pulse, Pulse::Waiting { holder, .. } if *holder == lease.holder);
                            if !same {
                                *pulse = Pulse::Waiting { holder: lease.holder.clone(), error: None };
                            }
                            !same
                        });
                    }
                    Err(error) => break error,
                }
            };
            if matches!(error, Error::Misuse(_)) {
                return Err(error);
            }
            tracing::warn!(%error, "no heartbeat; trying again");
            self.told.send_replace(Pulse::Waiting { holder: String::new(), error: Some(error) });
            tokio::time::sleep(PAUSE.min(self.duration / 10)).await;
        }
    }
}
