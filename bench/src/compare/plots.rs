//! Pictures of what the rows cannot say: how speed goes with the number of clients and of leases, and what a failover looks like.

use super::{
    Measured,
    rows::{CONNECTIONS, Sizes},
};
use crate::{
    cluster::Target,
    report::{Axis, Line, Plot},
    scenario::Case,
};

const BUCKET: f64 = 0.05;

/// What is measured for them alone.
pub(super) fn cases(sizes: &Sizes, target: Target) -> Vec<Case> {
    let of = |streams: &usize| kinds(target).map(move |kind| kind.case(*streams)).collect::<Vec<_>>();
    sizes.curve.iter().flat_map(of).collect()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Durable(Target),
    KeepAlive,
}

fn kinds(target: Target) -> impl Iterator<Item = Kind> {
    let all = [Kind::Durable(Target::Tenure), Kind::Durable(Target::Etcd), Kind::KeepAlive];
    all.into_iter().filter(move |kind| kind.target() == target)
}

impl Kind {
    fn target(self) -> Target {
        match self {
            Self::Durable(target) => target,
            Self::KeepAlive => Target::Etcd,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Durable(Target::Tenure) => "Tenure, durable",
            Self::Durable(Target::Etcd) => "etcd, compare + put",
            Self::KeepAlive => "etcd, keep-alive (not durable)",
        }
    }

    fn case(self, streams: usize) -> Case {
        match self {
            Self::Durable(_) => Case::Renew { streams, connections: CONNECTIONS, leases: 1 },
            Self::KeepAlive => Case::KeepAlive { streams, connections: CONNECTIONS },
        }
    }
}

/// Those that there is something to show in, by the names of their files.
pub(super) fn all(sizes: &Sizes, measured: &[Measured]) -> Vec<(&'static str, Plot)> {
    let mut plots = Vec::new();
    let log = |label| Axis { label, log: true };
    let plain = |label| Axis { label, log: false };
    for (file, title, value, label) in [
        ("throughput.svg", "Renewals, one lease a message", "per_second", "renewals a second"),
        ("p99.svg", "Renewals, one lease a message", "p99_ms", "p99, ms"),
        ("cpu.svg", "Renewals, one lease a message", "cpu_us", "CPU of all three members for each, µs"),
    ] {
        plots.push((file, Plot { title: title.to_owned(), x: log("streams"), y: log(label), lines: by_streams(sizes, measured, value) }));
    }
    let million = measured.iter().find(|one| matches!(one.case, Case::Million(_)));
    if let Some(figure) = million.map(|one| &one.figure) {
        let counts = figure.list("table_leases");
        let points = |name| counts.iter().copied().zip(figure.list(name).iter().copied()).collect();
        let cost = vec![Line { name: "Tenure, durable, 50 leases a message".to_owned(), points: points("table_cost_us") }];
        let title = "What a renewal costs among many leases".to_owned();
        plots.push(("cost.svg", Plot { title, x: log("leases"), y: plain("CPU of all three replicas for each, µs"), lines: cost }));
    }
    let title = "kill -9 of the raft leader at 0".to_owned();
    plots.push(("failover.svg", Plot { title, x: plain("s"), y: plain("writes acknowledged in 50 ms"), lines: failovers(measured) }));
    plots.retain(|(_, plot)| plot.lines.iter().any(|line| line.points.len() > 1));
    plots
}

fn by_streams(sizes: &Sizes, measured: &[Measured], value: &str) -> Vec<Line> {
    let all = [Target::Tenure, Target::Etcd].into_iter().flat_map(kinds);
    let line = |kind: Kind| {
        let of = |streams: usize| {
            let found = measured.iter().rev().find(|one| one.figure.target == kind.target() && one.case == kind.case(streams))?;
            Some((streams as f64, found.figure.value(value)?))
        };
        Line { name: kind.name().to_owned(), points: sizes.curve.iter().filter_map(|streams| of(*streams)).collect() }
    };
    all.map(line).filter(|line| !line.points.is_empty()).collect()
}

/// The first of each.
fn failovers(measured: &[Measured]) -> Vec<Line> {
    let mut lines = Vec::new();
    for target in [Target::Tenure, Target::Etcd] {
        let Some(found) = measured.iter().find(|one| one.figure.target == target && matches!(one.case, Case::Failover { .. })) else { continue };
        let times = found.figure.list("timeline_s");
        let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
        let buckets = (first / BUCKET).ceil() as i64..(last / BUCKET).floor() as i64;
        let count = |bucket: i64| times.iter().filter(|at| (*at / BUCKET).floor() as i64 == bucket).count();
        let points = buckets.map(|bucket| (bucket as f64 * BUCKET, count(bucket) as f64)).collect();
        lines.push(Line { name: target.to_string(), points });
    }
    lines
}
