//! A network that can be bad: passes bytes on to one address, late or not at all.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use crate::clock;

/// See the module. Connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where to connect.
    pub addr: String,
    late_ns: Arc<AtomicU64>,
    requests_late_ns: Arc<AtomicU64>,
    cut: watch::Sender<bool>,
    cut_answers: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own; needs a runtime.
    pub async fn start(target: &str) -> anyhow::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), target).await
    }

    /// The same, on another address of this host.
    pub async fn start_at(host: IpAddr, target: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::new(host, 0)).await?;
        let addr = listener.local_addr()?.to_string();
        let (late_ns, requests_late_ns) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (cut, cuts) = watch::channel(false);
        let (cut_answers, answer_cuts) = watch::channel(false);
        let (target, late, requests_late) = (target.to_owned(), Arc::clone(&late_ns), Arc::clone(&requests_late_ns));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, late, requests_late, cuts) = (target.clone(), Arc::clone(&late), Arc::clone(&requests_late), cuts.clone());
                let answer_cuts = answer_cuts.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = carry(from_client, to_server, requests_late, [cuts.clone(), cuts.clone()]) => {}
                        () = carry(from_server, to_client, late, [cuts.clone(), answer_cuts]) => {}
                        () = gone(cuts) => {}
                    }
                });
            }
        });
        Ok(Self { addr, late_ns, requests_late_ns, cut, cut_answers, accepting })
    }

    /// Answers take this much longer from now on.
    pub fn delay_answers(&self, by: Duration) {
        self.late_ns.store(clock::nanos(by), Ordering::Relaxed);
    }

    /// And what is asked, this much.
    pub fn delay_requests(&self, by: Duration) {
        self.requests_late_ns.store(clock::nanos(by), Ordering::Relaxed);
    }

    /// While cut, connections stay open and nothing passes, in either direction; what was sent arrives when it is mended.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// As [`Proxy::cut`], for answers only: what is asked arrives and is done, and nobody hears of it.
    pub fn cut_answers(&self, cut: bool) {
        self.cut_answers.send_replace(cut);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn gone(mut cuts: watch::Receiver<bool>) {
    while cuts.changed().await.is_ok() {}
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, late: Arc<AtomicU64>, mut cuts: [watch::Receiver<bool>; 2]) {
    let (sender, mut passing) = mpsc::unbounded_channel::<(u64, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = clock::now() + late.load(Ordering::Relaxed);
            let _ = sender.send((due, buffer[..length].to_vec()));
        }
    };
    let write = async move {
        while let Some((due, bytes)) = passing.recv().await {
            let wait = due.saturating_sub(clock::now());
            if wait > 0 {
                tokio::time::sleep(Duration::from_nanos(wait)).await;
            }
            for cut in &mut cuts {
                if cut.wait_for(|cut| !cut).await.is_err() {
                    return;
                }
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
