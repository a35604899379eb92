//! One of many processes leads. Start it several times, then kill or Ctrl-C the one that leads:
//! `TENURE_ENDPOINTS=127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420 cargo run -p tenure-client --example leader_election`

use tenure_client::{CancellationToken, Client, LeaderElection};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420".into());
    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    // What others need to find the elected leader; here just the process id.
    let data = format!("pid {}", std::process::id());
    let election = LeaderElection::builder(&client, "default", "example").data(data).build()?;
    let me = election.identity().to_owned();
    println!("{me} campaigns");

    let cancel = CancellationToken::new();
    let interrupted = cancel.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        interrupted.cancel();
    });
    let work = |stop: CancellationToken, token: u64| async move {
        println!("leading with token {token}: put it into every write");
        stop.cancelled().await;
        println!("stopping");
    };
    let told = |leader: &tenure_client::Leader| println!("{} leads ({})", leader.holder, String::from_utf8_lossy(&leader.data));
    let finished = election.run(cancel, work, || println!("stopped"), told).await?;
    println!("{me} is done: {finished:?}");
    Ok(())
}
