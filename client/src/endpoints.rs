//! Where the replicas are: one lazily made HTTP/2 connection each, and which of them is in use now.
//!
//! Any replica takes any call, so one good connection is enough; it is kept until it fails. What was given to the builder is never forgotten; what
//! was learned (`discovery.rs`) comes and goes. An endpoint is known by a number that no other ever has.

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Notify};
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

/// A silent server is noticed after [`PING_EVERY`] + [`PING_ANSWER`], also below calls that may rightly be silent for long.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_ANSWER: Duration = Duration::from_secs(2);

/// Forgotten endpoints whose address is kept for messages about calls that are still under way there.
const REMEMBERED: usize = 32;

/// How a connection is made, as a caller wants it.
type MakeChannel = dyn Fn(&Endpoint) -> Channel + Send + Sync;

/// How a connection is made. The default is lazily, over the machine's TCP, to the addresses of a name in turns.
#[derive(Clone, Default)]
pub(crate) struct Dial(pub(crate) Option<Arc<MakeChannel>>);

impl Dial {
    /// `turn` says which of the addresses that a name has is tried first.
    fn channel(&self, endpoint: &Endpoint, turn: &Arc<AtomicUsize>, within: Duration) -> Channel {
        if let Some(make) = &self.0 {
            return make(endpoint);
        }
        let turn = Arc::clone(turn);
        endpoint.connect_with_connector_lazy(service_fn(move |uri: Uri| connect(uri, turn.load(Ordering::Relaxed), within)))
    }
}

/// Tries the addresses of a name one after the other. A name may stand for all replicas (a headless service), of which one may take connections
/// and never answer: so each failure of the endpoint makes another address the first.
async fn connect(uri: Uri, turn: usize, within: Duration) -> io::Result<TokioIo<TcpStream>> {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in tokio::net::lookup_host((host, uri.port_u16().unwrap_or_default())).await? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let Some(first) = turn.checked_rem(addresses.len()) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
    };
    addresses.rotate_left(first);
    // One that does not answer at all leaves time for the others.
    let each = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut failed = io::Error::from(io::ErrorKind::TimedOut);
    for address in addresses {
        match tokio::time::timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(TokioIo::new(stream));
            }
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}

#[derive(Debug)]
pub(crate) struct Endpoints {
    places: Mutex<Places>,
    dial: Dial,
    connect_timeout: Duration,
    failures: Arc<Notify>,
}

#[derive(Debug)]
struct Places {
    /// Tried in this order, around. Never empty.
    all: Vec<Place>,
    /// Of the one in use, in `all`.
    at: usize,
    next_id: usize,
    forgotten: VecDeque<(usize, String)>,
}

#[derive(Debug)]
struct Place {
    id: usize,
    address: String,
    endpoint: Endpoint,
    channel: Arc<OnceLock<Channel>>,
    /// Which address of its name comes first. `None`: it is an address.
    turn: Option<Arc<AtomicUsize>>,
    /// To the builder.
    given: bool,
    /// It failed, or no server says that it is there: only when there is no other.
    avoided: bool,
}

impl Place {
    fn new(id: usize, address: &str, connect_timeout: Duration, given: bool) -> Result<Self, String> {
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
        let host = bare.rsplit_once(':').map_or(bare, |(host, _)| host);
        let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let turn = (!is_address).then(Arc::default);
        Ok(Self { id, address: bare.to_owned(), endpoint, channel: Arc::default(), turn, given, avoided: false })
    }

    /// The next connection is a new one, to another address of the name if it has several. False if this is no name.
    fn take_turns(&mut self) -> bool {
        let Some(turn) = &self.turn else { return false };
        turn.fetch_add(1, Ordering::Relaxed);
        self.channel = Arc::default();
        true
    }
}

