//! Free ports that stay ours: below the range the kernel gives to outgoing connections, and locked against other test processes, so that a
//! replica that was killed finds its port free when it comes back.

use std::{
    fs::{File, OpenOptions},
    net::{IpAddr, Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

/// A port of 127.0.0.1, held until dropped; or of a host whose ports are all ours.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    host: IpAddr,
    _lock: Option<File>,
}

impl Port {
    /// A port of a host that nobody else uses.
    #[must_use]
    pub const fn of(host: IpAddr, number: u16) -> Self {
        Self { number, host, _lock: None }
    }

    /// `127.0.0.1:number`, for instance.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("{}:{}", self.host, self.number)
    }
}

const FIRST: u64 = 12_000;
const COUNT: u64 = 20_000;
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Finds one.
pub fn find() -> anyhow::Result<Port> {
    let dir = crate::binaries::scratch().join("ports");
    std::fs::create_dir_all(&dir)?;
    let start = u64::from(std::process::id()).wrapping_mul(7919);
    for _ in 0..COUNT {
        let number = u16::try_from(FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(number.to_string()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        if TcpListener::bind(("127.0.0.1", number)).is_ok() {
            return Ok(Port { number, host: Ipv4Addr::LOCALHOST.into(), _lock: Some(lock) });
        }
    }
    None.context("no free port")
}

/// The first of a block as `tenured dev --base-port` wants it: three ports, and the same 10 and 20 higher.
pub fn block() -> anyhow::Result<Port> {
    for _ in 0..1000 {
        let base = find()?;
        let free = |offset: u16| TcpListener::bind(("127.0.0.1", base.number + offset)).is_ok();
        if [0, 1, 2, 10, 11, 12, 20, 21, 22].into_iter().all(free) {
            return Ok(base);
        }
    }
    None.context("no nine free ports in a row")
}
