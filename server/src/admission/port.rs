//! The connections of one port: who is let in, and who has to go for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use futures::{Stream, StreamExt as _, task::AtomicWaker};
use parking_lot::Mutex;

use super::{Admitted, Busy, Rules, Seldom, source::Source};
use crate::net::{Conn, Incoming};

/// See the module. Shared by the accepting loop, the connections and the metrics.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) rules: Rules,
    table: Mutex<Table>,
    /// Connections whose descriptors are open, those that were told to go included.
    open: AtomicUsize,
    /// Numbers what happens, so that what was idle longest can be told without a clock.
    events: AtomicU64,
    /// Bytes of unfinished requests.
    unfinished: AtomicUsize,
    closed: Seldom,
}

#[derive(Debug, Default)]
struct Table {
    sources: BTreeMap<Source, OfSource>,
    taken: usize,
    next_id: u64,
    /// Nobody is let in any more.
    closing: bool,
}

/// What one source has.
#[derive(Debug, Default)]
struct OfSource {
    places: BTreeMap<u64, Arc<Place>>,
    unfinished: Arc<AtomicUsize>,
}

/// What is known of one connection.
#[derive(Debug, Default)]
pub(super) struct Place {
    source: Option<Source>,
    calls: AtomicUsize,
    /// The event by which it was last busy.
    pub(super) last_busy: AtomicU64,
    evicted: AtomicBool,
    waker: AtomicWaker,
    unfinished: AtomicUsize,
    unfinished_of_source: Arc<AtomicUsize>,
}

impl Place {
    fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// Whether it has to go; if not, `waker` is woken when it has to.
    pub(super) fn is_evicted_or_wakes(&self, waker: &std::task::Waker) -> bool {
        self.waker.register(waker);
        self.is_evicted()
    }

    pub(super) fn has_calls(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }
}

/// One connection, for the calls on it.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(super) port: Arc<Port>,
    pub(super) place: Arc<Place>,
}

/// Counts as a call under way until it is dropped.
#[derive(Debug)]
pub(crate) struct CallUnderWay(Caller);

impl Caller {
    /// Where the connection comes from.
    pub(crate) fn source(&self) -> Option<Source> {
        self.place.source.clone()
    }

    /// The connection is not idle while what this returns lives.
    pub(crate) fn begin_call(&self) -> CallUnderWay {
        self.place.calls.fetch_add(1, Ordering::Relaxed);
        CallUnderWay(self.clone())
    }

