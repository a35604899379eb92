//! What must be reached, as rows: which measurement on either side, which of its numbers, and how they must stand to each other.

use std::time::Duration;

use crate::{
    cluster::Target,
    scenario::{Case, Fanout, Size},
};

/// Of rows that are measured together; the last has no rows, but more pictures.
pub(super) const GROUPS: [&str; 13] =
    ["renew", "batch", "pair", "contend", "failover", "transfer", "storm", "expiry", "mass", "million", "watch", "reads", "plots"];

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    streams: usize,
    batchers: usize,
    clients: usize,
    waiters: usize,
    kills: usize,
    transfers: usize,
    expiries: usize,
    mass: usize,
    million: Size,
    fanout: Fanout,
    reads: usize,
    /// Streams, for the plots.
    pub(super) curve: &'static [usize],
}

impl Sizes {
    pub(super) const FULL: Self = Self {
        streams: 256,
        batchers: 16,
        clients: 64,
        waiters: 64,
        kills: 20,
        transfers: 20,
        expiries: 500,
        mass: 100_000,
        million: Size { leases: 1_000_000, every: Duration::from_secs(10), steady: Duration::from_secs(60), until_snapshots: true },
        fanout: Fanout { watchers: 10_000, of_everything: 0, rate: 1_000 },
        reads: 100_000,
        curve: &[1, 4, 16, 64, 256, 1024],
    };
    /// Of a smoke test.
    pub(super) const QUICK: Self = Self {
        streams: 32,
        batchers: 4,
        clients: 8,
        waiters: 8,
        kills: 1,
        transfers: 1,
        expiries: 20,
        mass: 1_000,
        million: Size { leases: 3_000, every: Duration::from_secs(1), steady: Duration::from_secs(1), until_snapshots: false },
        fanout: Fanout { watchers: 100, of_everything: 2, rate: 100 },
        reads: 500,
        curve: &[1, 8],
    };
}

/// Of the numbers of several rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Over {
    Median,
    Most,
}

/// How Tenure's number must be, by itself or beside etcd's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
    /// Only to be seen.
    None,
}

/// One number on one side.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) case: Case,
    pub(super) value: &'static str,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) tenure: Side,
    pub(super) etcd: Option<Side>,
    pub(super) over: Over,
    pub(super) goal: Goal,
}

impl Row {
    pub(super) fn side(&self, target: Target) -> Option<&Side> {
        match target {
            Target::Tenure => Some(&self.tenure),
            Target::Etcd => self.etcd.as_ref(),
        }
    }

    pub(super) fn cases(&self, target: Target) -> impl Iterator<Item = &Case> {
        self.side(target).into_iter().map(|side| &side.case)
    }
}

/// Connections of every load: few, and the same on both sides.
pub(super) const CONNECTIONS: usize = 16;

pub(super) fn all(sizes: &Sizes) -> Vec<Row> {
    let mut rows = renewals(sizes);
    rows.extend(holds(sizes));
    rows.extend(failovers(sizes));
    rows.extend(ends(sizes));
    rows.extend(many(sizes));
    rows.extend(readers(sizes));
    rows
}

/// As much load as there is, for as long as it takes to believe that it does no harm.
pub(super) fn soak() -> Case {
    Case::Renew { streams: 1024, connections: CONNECTIONS, leases: 1 }
}

fn row(group: &'static str, title: String, (unit, value): (&'static str, &'static str), case: Case, etcd: Option<Case>, goal: Goal) -> Row {
    let side = |case| Side { case, value };
    Row { group, title, unit, tenure: side(case), etcd: etcd.map(side), over: Over::Median, goal }
}

const RATE: (&str, &str) = ("/s", "per_second");
const CPU: (&str, &str) = ("µs", "cpu_us");

fn renewals(sizes: &Sizes) -> Vec<Row> {
    let &Sizes { streams, batchers, .. } = sizes;
    let renew = |leases| Case::Renew { streams, connections: CONNECTIONS, leases };
    let batch = |leases| Case::Renew { streams: batchers, connections: CONNECTIONS, leases };
    let keep_alive = Case::KeepAlive { streams, connections: CONNECTIONS };
    let one = format!("durable renewal, one lease a message, {streams} streams");
    vec![
        row("renew", format!("{one}, beside compare + put"), RATE, renew(1), Some(renew(1)), Goal::RatioAtLeast(7.0)),
        row("renew", format!("{one}, beside LeaseKeepAlive (not durable)"), RATE, renew(1), Some(keep_alive), Goal::RatioAtLeast(2.5)),
        row("renew", "server CPU of such a renewal, all three together".to_owned(), CPU, renew(1), Some(renew(1)), Goal::RatioAtMost(0.1)),
        row("batch", format!("durable renewal, 100 leases a message, {batchers} streams"), RATE, batch(100), Some(batch(100)), Goal::AtLeast(300_000.0)),
        row("batch", format!("durable renewal, 1,000 leases a message, {batchers} streams"), RATE, batch(1000), None, Goal::AtLeast(400_000.0)),
    ]
}

