//! Shows what was measured.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Of one scenario.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) what: String,
    /// Nanoseconds of each.
    pub(crate) latency: Histogram<u64>,
    pub(crate) rate: Option<Rate>,
}

/// Of a closed loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Leases (or pairs) in each round trip.
    pub(crate) each: u64,
    pub(crate) time: Duration,
}

/// Shares of a core, in per cent.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) what: String,
    pub(crate) client: f64,
    /// Each of those that were started here; none of those that ran already.
    pub(crate) replicas: Vec<f64>,
    /// How long it was watched.
    pub(crate) time: Duration,
}

/// One line of the report.
#[derive(Debug)]
pub(crate) enum Line {
    Times(Measured),
    Load(Load),
}

impl Measured {
    fn per_second(&self) -> Option<f64> {
        self.rate.map(|rate| (self.latency.len() * rate.each) as f64 / rate.time.as_secs_f64())
    }

    fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }
}

impl Line {
    pub(crate) fn table(&self) -> String {
        match self {
            Self::Times(measured) => {
                let (n, rate) = (measured.latency.len(), measured.per_second());
                let count = rate.map_or_else(|| format!("{n} times"), |rate| format!("{n} round trips, {rate:.0} a second"));
                let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| measured.ms(quantile));
                format!("{}: {count}; p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms", measured.what)
            }
            Self::Load(Load { what, client, replicas, .. }) => {
                let each: Vec<_> = replicas.iter().map(|share| format!("{share:.1} %")).collect();
                let total = client + replicas.iter().sum::<f64>();
                match replicas.is_empty() {
                    true => format!("{what}: client {client:.1} % of a core (the replicas are not ours to measure: --start)"),
                    false => format!("{what}: client {client:.1} % of a core, replicas {}, together {total:.1} %", each.join(" ")),
                }
            }
        }
    }

    pub(crate) fn json(&self) -> String {
        let value: Value = match self {
            Self::Times(measured) => json!({
                "what": measured.what,
                "n": measured.latency.len(),
                "per_second": measured.per_second(),
                "p50_ms": measured.ms(0.5),
                "p99_ms": measured.ms(0.99),
                "max_ms": measured.ms(1.0),
                "seconds": measured.rate.map(|rate| rate.time.as_secs_f64()),
            }),
            Self::Load(Load { what, client, replicas, time }) => json!({
                "what": what,
                "client_cpu_percent": client,
                "replica_cpu_percent": replicas,
                "together_cpu_percent": (!replicas.is_empty()).then(|| client + replicas.iter().sum::<f64>()),
                "seconds": time.as_secs_f64(),
            }),
        };
        value.to_string()
    }
}
