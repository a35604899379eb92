//! What somebody can do who has reached the peer port and says that it is a member: no more than is said here.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, ensure};
use tenure_proto::peer::v1::{self as peer, command::Kind, job_result::Result as Answer, outcome, peer_service_client::PeerServiceClient};
use tenure_tests::{Cluster, api};
use tonic::{Request, transport::Channel};

/// Speaks to one replica as if it were another member.
struct Impostor {
    client: PeerServiceClient<Channel>,
    metadata: Vec<(&'static str, String)>,
}

impl Impostor {
    /// Anybody is told all that it takes.
    async fn of(cluster: &mut Cluster, from: u64, to: u64) -> anyhow::Result<Self> {
        let addr = |cluster: &mut Cluster, id| cluster.replica(id).map(|replica| format!("http://{}", replica.peer.addr()));
        let other = PeerServiceClient::connect(addr(cluster, from)?).await?.hello(peer::HelloRequest {}).await?.into_inner();
        let mut client = PeerServiceClient::connect(addr(cluster, to)?).await?;
        let hello = client.hello(peer::HelloRequest {}).await?.into_inner();
        let name = |hello: &peer::HelloResponse| format!("{}/{}", hello.node_id, hello.replica_id);
        let metadata = vec![("tenure-cluster", hello.cluster_id.clone()), ("tenure-from", name(&other)), ("tenure-to", name(&hello))];
        Ok(Self { client, metadata })
    }

    fn request<T>(&self, message: T) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        for (key, value) in &self.metadata {
            request.metadata_mut().insert(*key, value.parse()?);
        }
        Ok(request)
    }

    /// The answers to commands that are passed on in one message, in their order.
    async fn forward(&mut self, commands: Vec<Kind>) -> anyhow::Result<Vec<Answer>> {
        let n = commands.len();
        let jobs = commands.into_iter().zip(0..).map(|(kind, id)| peer::Job { id, command: Some(peer::Command { kind: Some(kind) }) });
        let message = peer::ForwardRequest { jobs: jobs.collect() };
        let mut answers = self.client.clone().forward(self.request(tokio_stream::once(message))?).await?.into_inner();
        let mut told = BTreeMap::new();
        while let Some(answer) = answers.message().await? {
            told.extend(answer.results.into_iter().map(|result| (result.id, result.result)));
        }
        ensure!(told.len() == n, "{told:?} does not answer all of {n}");
        told.into_values().map(|answer| answer.context("an answer of a kind that is known")).collect()
    }
}

fn key(namespace: &str, name: &str) -> Option<peer::Key> {
    Some(peer::Key { namespace: namespace.into(), name: name.into() })
}

fn good() -> peer::Acquire {
    peer::Acquire {
        key: key("default", "good"),
        holder: "member".into(),
        duration_ms: 60_000,
        request_id: "r".into(),
        retention_ms: 3_600_000,
        ..Default::default()
    }
}

/// Commands that no client can send, and the field that is to be named.
fn bad() -> Vec<(&'static str, Kind)> {
    let acquire = |change: fn(&mut peer::Acquire)| {
        let mut acquire = peer::Acquire { key: key("default", "bad"), ..good() };
        change(&mut acquire);
        Kind::Acquire(acquire)
    };
    let map = |key: &str, value: String| HashMap::from([(key.to_owned(), value)]);
    let hold = |duration_ms| Some(peer::PutHold { holder: "member".into(), duration_ms, request_id: "p".into(), ..Default::default() });
    let put = peer::Put { key: key("default", "bad"), ..Default::default() };
    vec![
        ("namespace", acquire(|it| it.key = key("Not A Namespace", "bad"))),
        ("name", acquire(|it| it.key = key("default", "\u{1b}[2J"))),
        ("name", acquire(|it| it.key = key("default", ""))),
        ("holder", acquire(|it| it.holder = String::new())),
        ("holder", acquire(|it| it.holder = "h".repeat(257))),
        ("duration", acquire(|it| it.duration_ms = 1)),
        ("duration", acquire(|it| it.duration_ms = u32::MAX)),
        ("request_id", acquire(|it| it.request_id = "r".repeat(129))),
        ("wait_for", acquire(|it| it.wait_ms = u64::MAX)),
        ("holder_data", acquire(|it| it.holder_data = vec![7; 8 << 20].into())),
        ("retention", acquire(|it| it.retention_ms = u64::MAX)),
        ("labels", acquire(|it| it.labels = (0..65).map(|n| (format!("key-{n}"), String::new())).collect())),
        ("annotations", acquire(|it| it.annotations = [("a".to_owned(), "x".repeat(17 << 10))].into())),
        ("labels", Kind::Put(peer::Put { labels: map("no key at all", String::new()), ..put.clone() })),
        ("if_revision", Kind::Put(peer::Put { must_not_exist: true, if_revision: 1, ..put.clone() })),
        ("hold.duration", Kind::Put(peer::Put { hold: hold(0), ..put })),
        ("items[1].token", Kind::Renew(peer::Renew { tokens: vec![1, 0], ..Default::default() })),
        ("items[0].duration", Kind::Renew(peer::Renew { tokens: vec![1], durations_ms: vec![u32::MAX], ..Default::default() })),
        ("items", Kind::Renew(peer::Renew { tokens: vec![1; 10_001], ..Default::default() })),
        ("command", Kind::Renew(peer::Renew { tokens: vec![1, 2], durations_ms: vec![5], ..Default::default() })),
        ("holder", Kind::Release(peer::Release { key: key("default", "bad"), request_id: "r".into(), ..Default::default() })),
        ("name", Kind::Delete(peer::Delete { key: key("default", "A"), force: true, ..Default::default() })),
        ("name", Kind::Detach(peer::Detach { key: key("default", "A"), session: 1, waiter: 1 })),
        ("command", Kind::Bootstrap(peer::Bootstrap { counter_start: 1, leases_per_namespace: 1, waiters_per_lease: 1 })),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_can_pass_on_nothing_that_a_client_cannot_send() -> anyhow::Result<()> {
    let mut cluster = Cluster::three("passed-on").await?;
    let raft_leader = cluster.raft_leader().await?;
    let mut impostor = Impostor::of(&mut cluster, raft_leader % 3 + 1, raft_leader).await?;

    // What is good in a batch is done, whatever stands around it.
    let mut commands: Vec<Kind> = bad().into_iter().map(|(_, kind)| kind).collect();
    commands.push(Kind::Acquire(good()));
    let mut answers = impostor.forward(commands).await?;
    let done = answers.pop().context("the last one")?;
    ensure!(matches!(&done, Answer::Outcome(peer::Outcome { kind: Some(outcome::Kind::Granted(_)) })), "{done:?}");
    for ((field, kind), answer) in bad().into_iter().zip(answers) {
        let named = match &answer {
            Answer::Violations(told) => told.violations.iter().any(|violation| violation.field == field && !violation.description.is_empty()),
            _ => false,
        };
        let shown: String = format!("{kind:?}").chars().take(200).collect();
        ensure!(named, "{field} is not named in the answer to {shown}: {answer:?}");
    }

    let leases: Vec<String> = cluster.api().list("default", "").await?.into_iter().map(|lease| lease.name).collect();
    ensure!(leases == ["good"], "{leases:?}");
    cluster.api().grant(api::acquire("default", "after", "me", 5_000)).await?;
    cluster.passed()
}