fn holds(sizes: &Sizes) -> Vec<Row> {
    let &Sizes { clients, waiters, .. } = sizes;
    let pair = |clients| Case::Pair { clients, connections: CONNECTIONS };
    let contend = |claim| Case::Contend { waiters, connections: CONNECTIONS, claim };
    let both = |case: Case| (case.clone(), Some(case));
    let ((one, one_etcd), (many, many_etcd), (hand, hand_etcd)) = (both(pair(1)), both(pair(clients)), both(contend(true)));
    let unclaimed = format!("without renewing it first, which no holder should do, {waiters} waiters");
    vec![
        row("pair", "acquire + release, 1 client, p50 of the pair".to_owned(), ("ms", "p50_ms"), one, one_etcd, Goal::RatioAtMost(0.45)),
        row("pair", format!("acquire + release, {clients} clients"), RATE, many, many_etcd, Goal::RatioAtLeast(5.0)),
        row("contend", format!("contended hand-over, {waiters} waiters"), RATE, hand, hand_etcd.clone(), Goal::RatioAtLeast(20.0)),
        row("contend", unclaimed, RATE, contend(false), hand_etcd, Goal::None),
    ]
}

fn failovers(sizes: &Sizes) -> Vec<Row> {
    let (kill, transfer) = (Case::Failover { times: sizes.kills }, Case::Transfer { times: sizes.transfers });
    let gap = |title: &str, value, goal| row("failover", title.to_owned(), ("ms", value), kill.clone(), Some(kill.clone()), goal);
    let planned = |title: &str, value, goal| row("transfer", title.to_owned(), ("ms", value), transfer.clone(), Some(transfer.clone()), goal);
    vec![
        gap("kill -9 of the raft leader: time without a write, median", "p50_ms", Goal::RatioAtMost(0.45)),
        Row { over: Over::Most, ..gap("the same, worst", "max_ms", Goal::RatioAtMost(0.6)) },
        planned("planned transfer: time without a write, median", "p50_ms", Goal::AtMost(30.0)),
        Row { over: Over::Most, ..planned("the same, worst", "max_ms", Goal::None) },
    ]
}

fn ends(sizes: &Sizes) -> Vec<Row> {
    let (one, mass, leases) = (Case::Expiry { times: sizes.expiries }, Case::Mass { leases: sizes.mass }, sizes.mass);
    // More would take etcd minutes.
    let (few, fewer) = (Case::Mass { leases: leases / 10 }, leases / 10);
    let storm = Case::Storm { leases };
    let all = format!("{leases} leases that end in one moment: until the last end");
    let others = "renewals of other holders meanwhile, p99".to_owned();
    vec![
        row("storm", format!("{leases} new leases"), RATE, storm.clone(), Some(storm), Goal::None),
        row(
            "expiry",
            "lateness of an expiry, idle, p99 (grant and delivery included)".to_owned(),
            ("ms", "p99_ms"),
            one.clone(),
            Some(one),
            Goal::AtMost(10.0),
        ),
        row("mass", all, ("ms", "all_ended_ms"), mass.clone(), None, Goal::AtMost(1_000.0)),
        row("mass", others, ("ms", "p99_ms"), mass.clone(), None, Goal::AtMost(250.0)),
        row("mass", format!("ends a second then; etcd: {fewer} leases"), ("/s", "ended_per_second"), mass, Some(few), Goal::None),
    ]
}

fn many(sizes: &Sizes) -> Vec<Row> {
    let Size { leases, every, .. } = sizes.million;
    let rate = leases as f64 / every.as_secs_f64();
    let of = |title: &str, unit, value, goal| row("million", format!("{leases} leases: {title}"), (unit, value), Case::Million(sizes.million), None, goal);
    vec![
        // Agents that are late catch up, so a little under is what a second's worth of messages makes of it.
        of(&format!("renewals when each is renewed every {} s", every.as_secs()), "/s", "renewed_per_second", Goal::AtLeast(rate * 0.99)),
        of("such a message, from when it was due, p99", "ms", "p99_ms", Goal::AtMost(100.0)),
        of("memory of a lease and replica", "bytes", "rss_bytes_per_lease", Goal::AtMost(500.0)),
        of("server CPU of a renewal, compared with 1,000 leases", "×", "cost_ratio", Goal::AtMost(1.5)),
        of("restart after kill -9 of all, until all are ready", "s", "restart_s", Goal::AtMost(10.0)),
        of("longest wait of a small renewal while snapshots are taken", "ms", "stall_ms", Goal::AtMost(100.0)),
    ]
}

fn readers(sizes: &Sizes) -> Vec<Row> {
    let (watch, reads, leases) = (Case::Fanout(sizes.fanout), Case::Reads { leases: sizes.reads }, sizes.reads);
    let Fanout { watchers, rate, .. } = sizes.fanout;
    let behind = format!("{watchers} watchers, each of one namespace in a thousand, {rate} changes/s: furthest behind");
    let kept = "renewals then, as a share of those without watchers".to_owned();
    let get = format!("get, among {leases} leases");
    let list = format!("all {leases} leases listed, in pages of 1,000, p50");
    vec![
        row("watch", behind, ("ms", "max_ms"), watch.clone(), Some(watch.clone()), Goal::AtMost(1_000.0)),
        row("watch", kept, ("×", "renewals_kept"), watch.clone(), Some(watch), Goal::AtLeast(0.8)),
        row("reads", get, RATE, reads.clone(), Some(reads.clone()), Goal::None),
        row("reads", list, ("ms", "list_p50_ms"), reads.clone(), Some(reads), Goal::None),
    ]
}