impl Endpoints {
    /// `host:port` or `http://host:port`.
    pub(crate) fn new(addresses: &[String], connect_timeout: Duration, start: usize, dial: Dial) -> Result<Self, String> {
        if addresses.is_empty() {
            return Err("no endpoints: give at least one host:port".into());
        }
        let all = addresses.iter().enumerate().map(|(id, address)| Place::new(id, address, connect_timeout, true));
        let all = all.collect::<Result<Vec<_>, String>>()?;
        let places = Places { at: start % all.len(), next_id: all.len(), all, forgotten: VecDeque::new() };
        Ok(Self { places: Mutex::new(places), dial, connect_timeout, failures: Arc::default() })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.places().all.len()
    }

    /// For messages; a few that were forgotten are still known.
    pub(crate) fn address(&self, id: usize) -> String {
        let places = self.places();
        let known = places.all.iter().find(|place| place.id == id).map(|place| &place.address);
        let known = known.or_else(|| places.forgotten.iter().find(|(gone, _)| *gone == id).map(|(_, address)| address));
        known.cloned().unwrap_or_else(|| "a former endpoint".to_owned())
    }

    /// Of all, the given ones first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.places().all.iter().map(|place| place.address.clone()).collect()
    }

    /// Of the one in use.
    pub(crate) fn current_address(&self) -> String {
        let places = self.places();
        places.all[places.at].address.clone()
    }

    /// The one in use. Must be called on a tokio runtime.
    pub(crate) fn current(&self) -> (usize, Channel) {
        let (id, endpoint, turn, channel) = {
            let places = self.places();
            let place = &places.all[places.at];
            if let Some(channel) = place.channel.get() {
                return (place.id, channel.clone());
            }
            (place.id, place.endpoint.clone(), place.turn.clone().unwrap_or_default(), Arc::clone(&place.channel))
        };
        // Not under the lock: how it is made may be the caller's code.
        (id, channel.get_or_init(|| self.dial.channel(&endpoint, &turn, self.connect_timeout)).clone())
    }

    /// Moves on to the next that is not avoided, unless another call has done so already.
    pub(crate) fn failed(&self, id: usize) {
        self.places().failed(id);
        self.failures.notify_one();
    }

    /// Told after each [`Endpoints::failed`].
    pub(crate) fn failures(&self) -> Arc<Notify> {
        Arc::clone(&self.failures)
    }

    /// A connection of its own to try an address with, if that is one. Must be called on a tokio runtime.
    pub(crate) fn to_try(&self, address: &str) -> Option<Channel> {
        Place::new(0, address, self.connect_timeout, false).ok().map(|place| self.dial.channel(&place.endpoint, &Arc::default(), self.connect_timeout))
    }

    /// These work and are wanted, the rest of what was learned is not: forgets it, unless it is in use. What was given stays, as a last resort.
    pub(crate) fn learned(&self, live: &[String]) {
        let mut places = self.places();
        for address in live {
            if !places.all.iter().any(|place| place.address == *address)
                && let Ok(place) = Place::new(places.next_id, address, self.connect_timeout, false)
            {
                places.next_id += 1;
                places.all.push(place);
            }
        }
        let in_use = places.all[places.at].id;
        let wanted = |place: &Place| place.given || place.id == in_use || live.contains(&place.address);
        let (kept, gone): (Vec<Place>, Vec<Place>) = std::mem::take(&mut places.all).into_iter().partition(wanted);
        places.all = kept;
        places.forgotten.extend(gone.into_iter().map(|place| (place.id, place.address)));
        let too_many = places.forgotten.len().saturating_sub(REMEMBERED);
        places.forgotten.drain(..too_many);
        places.at = places.all.iter().position(|place| place.id == in_use).unwrap_or_default();
        for place in &mut places.all {
            place.avoided = !live.contains(&place.address);
        }
    }
}

