//! What leases cost: resident memory each, renewals a second, and how long apply stops for a snapshot.
//!
//! `cargo run --release -p tenure-lease --example footprint -- 1000000`
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::{fs, io, sync::Arc, time::Instant};

use tenure_lease::{Acquire, Command, Entry, LeaseKey, LeaseTable, LeaseTime, Limits, RaftLeaderId, Renew, RenewItem, SessionId, UnixMillis};

const BATCH: usize = 1000;

fn apply(table: &mut LeaseTable, now: u64, commands: Vec<Command>) -> tenure_lease::Applied {
    let entry = Entry { proposer: RaftLeaderId::default(), stamp: LeaseTime(now), wall: UnixMillis(now), commands };
    table.apply(RaftLeaderId::default(), entry, false)
}

fn acquire(number: usize) -> Command {
    Command::Acquire(Box::new(Acquire {
        key: LeaseKey::trusted("default", format!("node-{number:08}")),
        holder: format!("node-{number:08}").into(),
        duration_ms: 40_000,
        request_id: format!("request-{number}").into(),
        wait_ms: 0,
        reclaim: false,
        holder_data: Arc::default(),
        session: SessionId(0),
        retention_ms: 3_600_000,
        labels: Arc::default(),
        annotations: Arc::default(),
    }))
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Renews random leases in entries of 1,000; returns renewals a second.
fn renew(table: &mut LeaseTable, tokens: &[u64], rounds: usize) -> f64 {
    let mut at = 1_usize;
    let mut took = 0.0;
    for _ in 0..rounds {
        let items = (0..BATCH)
            .map(|_| {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                RenewItem { token: tokens[(at >> 33) % tokens.len()], duration_ms: None, key: None }
            })
            .collect();
        let now = table.clock().0 + 1;
        let start = Instant::now();
        std::hint::black_box(apply(table, now, vec![Command::Renew(Renew { items })]));
        took += start.elapsed().as_secs_f64();
    }
    (rounds * BATCH) as f64 / took
}

fn main() {
    let leases: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let before = resident_bytes();
    let mut table = LeaseTable::new();
    apply(&mut table, 0, vec![Command::Bootstrap { counter_start: 1 << 50, limits: Limits::default() }]);
    let mut tokens = Vec::with_capacity(leases);
    let start = Instant::now();
    for first in (0..leases).step_by(BATCH) {
        let applied = apply(&mut table, 1, (first..(first + BATCH).min(leases)).map(acquire).collect());
        tokens.extend(applied.events.iter().map(|event| event.revision));
    }
    let took = start.elapsed().as_secs_f64();
    let bytes = resident_bytes() - before - tokens.len() * 8;
    println!("{leases} leases: {} B resident each, {:.0} acquires/s", bytes / leases, leases as f64 / took);
    println!("renewals/s: {:.0}", renew(&mut table, &tokens, 2000));

    let start = Instant::now();
    let frozen = table.freeze();
    println!("freeze: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    println!("renewals/s while frozen: {:.0}", renew(&mut table, &tokens, 2000));
    let mut bytes = Vec::new();
    let start = Instant::now();
    frozen.write_to(&mut bytes).expect("a Vec takes it all");
    println!("snapshot: {} B a lease, written in {:.2} s", bytes.len() / leases, start.elapsed().as_secs_f64());
    drop(frozen);
    let start = Instant::now();
    let restored = LeaseTable::restore(&mut io::Cursor::new(bytes)).expect("what was written can be read");
    println!("restored in {:.2} s", start.elapsed().as_secs_f64());
    assert_eq!(restored.revision(), table.freeze().revision() - 2_000_000);

    let now = table.clock().0 + 10_000;
    let start = Instant::now();
    apply(&mut table, now, Vec::new());
    println!("idle tick: {:.2} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let mut entries = 0;
    while apply(&mut table, now + 100_000, Vec::new()).more_expiries {
        entries += 1;
    }
    println!("all expired in {entries} entries, {:.2} s", start.elapsed().as_secs_f64());
}
