//! A node says that it is alive, until Ctrl-C; then it says goodbye. The `members` example shows who is there.
//! `cargo run -p tenure-client --example heartbeat -- NODE`

use tenure_client::{Client, Heartbeat, Pulse};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420".into());
    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    // Without an argument: this host's name.
    let node = std::env::args().nth(1).unwrap_or_default();
    let mut heartbeat = Heartbeat::builder(&client, "nodes", node).label("zone", "a").data("10.0.0.1:9000").start()?;
    // One for the whole loop: a signal between two of them would be missed.
    let mut ctrl_c = Box::pin(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            pulse = heartbeat.changed() => match pulse {
                Pulse::Waiting { holder, error: None } => println!("waiting for {holder}"),
                Pulse::Waiting { error: Some(error), .. } => println!("not heard: {error}"),
                Pulse::Beating { token } => println!("beating with token {token}"),
                Pulse::Lost(reason) => println!("lost: {reason}"),
                Pulse::Stopped(error) => return error.map_or(Ok(()), |error| Err(error.into())),
            },
            _ = &mut ctrl_c => break,
        }
    }
    heartbeat.stop().await?;
    Ok(())
}
