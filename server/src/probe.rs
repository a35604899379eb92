//! `tenured health`: one question to a replica's HTTP port, for container health checks in images that have no curl.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use anyhow::{Context as _, bail};

/// Succeeds when `/readyz` says so.
pub(crate) fn ready(addr: &str, timeout: Duration) -> anyhow::Result<()> {
    let address = addr.to_socket_addrs().with_context(|| format!("--addr {addr}"))?.next().with_context(|| format!("--addr {addr} names no host"))?;
    let mut stream = TcpStream::connect_timeout(&address, timeout).with_context(|| format!("nobody answers at {addr}"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(16 << 10).read_to_end(&mut answer).with_context(|| format!("{addr} did not answer within {timeout:?}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{addr} is not ready: {}", if body.is_empty() { head } else { body }.trim());
    }
    Ok(())
}
