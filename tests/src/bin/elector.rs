//! A candidate in a process of its own, for tests to kill, stop and cut off. Appends a line to a file for every moment at which it believed to
//! lead: `TOKEN NANOSECONDS` of CLOCK_BOOTTIME, so that the moments of all processes of a machine compare.
//!
//! `elector ENDPOINTS NAME LEASE_MS FILE`; resigns at SIGTERM.

use std::{fs::OpenOptions, io::Write as _, time::Duration};

use anyhow::Context as _;
use tenure_client::{Client, LeaderElection};
use tenure_tests::clock;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut arg = |what| args.next().with_context(|| format!("{what} is missing"));
    let (endpoints, name) = (arg("ENDPOINTS")?, arg("NAME")?);
    let lease = Duration::from_millis(arg("LEASE_MS")?.parse()?);
    let mut file = OpenOptions::new().create(true).append(true).open(arg("FILE")?)?;
    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    let election = LeaderElection::builder(&client, "default", name).lease_duration(lease).build()?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let leadership = tokio::select! {
            elected = election.campaign() => elected?,
            _ = terminate.recv() => return Ok(()),
        };
        loop {
            // Read first: whatever pauses this process between the two can only make the believed time look shorter, and what is believed later
            // than the deadline would still show.
            let at = clock::now();
            if !leadership.is_leader() {
                break;
            }
            writeln!(file, "{} {at}", leadership.token())?;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
                _ = terminate.recv() => {
                    leadership.resign().await?;
                    return Ok(());
                }
            }
        }
    }
}
