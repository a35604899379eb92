//! Shows what was measured.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

/// Of one scenario.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) what: String,
    /// Nanoseconds a round trip.
    pub(crate) latency: Histogram<u64>,
    /// Leases (or pairs) in each round trip.
    pub(crate) each: u64,
    pub(crate) time: Duration,
}

impl Measured {
    fn per_second(&self) -> f64 {
        (self.latency.len() * self.each) as f64 / self.time.as_secs_f64()
    }

    fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }
}

pub(crate) fn table(measured: &Measured) -> String {
    format!(
        "{}: {} round trips, {:.0} a second; p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        measured.what,
        measured.latency.len(),
        measured.per_second(),
        measured.ms(0.5),
        measured.ms(0.99),
        measured.ms(1.0)
    )
}

pub(crate) fn json(measured: &Measured) -> String {
    json!({
        "what": measured.what,
        "round_trips": measured.latency.len(),
        "per_second": measured.per_second(),
        "p50_ms": measured.ms(0.5),
        "p99_ms": measured.ms(0.99),
        "max_ms": measured.ms(1.0),
        "seconds": measured.time.as_secs_f64(),
    })
    .to_string()
}
