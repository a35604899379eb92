//! The scenarios. Closed loop: each client has one round trip under way.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use tenure_proto::v1::{
    self, AcquireRequest, ReleaseRequest, RenewItem, RenewRequest, acquire_response::Result as Answer, lease_service_client::LeaseServiceClient,
    release_response::Outcome, renew_result::Result as Renewed,
};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::{
    clock::{self, Moment},
    report::{Measured, Rate},
};

type Client = LeaseServiceClient<Channel>;

const WARM_UP: Duration = Duration::from_secs(1);
const NAMESPACE: &str = "tenure-bench";

pub(crate) async fn pairs(endpoints: &[String], clients: usize, time: Duration) -> anyhow::Result<Measured> {
    let mut tasks = JoinSet::new();
    let begun = clock::now();
    for n in 0..clients {
        let mut client = connect(endpoints, n).await?;
        tasks.spawn(async move {
            let mut latency = histogram()?;
            let name = format!("pair-{n}");
            loop {
                let sent = clock::now();
                let token = acquire(&mut client, &name).await?;
                let release = ReleaseRequest { namespace: NAMESPACE.to_owned(), name: name.clone(), token, ..Default::default() };
                let released = client.release(release).await?.into_inner();
                ensure!(released.outcome() == Outcome::Released, "{name} was not released: {released:?}");
                if record(&mut latency, begun, sent, time)? {
                    return Ok(latency);
                }
            }
        });
    }
    gather(format!("acquire + release, {clients} clients"), tasks, 1, time).await
}

pub(crate) async fn renewals(endpoints: &[String], streams: usize, connections: usize, leases: usize, time: Duration) -> anyhow::Result<Measured> {
    let mut shared = Vec::new();
    for n in 0..connections.min(streams) {
        shared.push(connect(endpoints, n).await?);
    }
    let mut holders = JoinSet::new();
    for n in 0..streams {
        let mut client = shared[n % shared.len()].clone();
        holders.spawn(async move {
            let mut tokens = Vec::with_capacity(leases);
            for lease in 0..leases {
                tokens.push(acquire(&mut client, &format!("renew-{n}-{lease}")).await?);
            }
            anyhow::Ok((client, tokens))
        });
    }
    let mut ready = Vec::new();
    while let Some(holder) = holders.join_next().await {
        ready.push(holder??);
        if ready.len().is_multiple_of(64) {
            eprintln!("holding the leases of {} of {streams} streams", ready.len());
        }
    }
    let begun = clock::now();
    let mut tasks = JoinSet::new();
    for (client, tokens) in ready {
        tasks.spawn(renew(client, tokens, begun, time));
    }
    gather(format!("renew, {streams} streams on {} connections, {leases} leases a message", shared.len()), tasks, leases as u64, time).await
}

async fn renew(mut client: Client, tokens: Vec<u64>, begun: Moment, time: Duration) -> anyhow::Result<Histogram<u64>> {
    let mut latency = histogram()?;
    let message = RenewRequest { items: tokens.iter().map(|token| RenewItem { token: *token, ..Default::default() }).collect() };
    let (send, messages) = tokio::sync::mpsc::channel(1);
    let first = clock::now();
    send.send(message.clone()).await?;
    let mut answers = client.renew(ReceiverStream::new(messages)).await?.into_inner();
    let mut sent = first;
    loop {
        let answer = answers.message().await?.context("the stream of renewals has ended")?;
        let renewed = answer.results.iter().filter(|result| matches!(result.result, Some(Renewed::Renewed(_)))).count();
        ensure!(renewed == tokens.len(), "{renewed} of {} leases were renewed: {:?}", tokens.len(), answer.results.first());
        if record(&mut latency, begun, sent, time)? {
            return Ok(latency);
        }
        sent = clock::now();
        send.send(message.clone()).await?;
    }
}

/// Counts a round trip that began after warming up; true when the time is over.
fn record(latency: &mut Histogram<u64>, begun: Moment, sent: Moment, time: Duration) -> anyhow::Result<bool> {
    let (took, now) = (sent.passed(), begun.passed());
    if now >= WARM_UP + time {
        return Ok(true);
    }
    if now.saturating_sub(took) >= WARM_UP {
        latency.record(u64::try_from(took.as_nanos())?)?;
    }
    Ok(false)
}

async fn gather(what: String, mut tasks: JoinSet<anyhow::Result<Histogram<u64>>>, each: u64, time: Duration) -> anyhow::Result<Measured> {
    let mut latency = histogram()?;
    while let Some(one) = tasks.join_next().await {
        latency.add(one??)?;
    }
    Ok(Measured { what, latency, rate: Some(Rate { each, time }) })
}

pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

async fn connect(endpoints: &[String], n: usize) -> anyhow::Result<Client> {
    let addr = &endpoints[n % endpoints.len()];
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).with_context(|| format!("--endpoints: {addr:?} is not host:port"))?;
    let channel = endpoint.connect_timeout(Duration::from_secs(2)).connect().await.with_context(|| format!("cannot connect to {addr} (--endpoints)"))?;
    Ok(Client::new(channel))
}

async fn acquire(client: &mut Client, name: &str) -> anyhow::Result<u64> {
    let request = AcquireRequest {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        holder: "tenure-bench".to_owned(),
        duration: Some("60s".parse()?),
        // What an earlier run left held is this one's.
        reclaim: true,
        ..Default::default()
    };
    let mut answers = client.acquire(request).await?.into_inner();
    let answer = answers.message().await?.context("acquire had no answer")?;
    // To the end, so that the stream is not reset.
    while answers.message().await?.is_some() {}
    match answer.result {
        Some(Answer::Granted(v1::Granted { lease: Some(lease), .. })) => Ok(lease.token),
        other => bail!("{name} was not granted: {other:?}"),
    }
}
