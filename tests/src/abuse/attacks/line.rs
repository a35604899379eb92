//! One HTTP/2 connection as an attacker wants it: windows of any size, messages that end in the middle, answers that are not read, and an end that
//! comes without a goodbye. Speaks gRPC with the `h2` crate; tonic is too polite.

use std::{
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::AbortHandle,
};

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Hosts that the attacker pretends to be, at most.
const HOSTS: u32 = 200;
static NEXT_HOST: AtomicU32 = AtomicU32::new(0);

/// From where a connection comes.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// Always the same host.
    OneHost,
    /// One host after the other, of so many.
    Hosts(u32),
}

/// Opens a connection from an address that is neither the bystander's nor a replica's.
pub(super) async fn connect(addr: &str, from: From) -> anyhow::Result<TcpStream> {
    let host = match from {
        From::OneHost => 0,
        From::Hosts(hosts) => NEXT_HOST.fetch_add(1, Ordering::Relaxed) % hosts.min(HOSTS),
    };
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(host)?), 0)))?;
    let stream = tokio::time::timeout(CONNECT_WITHIN, socket.connect(addr.parse()?)).await.context("no connection in time")??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What this side of a connection is ready to receive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) stream: u32,
    pub(super) connection: u32,
}

impl Windows {
    pub(super) const USUAL: Self = Self { stream: 1 << 20, connection: 16 << 20 };
    /// Nothing at all of any answer.
    pub(super) const NONE: Self = Self { stream: 0, connection: 65_535 };
}

struct Cut(AbortHandle);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See the module. When the last clone is dropped the connection is cut.
#[derive(Clone)]
pub(super) struct Line {
    send: SendRequest<Bytes>,
    ended: Arc<AtomicBool>,
    _cut: Arc<Cut>,
}

impl Line {
    pub(super) async fn open(addr: &str) -> anyhow::Result<Self> {
        Self::with(connect(addr, From::OneHost).await?, Windows::USUAL).await
    }

    pub(super) async fn with(stream: TcpStream, windows: Windows) -> anyhow::Result<Self> {
        let (send, connection) = Builder::new()
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            drop(connection.await);
            told.store(true, Ordering::Relaxed);
        });
        Ok(Self { send, ended, _cut: Arc::new(Cut(task.abort_handle())) })
    }

    /// The other side, or something between, has ended it.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Begins a call as soon as the other side allows one more.
    pub(super) async fn begin(&self, path: &str, metadata: &[(&'static str, String)], end: bool) -> anyhow::Result<(ResponseFuture, SendStream<Bytes>)> {
        let mut request = Request::post(format!("http://tenure{path}")).header("content-type", "application/grpc").header("te", "trailers");
        for (key, value) in metadata {
            request = request.header(*key, value);
        }
        let mut ready = self.send.clone().ready().await?;
        Ok(ready.send_request(request.body(())?, end)?)
    }

    /// A whole call with one message; its answer is still to come. Whoever drops the answer resets the call.
    pub(super) async fn call(&self, path: &str, metadata: &[(&'static str, String)], message: Bytes) -> anyhow::Result<Answer> {
        let (response, mut body) = self.begin(path, metadata, false).await?;
        body.send_data(message, true)?;
        Ok(Answer { response, _body: body })
    }

    /// A whole call, and the first message of its answer.
    pub(super) async fn ask<M: Message + Default>(&self, path: &str, message: &impl Message) -> anyhow::Result<M> {
        let (code, bytes) = self.call(path, &[], framed(message)).await?.whole().await?;
        ensure!(code == 0 && bytes.len() >= PREFIX, "{path} ended with code {code}");
        Ok(M::decode(bytes.slice(PREFIX..))?)
    }
}

/// What comes back from a call.
pub(super) struct Answer {
    response: ResponseFuture,
    _body: SendStream<Bytes>,
}

impl Answer {
    /// Its code, and everything before it.
    pub(super) async fn whole(self) -> anyhow::Result<(u32, Bytes)> {
        let response = self.response.await?;
        let at_once = code(response.headers());
        let mut body = response.into_body();
        let mut bytes = BytesMut::new();
        while let Some(data) = next(&mut body).await? {
            bytes.extend_from_slice(&data);
        }
        let late = body.trailers().await?.as_ref().and_then(code);
        Ok((at_once.or(late).unwrap_or(2), bytes.freeze()))
    }

    /// Its code; what it says is thrown away.
    pub(super) async fn code(self) -> anyhow::Result<u32> {
        let response = self.response.await?;
        let at_once = code(response.headers());
        let mut body = response.into_body();
        while next(&mut body).await?.is_some() {}
        let late = body.trailers().await?.as_ref().and_then(code);
        Ok(at_once.or(late).unwrap_or(2))
    }
}

/// The next bytes of an answer; makes room for more.
async fn next(body: &mut RecvStream) -> anyhow::Result<Option<Bytes>> {
    let Some(data) = body.data().await else { return Ok(None) };
    let data = data?;
    body.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

/// Reads an answer until it ends: how many bytes came, and the code.
pub(super) async fn drain(response: ResponseFuture) -> anyhow::Result<(u64, u32)> {
    let response = response.await?;
    let at_once = code(response.headers());
    let mut body = response.into_body();
    let mut bytes = 0;
    while let Some(data) = next(&mut body).await? {
        bytes += data.len() as u64;
    }
    let late = body.trailers().await?.as_ref().and_then(code);
    Ok((bytes, at_once.or(late).unwrap_or(2)))
}

fn code(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Sends as fast as the other side takes it.
pub(super) async fn send_all(body: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        body.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| body.poll_capacity(cx)).await.context("the call has ended")??;
        let part = bytes.split_to(room.min(bytes.len()));
        if !part.is_empty() {
            body.send_data(part, end && bytes.is_empty())?;
        }
    }
    Ok(())
}

const PREFIX: usize = 5;

/// The five bytes before a message.
pub(super) fn prefix(length: u32) -> [u8; PREFIX] {
    let [a, b, c, d] = length.to_be_bytes();
    [0, a, b, c, d]
}

/// A message as gRPC has it.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_slice(&prefix(u32::try_from(length).unwrap_or(u32::MAX)));
    bytes.put(Bytes::from(message.encode_to_vec()));
    bytes.freeze()
}
