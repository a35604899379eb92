//! Connections, the same for both.

use std::time::Duration;

use anyhow::Context as _;
use tonic::transport::{Channel, Endpoint};

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A connection to `host:port`.
pub(crate) async fn channel(address: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).with_context(|| format!("--endpoints: {address:?} is not host:port"))?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(2)).initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    endpoint.connect().await.with_context(|| format!("cannot connect to {address} (--endpoints)"))
}

/// `count` connections, spread over the members.
pub(crate) async fn channels(endpoints: &[String], count: usize) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::with_capacity(count);
    for address in endpoints.iter().cycle().take(count) {
        channels.push(channel(address).await?);
    }
    Ok(channels)
}
