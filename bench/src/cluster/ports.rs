//! Addresses on loopback that nobody uses.

use std::{cell::Cell, net::TcpListener};

use anyhow::ensure;

/// Below those that the kernel gives to connections: what is free now is still free when a member comes to it.
const FIRST: u64 = 8_000;
const COUNT: u64 = 4_000;

thread_local! {
    /// Where the next search begins, so that a cluster does not meet the remains of the one before.
    static NEXT: Cell<u64> = Cell::new(u64::from(std::process::id()).wrapping_mul(7919) % COUNT);
}

/// `count` of them. Somewhere in the range, so that two runs at once do not meet.
pub(super) fn free(count: usize) -> anyhow::Result<Vec<String>> {
    let (start, mut looked, mut free) = (NEXT.get(), 0, Vec::with_capacity(count));
    while free.len() < count && looked < COUNT {
        let address = format!("127.0.0.1:{}", FIRST + (start + looked) % COUNT);
        if TcpListener::bind(&address).is_ok() {
            free.push(address);
        }
        looked += 1;
    }
    ensure!(free.len() == count, "fewer than {count} free ports in {FIRST} to {}", FIRST + COUNT - 1);
    NEXT.set((start + looked) % COUNT);
    Ok(free)
}