    /// Counts bytes of an unfinished request.
    ///
    /// # Errors
    /// What has as many already, in words; nothing is counted then.
    pub(super) fn take_bytes(&self, bytes: usize) -> Result<(), &'static str> {
        let budget = self.port.rules.unfinished;
        let most = [("connection", budget.connection), ("source address", budget.source), ("port", budget.port)];
        for (at, (counter, (whose, most))) in self.counters().into_iter().zip(most).enumerate() {
            if counter.fetch_add(bytes, Ordering::Relaxed) + bytes > most {
                for counter in self.counters().into_iter().take(at + 1) {
                    counter.fetch_sub(bytes, Ordering::Relaxed);
                }
                return Err(whose);
            }
        }
        Ok(())
    }

    pub(super) fn give_bytes_back(&self, bytes: usize) {
        if bytes > 0 {
            for counter in self.counters() {
                counter.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    fn counters(&self) -> [&AtomicUsize; 3] {
        [&self.place.unfinished, &self.place.unfinished_of_source, &self.port.unfinished]
    }
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.0.port.is_busy(&self.0.place);
        self.0.place.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Its place in the table, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) caller: Caller,
    source: Source,
    id: u64,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let port = &self.caller.port;
        port.table.lock().remove(&self.source, self.id);
        port.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Table {
    fn remove(&mut self, source: &Source, id: u64) {
        let Some(of_source) = self.sources.get_mut(source) else { return };
        if of_source.places.remove(&id).is_some() {
            self.taken -= 1;
        }
        if of_source.places.is_empty() {
            self.sources.remove(source);
        }
    }

    /// The connection of this source that has been idle longest.
    fn idle_of(&self, source: &Source, busy: Busy) -> Option<u64> {
        let idle = self.sources.get(source)?.places.iter().filter(|(_, place)| busy == Busy::WithBytes || !place.has_calls());
        idle.min_by_key(|(id, place)| (place.last_busy.load(Ordering::Relaxed), **id)).map(|(id, _)| *id)
    }

    /// Whose place a newcomer takes: of the source that has most connections, of those that have an idle one.
    fn idlest(&self, busy: Busy) -> Option<(Source, u64)> {
        let mut sources: Vec<(&Source, usize)> = self.sources.iter().map(|(source, its)| (source, its.places.len())).collect();
        sources.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        sources.into_iter().find_map(|(source, _)| self.idle_of(source, busy).map(|id| (source.clone(), id)))
    }
}

/// What became of a newcomer.
pub(super) enum Verdict {
    /// It is in; another connection had to go for it, or not.
    In { pass: Pass, evicted: Option<Source> },
    /// There is no room, and nothing idle.
    Full { source: Source, of_source: usize, in_all: usize },
    /// Nobody is let in any more.
    Closing,
}

impl Port {
    pub(crate) fn new(rules: Rules) -> Arc<Self> {
        Arc::new(Self {
            rules,
            table: Mutex::default(),
            open: AtomicUsize::new(0),
            events: AtomicU64::new(1),
            unfinished: AtomicUsize::new(0),
            closed: Seldom::default(),
        })
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Bytes of requests of which a part has arrived.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// Ends every connection, those that are still to come as well.
    pub(crate) fn end_all(&self) {
        let mut table = self.table.lock();
        table.closing = true;
        table.sources.values().flat_map(|its| its.places.values()).for_each(|place| place.evict());
    }

    pub(super) fn is_busy(&self, place: &Place) {
        place.last_busy.store(self.events.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn judge(self: &Arc<Self>, peer: &str) -> Verdict {
        let source = Source::of(peer);
        let mut table = self.table.lock();
        if table.closing {
            return Verdict::Closing;
        }
        let of_source = table.sources.get(&source).map_or(0, |its| its.places.len());
        let evicted = if of_source >= self.rules.per_source {
            table.idle_of(&source, self.rules.busy).map(|id| (source.clone(), id))
        } else if table.taken >= self.rules.connections {
            table.idlest(self.rules.busy)
        } else {
            None
        };
        if let Some((source, id)) = &evicted {
            if let Some(place) = table.sources.get(source).and_then(|its| its.places.get(id)) {
                place.evict();
            }
            table.remove(source, *id);
        } else if of_source >= self.rules.per_source || table.taken >= self.rules.connections {
            return Verdict::Full { source, of_source, in_all: table.taken };
        }
        let id = table.next_id;
        table.next_id += 1;
        table.taken += 1;
        let its = table.sources.entry(source.clone()).or_default();
        let place = Arc::new(Place { source: Some(source.clone()), unfinished_of_source: Arc::clone(&its.unfinished), ..Place::default() });
        self.is_busy(&place);
        its.places.insert(id, Arc::clone(&place));
        self.open.fetch_add(1, Ordering::Relaxed);
        Verdict::In { pass: Pass { caller: Caller { port: Arc::clone(self), place }, source, id }, evicted: evicted.map(|(source, _)| source) }
    }

    /// Lets a connection in, or closes it. Whoever had to go for it has gone when this returns, if the runtime has one thread.
    pub(crate) async fn admit(self: &Arc<Self>, conn: Conn) -> Option<Admitted> {
        let port = self.rules.port;
        match self.judge(&conn.peer) {
            Verdict::In { pass, evicted } => {
                if let Some(source) = evicted {
                    if let Some(times) = self.closed.now() {
                        tracing::info!(port, %source, times, "closed an idle connection: another needed its place");
                    }
                    // Its descriptor is to be free before another connection is accepted.
                    tokio::task::yield_now().await;
                }
                Some(Admitted::new(conn, pass))
            }
            Verdict::Full { source, of_source, in_all } => {
                if let Some(times) = self.closed.now() {
                    let (most, per_source) = (self.rules.connections, self.rules.per_source);
                    tracing::warn!(port, %source, of_source, per_source, in_all, most, times, "refused a connection: there are as many as may be, all in use");
                }
                None
            }
            Verdict::Closing => None,
        }
    }

    /// Those of `incoming` that are let in.
    pub(crate) fn guard(self: &Arc<Self>, incoming: Incoming) -> impl Stream<Item = std::io::Result<Admitted>> + Send + Unpin + 'static {
        let port = Arc::clone(self);
        let admitted = incoming.filter_map(move |conn| {
            let port = Arc::clone(&port);
            async move {
                match conn {
                    Ok(conn) => port.admit(conn).await.map(Ok),
                    Err(error) => Some(Err(error)),
                }
            }
        });
        Box::pin(admitted)
    }
}
