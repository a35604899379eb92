//! A lock around a piece of work: waits for its turn, works, hands over.
//! `cargo run -p tenure-client --example lock`

use std::time::Duration;

use tenure_client::{Client, Step};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420".into());
    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    let mut asking = client.lease("nightly-report").duration(Duration::from_secs(5)).wait_for(Duration::from_secs(60)).ask()?;
    let lease = loop {
        match asking.next().await? {
            Step::Queued { position, lease } => println!("{} holds it; we are number {position} in the queue", lease.holder),
            Step::Held(lease) => break lease,
            Step::Denied(lease) => return Err(format!("{} still holds it", lease.holder).into()),
        }
    };
    println!("holding it with token {} for at least {:?}", lease.token(), lease.remaining());
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(2)) => println!("the work is done"),
        // Fires before anybody else can be granted the lease.
        reason = lease.lost() => println!("stop: {reason}"),
    }
    lease.release().await?;
    Ok(())
}
