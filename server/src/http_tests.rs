//! The HTTP port against probers, and against those who do not speak HTTP.

use futures::{SinkExt as _, channel::mpsc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

struct Port {
    connections: mpsc::Sender<std::io::Result<crate::net::Conn>>,
    closing: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Port {
    fn open() -> Self {
        let (connections, incoming) = mpsc::channel(8);
        let closing = CancellationToken::new();
        let pages = Pages { readiness: Readiness::new(), metrics: Box::new(|ready| format!("ready={ready}\n")) };
        let served = tokio::spawn(serve(Box::pin(incoming), super::Port::new(rules(8)), pages, closing.clone()));
        Self { connections, closing, served }
    }

    async fn connect(&self) -> DuplexStream {
        self.connect_from("test").await
    }

    async fn connect_from(&self, peer: &str) -> DuplexStream {
        let (here, there) = tokio::io::duplex(1 << 16);
        self.connections.clone().send(Ok(crate::net::Conn::new(there, peer))).await.expect("is served");
        here
    }

    /// Everything that comes back until the other side hangs up.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut conn = self.connect().await;
        // The server may hang up before it has read all.
        let _ = conn.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = conn.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test(start_paused = true)]
async fn pages_say_what_others_know() {
    let port = Port::open();
    assert!(port.say(&get("/healthz")).await.ends_with("\r\n\r\nok\n"));
    let answer = port.say(&get("/readyz")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("recovering\n"), "{answer}");
    assert!(port.say(&get("/metrics")).await.ends_with("ready=false\n"));
    assert!(port.say(&get("/etc/passwd")).await.starts_with("HTTP/1.1 404"));
}

#[tokio::test(start_paused = true)]
async fn garbage_and_slow_senders_are_hung_up_on_while_others_are_served() {
    let port = Port::open();
    let mut slow = port.connect().await;
    slow.write_all(b"GET /healthz HTT").await.expect("there is room");
    for garbage in [&b"\x00\xff\xfe\x16\x03\x01"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n\r\n\r\n\x00", &[b'a'; 64 << 10]] {
        port.say(garbage).await;
    }
    let endless = [b"GET / HTTP/1.1\r\n".to_vec(), b"X-Y: z\r\n".repeat(1000)].concat();
    assert!(port.say(&endless).await.starts_with("HTTP/1.1 431"));
    assert!(port.say(&get("/healthz")).await.starts_with("HTTP/1.1 200"));
    // Paused time runs on by itself once everybody waits.
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.expect("hung up on");
}

#[tokio::test(start_paused = true)]
async fn probe_is_answered_whatever_a_crowd_does() {
    let port = Port::open();
    let mut crowd = Vec::new();
    for number in 0..100 {
        let mut conn = port.connect_from(&format!("10.0.0.{}:{number}", number % 20)).await;
        if number % 2 == 0 {
            let _ = conn.write_all(&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64)).await;
        }
        crowd.push(conn);
        if number % 10 == 9 {
            let answer = port.say(&get("/healthz")).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("connection: close"), "{answer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_is_hung_up_on() {
    let port = Port::open();
    let mut conn = port.connect().await;
    // The answers do not fit into what lies between; the other side stops to read, and so this has to be given up as well.
    let asked = conn.write_all(&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20_000)).await;
    assert!(asked.is_err(), "hung up on before all was asked");
}

#[tokio::test(start_paused = true)]
async fn closing_ends_idle_connections() {
    let port = Port::open();
    let mut idle = port.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("there is room");
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.expect("answered");
    port.closing.cancel();
    port.served.await.expect("ends");
}
