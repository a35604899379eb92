//! A resource that checks tokens: takes a write under the largest token that it has seen or a larger one, refuses all others, and records both, in
//! its own order.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use tenure_checker::history::{Fenced, What};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::history::History;

/// Listens until it is dropped. One line is one write: `RESOURCE WRITER TOKEN`; the answer says whether it took effect.
#[derive(Debug)]
pub(super) struct Store {
    /// host:port.
    pub(super) addr: String,
    task: JoinHandle<()>,
}

impl Store {
    /// On an address of this host.
    pub(super) async fn start(host: IpAddr, history: &Arc<History>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::new(host, 0)).await?;
        let addr = listener.local_addr()?.to_string();
        let (largest, history) = (Arc::new(Mutex::default()), Arc::clone(history));
        let task = tokio::spawn(async move {
            while let Ok((writer, _)) = listener.accept().await {
                tokio::spawn(serve(writer, Arc::clone(&largest), Arc::clone(&history)));
            }
        });
        Ok(Self { addr, task })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(writer: TcpStream, largest: Arc<Mutex<HashMap<String, u64>>>, history: Arc<History>) {
    let (from, mut to) = writer.into_split();
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut words = line.split(' ');
        let (Some(resource), Some(client), Some(Ok(token))) = (words.next(), words.next(), words.next().map(str::parse::<u64>)) else { return };
        let accepted = {
            // Recorded under the lock: the order of the records is that of the writes.
            let mut largest = largest.lock().unwrap_or_else(PoisonError::into_inner);
            let largest = largest.entry(resource.to_owned()).or_default();
            let accepted = token >= *largest;
            *largest = token.max(*largest);
            history.record(What::FencedWrite(Fenced { resource: resource.to_owned(), client: client.to_owned(), token, accepted }));
            accepted
        };
        if to.write_all(if accepted { b"yes\n" } else { b"no\n" }).await.is_err() {
            return;
        }
    }
}
