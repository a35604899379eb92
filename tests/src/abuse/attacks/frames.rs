//! Floods of single HTTP/2 frames, written by hand: no library would send them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use super::{
    Orders, Told,
    line::{From, connect},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// One flood sends no more than that, however fast it is taken.
const MOST_BYTES: u64 = 4 << 30;
/// Frames are written in blocks of about this size.
const BLOCK: usize = 64 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// POST to the renewals of the client port, in HPACK without any table: indexed fields, then literals of a static name.
fn head() -> Vec<u8> {
    // :method POST, :scheme http
    let mut block = vec![0x83, 0x86];
    // Static names: 4 is :path, 1 is :authority, 31 is content-type (as 15 and a further 16).
    for (name, value) in [(&[0x04][..], "/tenure.v1.LeaseService/Renew"), (&[0x01][..], "tenure"), (&[0x0f, 0x10][..], "application/grpc")] {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// What is sent once, and what is sent without end.
#[derive(Clone, Debug)]
struct Flood {
    name: &'static str,
    first: Vec<u8>,
    then: Vec<u8>,
}

impl Flood {
    fn new(name: &'static str, first: Vec<u8>, then: Vec<u8>) -> Self {
        let times = (BLOCK / then.len()).max(1);
        Self { name, first, then: then.repeat(times) }
    }

    /// Against which HTTP/2 itself, or its implementation, must end the connection.
    fn forbidden() -> Vec<Self> {
        let unfinished = frame(HEADERS, 0, 1, &head());
        // A literal that is never indexed, with a name and a value of a letter each.
        let field = [0x10, 1, b'a', 1, b'b'].repeat(3_000);
        vec![
            Self::new("CONTINUATION", unfinished.clone(), frame(CONTINUATION, 0, 1, &field)),
            Self::new("empty CONTINUATION", unfinished, frame(CONTINUATION, 0, 1, &[])),
            Self::new("empty DATA", frame(HEADERS, END_HEADERS, 1, &head()), frame(DATA, 0, 1, &[])),
            Self::new("GOAWAY", Vec::new(), frame(GOAWAY, 0, 0, &[0; 8])),
        ]
    }

    /// Which are no error, however many there are.
    fn allowed() -> Vec<Self> {
        vec![
            Self::new("PING", Vec::new(), frame(PING, 0, 0, &[7; 8])),
            Self::new("SETTINGS", Vec::new(), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
            Self::new("PRIORITY", Vec::new(), frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 16])),
            // Of a stream that stays open, by one byte: it would take as many as 2^31 of them to overflow.
            Self::new("WINDOW_UPDATE", frame(HEADERS, END_HEADERS, 1, &head()), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ]
    }
}

#[derive(Debug, Default)]
struct Sent {
    bytes: AtomicU64,
    connections: AtomicU64,
}

/// One flood at one address, connection after connection.
async fn pour(addr: String, flood: Flood, sent: Arc<Sent>) {
    while sent.bytes.load(Ordering::Relaxed) < MOST_BYTES {
        if let Ok(stream) = connect(&addr, From::OneHost).await {
            sent.connections.fetch_add(1, Ordering::Relaxed);
            let (mut reading, mut writing) = stream.into_split();
            // What comes back is taken and thrown away, so that the other side never has to wait with what it wants to send.
            let taking = async {
                let mut bytes = vec![0; BLOCK];
                while reading.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
            };
            let pouring = async {
                writing.write_all(PREFACE).await?;
                writing.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
                writing.write_all(&flood.first).await?;
                while sent.bytes.load(Ordering::Relaxed) < MOST_BYTES {
                    writing.write_all(&flood.then).await?;
                    sent.bytes.fetch_add(flood.then.len() as u64, Ordering::Relaxed);
                }
                std::io::Result::Ok(())
            };
            tokio::select! {
                _ = pouring => {}
                () = taking => {}
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn floods(orders: &Orders, floods: Vec<(String, &'static str, Flood)>) -> Told {
    let mut tasks = JoinSet::new();
    let mut all = Vec::new();
    for (addr, port, flood) in floods {
        let sent = Arc::<Sent>::default();
        all.push((port, flood.name, Arc::clone(&sent)));
        tasks.spawn(pour(addr, flood, sent));
    }
    orders.end().await;
    drop(tasks);
    let counted = |(port, name, sent): &(&str, &str, Arc<Sent>)| {
        format!("{name} at the {port} port: {} MiB on {} connections", sent.bytes.load(Ordering::Relaxed) >> 20, sent.connections.load(Ordering::Relaxed))
    };
    Told::of(all.iter().map(counted).collect::<Vec<_>>().join(", "))
}

/// CONTINUATION at the client and at the peer port, empty CONTINUATION, empty DATA, GOAWAY, one connection each.
pub(crate) async fn forbidden(orders: Orders) -> anyhow::Result<Told> {
    let mut all = Vec::new();
    for flood in Flood::forbidden() {
        if flood.name == "CONTINUATION" {
            all.push((orders.peer[orders.leader].clone(), "peer", flood.clone()));
        }
        all.push((orders.leader_client().to_owned(), "client", flood));
    }
    Ok(floods(&orders, all).await)
}

/// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, one connection each.
pub(crate) async fn allowed(orders: Orders) -> anyhow::Result<Told> {
    let all = Flood::allowed().into_iter().map(|flood| (orders.leader_client().to_owned(), "client", flood)).collect();
    Ok(floods(&orders, all).await)
}
