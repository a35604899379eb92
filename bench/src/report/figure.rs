//! One measurement: named numbers, a histogram, and how both are said to people and to programs.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::{cluster::Target, load::Loaded};

/// See the module. Names say the unit, and are the keys of the JSON.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) target: Target,
    /// Nanoseconds.
    pub(crate) latency: Option<Histogram<u64>>,
    pub(crate) values: Vec<(&'static str, f64)>,
    pub(crate) lists: Vec<(&'static str, Vec<f64>)>,
}

/// What is shown of a histogram.
const QUANTILES: [(&str, f64); 4] = [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("max_ms", 1.0)];

impl Figure {
    pub(crate) fn new(what: String, target: Target) -> Self {
        Self { what, target, latency: None, values: Vec::new(), lists: Vec::new() }
    }

    /// Things that happened, and how long each took.
    pub(crate) fn of_times(what: String, target: Target, latency: Histogram<u64>) -> Self {
        Self { latency: Some(latency), ..Self::new(what, target) }
    }

    /// Round trips of so many operations each.
    pub(crate) fn of_load(what: String, target: Target, loaded: &Loaded, each: u64) -> Self {
        let mut figure = Self::of_times(what, target, loaded.latency.clone());
        let operations = (loaded.latency.len() * each) as f64;
        figure.values.push(("per_second", operations / loaded.time.as_secs_f64()));
        figure.values.push(("seconds", loaded.time.as_secs_f64()));
        if let Some(usage) = &loaded.usage {
            let per = |all: f64| all / operations.max(1.0);
            figure.values.push(("cpu_us", per(usage.cpu().as_secs_f64() * 1e6)));
            figure.values.push(("generator_cpu_us", per(usage.generator.as_secs_f64() * 1e6)));
            figure.values.push(("written_bytes", per(usage.written as f64)));
            figure.values.extend(usage.syncs.map(|syncs| ("syncs", per(syncs))));
            figure.values.extend(usage.entries.map(|entries| ("log_entries", per(entries))));
            let share = |used: &std::time::Duration| used.as_secs_f64() / usage.time.as_secs_f64() * 100.0;
            figure.lists.push(("member_cpu_percent", usage.members.iter().map(share).collect()));
        }
        figure
    }

    /// One of its numbers, those of the histogram included.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        if let (Some((_, quantile)), Some(latency)) = (QUANTILES.iter().find(|(known, _)| *known == name), &self.latency) {
            return Some(latency.value_at_quantile(*quantile) as f64 / 1e6);
        }
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// One of its lists; empty if it has no such one.
    pub(crate) fn list(&self, name: &str) -> &[f64] {
        self.lists.iter().find(|(known, _)| *known == name).map_or(&[], |(_, values)| values)
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let mut parts = Vec::new();
        let value = |name: &str| self.value(name);
        if let Some(latency) = &self.latency {
            let n = latency.len();
            parts.push(value("per_second").map_or_else(|| format!("{n} times"), |rate| format!("{n} round trips, {rate:.0} a second")));
            let quantiles: Vec<String> =
                QUANTILES.iter().filter_map(|(name, _)| Some(format!("{} {:.2}", name.trim_end_matches("_ms"), value(name)?))).collect();
            parts.push(format!("{} ms", quantiles.join(", ")));
        }
        if let (Some(cpu), Some(generator)) = (value("cpu_us"), value("generator_cpu_us")) {
            parts.push(format!("{cpu:.1} µs of CPU on all members for each ({generator:.1} in the generator)"));
        }
        if let Some(written) = value("written_bytes") {
            let syncs = value("syncs").map_or_else(String::new, |syncs| format!(", {syncs:.3} fsyncs"));
            parts.push(format!("{written:.0} bytes to disk{syncs}"));
        }
        let told = ["per_second", "seconds", "cpu_us", "generator_cpu_us", "written_bytes", "syncs", "log_entries"];
        parts.extend(self.values.iter().filter(|(name, _)| !told.contains(name)).map(|(name, value)| format!("{name} {value:.1}")));
        format!("{}: {}: {}", self.target, self.what, parts.join("; "))
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("target".to_owned(), json!(self.target.to_string()));
        map.insert("what".to_owned(), json!(self.what));
        if let Some(latency) = &self.latency {
            map.insert("n".to_owned(), json!(latency.len()));
            map.extend(QUANTILES.iter().map(|(name, _)| ((*name).to_owned(), json!(self.value(name)))));
        }
        map.extend(self.values.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
        map.extend(self.lists.iter().map(|(name, values)| ((*name).to_owned(), json!(values))));
        Value::Object(map)
    }
}