impl Places {
    fn failed(&mut self, id: usize) {
        if self.all[self.at].id != id {
            return;
        }
        self.all[self.at].avoided = true;
        if self.all.iter().all(|place| place.avoided) {
            self.all.iter_mut().for_each(|place| place.avoided = place.id == id);
        }
        let before = self.at;
        let around = (1..=self.all.len()).map(|step| (self.at + step) % self.all.len());
        self.at = around.clone().find(|at| !self.all[*at].avoided).unwrap_or(self.at);
        if self.all[before].take_turns() && self.at == before {
            // It stays in use, so it gets another number: what else fails on the old connection says nothing of the new one.
            let place = &mut self.all[before];
            self.forgotten.push_back((place.id, place.address.clone()));
            place.id = self.next_id;
            self.next_id += 1;
            let too_many = self.forgotten.len().saturating_sub(REMEMBERED);
            self.forgotten.drain(..too_many);
        }
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
        assert_eq!(endpoints(&["http://[::1]:7400/"]).unwrap().current_address(), "[::1]:7400");
    }

    #[test]
    fn calls_that_fail_together_move_on_once() {
        let endpoints = endpoints(&["a:1", "b:1", "c:1"]).unwrap();
        endpoints.failed(0);
        endpoints.failed(0);
        assert_eq!(endpoints.current_address(), "b:1");
        endpoints.failed(1);
        endpoints.failed(2);
        assert_eq!(endpoints.current_address(), "a:1");
    }

    #[test]
    fn name_that_fails_is_asked_at_its_next_address_and_an_address_is_not() {
        let turn = |endpoints: &Endpoints| endpoints.places().all[0].turn.as_ref().map(|turn| turn.load(Ordering::Relaxed));
        let alone = endpoints(&["all.example:1"]).unwrap();
        alone.failed(0);
        alone.failed(0);
        assert_eq!(turn(&alone), Some(1), "calls that fail together on one connection count once");
        assert_eq!(alone.address(0), "all.example:1");
        alone.failed(1);
        assert_eq!(turn(&alone), Some(2));
        for address in ["127.0.0.1:1", "[::1]:1"] {
            assert_eq!(turn(&endpoints(&[address]).unwrap()), None);
        }
    }

    #[test]
    fn alone_it_stays_in_use_however_often_it_fails() {
        let endpoints = endpoints(&["a:1"]).unwrap();
        (0..3).for_each(|_| endpoints.failed(0));
        assert_eq!(endpoints.current_address(), "a:1");
    }

    fn learn(endpoints: &Endpoints, live: &[&str]) {
        endpoints.learned(&live.iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_learned_is_tried_first_and_what_was_given_never_forgotten() {
        let endpoints = endpoints(&["a:1", "b:1"]).unwrap();
        learn(&endpoints, &["c:1", "d:1", "no address"]);
        assert_eq!(endpoints.addresses(), ["a:1", "b:1", "c:1", "d:1"]);
        assert_eq!(endpoints.current_address(), "a:1", "it works, and nobody has said otherwise");
        let mut order = Vec::new();
        for id in [0, 2, 3, 0, 1, 2] {
            endpoints.failed(id);
            order.push(endpoints.current_address());
        }
        assert_eq!(order, ["c:1", "d:1", "a:1", "b:1", "c:1", "d:1"], "the given ones only when no other is left");
        learn(&endpoints, &[]);
        assert_eq!(endpoints.addresses(), ["a:1", "b:1", "d:1"], "d is in use");
        endpoints.failed(3);
        learn(&endpoints, &["a:1"]);
        assert_eq!(endpoints.addresses(), ["a:1", "b:1"]);
    }

    #[test]
    fn an_endpoint_that_was_forgotten_is_not_mistaken_for_another() {
        let endpoints = endpoints(&["a:1"]).unwrap();
        learn(&endpoints, &["b:1"]);
        learn(&endpoints, &["c:1"]);
        assert_eq!((endpoints.address(1), endpoints.address(2)), ("b:1".into(), "c:1".into()));
        endpoints.failed(0);
        endpoints.failed(1);
        assert_eq!(endpoints.current_address(), "c:1", "a late failure at b says nothing of c");
        for n in 0..100 {
            learn(&endpoints, &["c:1", &format!("x:{}", n + 1)]);
        }
        assert_eq!(endpoints.address(1), "a former endpoint");
        assert_eq!(endpoints.len(), 3);
    }
}
