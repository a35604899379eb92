//! Log lines of all replicas and clients, with the true time. A run must be the same with them and without, so nothing here draws a random number: no
//! hash map, whose seed would come from the run's own generator, and so not what `tracing-subscriber` has.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::clock::now;

/// Unless `RUST_LOG` says otherwise: a level, and others for targets that begin so.
const DEFAULT: &str = "debug,h2=info,hyper_util=info,tower=info,turmoil=info";

/// Begins to print.
///
/// # Errors
/// What is wanted makes no sense.
pub(crate) fn begin() -> anyhow::Result<()> {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| DEFAULT.into());
    let mut lines = Lines { otherwise: Level::INFO, targets: Vec::new(), spans: Mutex::default(), next: AtomicU64::new(1) };
    for part in wanted.split(',').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((target, level)) => lines.targets.push((target.to_owned(), level.parse()?)),
            None => lines.otherwise = part.parse()?,
        }
    }
    tracing::subscriber::set_global_default(lines)?;
    Ok(())
}

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

struct Lines {
    otherwise: Level,
    targets: Vec<(String, Level)>,
    /// How each begins a line; what is nobody's name has none.
    spans: Mutex<BTreeMap<u64, String>>,
    next: AtomicU64,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let of_target = self.targets.iter().find(|(target, _)| metadata.target().starts_with(target.as_str())).map(|(_, level)| level);
        metadata.level() <= of_target.unwrap_or(&self.otherwise)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = Text::default();
        // turmoil's, which has the name of the simulated host.
        if attributes.metadata().name() == "node" {
            attributes.record(&mut text);
            self.spans.lock().insert(id, text.0);
        }
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let spans = self.spans.lock();
        let whose = ENTERED.with_borrow(|entered| entered.iter().rev().find_map(|id| spans.get(id)).cloned()).unwrap_or_default();
        let metadata = event.metadata();
        println!("{:>12.3}{whose} {} {}:{}", now() as f64 / 1e6, metadata.level(), metadata.target(), text.0);
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, _: &Id) {
        ENTERED.with_borrow_mut(Vec::pop);
    }
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" | "name" => write!(self.0, " {value:?}"),
            other => write!(self.0, " {other}={value:?}"),
        };
    }
}
