//! One of many processes leads. Start it several times, then kill -9, SIGTERM or Ctrl-C the one that leads:
//! `cargo run -p tenure-client --example leader_election -- LEASE_SECONDS`

use std::time::Duration;

use tenure_client::{CancellationToken, Client, LeaderElection};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420".into());
    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    let seconds = std::env::args().nth(1).map_or(Ok(15), |seconds| seconds.parse())?;
    // What others need to find the elected leader; here just the process id.
    let data = format!("pid {}", std::process::id());
    let election = LeaderElection::builder(&client, "default", "example").lease_duration(Duration::from_secs(seconds)).data(data).build()?;
    println!("{} campaigns", election.identity());

    let cancel = CancellationToken::new();
    let (interrupted, mut terminate) = (cancel.clone(), signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! { _ = tokio::signal::ctrl_c() => {}, _ = terminate.recv() => {} }
        interrupted.cancel();
    });
    let work = |stop: CancellationToken, token: u64| async move {
        println!("leading with token {token}: put it into every write");
        stop.cancelled().await;
        println!("stopping");
    };
    let told = |leader: &tenure_client::Leader| println!("{} leads ({})", leader.holder, String::from_utf8_lossy(&leader.data));
    let finished = election.run(cancel, work, || println!("stopped"), told).await?;
    println!("{} is done: {finished:?}", election.identity());
    Ok(())
}
