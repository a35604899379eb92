//! Why a lock is not enough, and what is: a holder that was paused writes late, and the file refuses, because a larger token was there.
//! `cargo run -p tenure-client --example fencing`

use std::time::Duration;

use tenure_client::{Client, FencedError, FencedWriter};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420".into());
    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    let path = std::env::temp_dir().join("tenure-fencing-example");
    let report = FencedWriter::new(&path);

    let first = client.lease("report").duration(Duration::from_secs(2)).acquire().await?;
    report.write(first.token(), b"by the first")?;
    // From here on nothing renews it: as if its process had been paused with its eyes on an old answer.
    let old_token = first.token();
    drop(first);

    let second = client.lease("report").duration(Duration::from_secs(2)).acquire().await?;
    report.write(second.token(), b"by the second")?;
    match report.write(old_token, b"by the first, late") {
        Err(FencedError::Stale { token, seen }) => println!("refused: token {token}, but {seen} was here"),
        other => return Err(format!("the late write was not refused: {other:?}").into()),
    }
    println!("{} says: {}", path.display(), std::fs::read_to_string(&path)?);
    second.release().await?;
    Ok(())
}
