//! Where the replicas are: one lazily made HTTP/2 connection each, and which of them is in use now.
//!
//! Any replica takes any call, so one good connection is enough; it is kept until it fails.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::transport::{Channel, Endpoint};

/// A silent server is noticed after [`PING_EVERY`] + [`PING_ANSWER`], also below calls that may rightly be silent for long.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_ANSWER: Duration = Duration::from_secs(2);

/// How a connection is made. The default is lazily, over the machine's TCP.
#[derive(Clone)]
pub(crate) struct Dial(pub(crate) Arc<dyn Fn(&Endpoint) -> Channel + Send + Sync>);

impl Default for Dial {
    fn default() -> Self {
        Self(Arc::new(Endpoint::connect_lazy))
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<(String, Endpoint, OnceLock<Channel>)>,
    dial: Dial,
    current: AtomicUsize,
}

impl Endpoints {
    /// `host:port` or `http://host:port`.
    pub(crate) fn new(addresses: &[String], connect_timeout: Duration, start: usize, dial: Dial) -> Result<Self, String> {
        if addresses.is_empty() {
            return Err("no endpoints: give at least one host:port".into());
        }
        let all = addresses
            .iter()
            .map(|address| {
                let bare = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
                let port = bare.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok()).flatten());
                if bare.contains("://") || bare.contains('/') || port.is_none_or(|port| port == 0) {
                    return Err(format!("endpoint {address:?} is not host:port"));
                }
                let endpoint = Endpoint::from_shared(format!("http://{bare}"))
                    .map_err(|error| format!("endpoint {address:?} is not host:port: {error}"))?
                    .connect_timeout(connect_timeout)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(PING_EVERY)
                    .keep_alive_timeout(PING_ANSWER)
                    .keep_alive_while_idle(true)
                    .user_agent(concat!("tenure-client/", env!("CARGO_PKG_VERSION")))
                    .map_err(|error| format!("endpoint {address:?}: {error}"))?;
                Ok((bare.to_owned(), endpoint, OnceLock::new()))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let current = AtomicUsize::new(start % all.len());
        Ok(Self { all, dial, current })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn address(&self, index: usize) -> &str {
        &self.all[index % self.all.len()].0
    }

    /// The one in use. Must be called on a tokio runtime.
    pub(crate) fn current(&self) -> (usize, Channel) {
        let index = self.current.load(Ordering::Relaxed) % self.all.len();
        let (_, endpoint, channel) = &self.all[index];
        (index, channel.get_or_init(|| (self.dial.0)(endpoint)).clone())
    }

    /// Moves on to the next, unless another call has done so already.
    pub(crate) fn failed(&self, index: usize) {
        let _ = self.current.compare_exchange(index, (index + 1) % self.all.len(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(addresses: &[&str]) -> Result<Endpoints, String> {
        Endpoints::new(&addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), Duration::from_secs(1), 0, Dial::default())
    }

    #[test]
    fn what_is_no_address_is_named() {
        for bad in ["", "localhost", "127.0.0.1:port", "https://a:1", ":7400", "a:0", "a:1/path", "a b:1"] {
            let error = endpoints(&["127.0.0.1:7400", bad]).unwrap_err();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
        assert_eq!(endpoints(&[]).unwrap_err(), "no endpoints: give at least one host:port");
        assert_eq!(endpoints(&["http://[::1]:7400/"]).unwrap().address(0), "[::1]:7400");
    }

    #[test]
    fn calls_that_fail_together_move_on_once() {
        let endpoints = endpoints(&["a:1", "b:1", "c:1"]).unwrap();
        endpoints.failed(0);
        endpoints.failed(0);
        assert_eq!(endpoints.current.load(Ordering::Relaxed), 1);
        endpoints.failed(1);
        endpoints.failed(2);
        assert_eq!(endpoints.current.load(Ordering::Relaxed), 0);
    }
}
