//! Who is alive, live, until Ctrl-C.
//! `cargo run -p tenure-client --example members -- zone=a`

use tenure_client::{Client, Condition, Members};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420".into());
    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    let selector = std::env::args().nth(1).unwrap_or_default();
    let mut members = Members::builder(&client, "nodes").selector(selector).open().await?;
    let mut snapshot = members.snapshot();
    // One for the whole loop: a signal between two of them would be missed.
    let mut ctrl_c = Box::pin(tokio::signal::ctrl_c());
    loop {
        println!("revision {}", snapshot.revision);
        if let Some(error) = &snapshot.error {
            println!("  out of date: {error}");
        }
        for member in &snapshot.members {
            match member.condition {
                Condition::Ready => println!("  {} is ready", member.name()),
                Condition::Unknown { since } => println!("  {} is unknown since {since:?}", member.name()),
                Condition::Left => println!("  {} has left", member.name()),
            }
        }
        tokio::select! {
            changed = members.changed() => snapshot = changed,
            _ = &mut ctrl_c => return Ok(()),
        }
    }
}
