//! Bad input through real sockets: each has a clear answer, and another client keeps its short lease all the while.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_proto::peer::v1::{HelloRequest, ReadIndexRequest, VoteRequest, peer_service_client::PeerServiceClient};
use tenure_tests::{
    Api, Cluster, History, api,
    clock::Rng,
    millis, seconds,
    v1::{self, release_response, renew_result},
    workload::{Ending, Holder, Outcome, Plan},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A lease of the shortest duration, renewed through all replicas, that nothing in a test may cost its holder.
struct Bystander(Holder, Arc<History>);

impl Bystander {
    async fn at(cluster: &Cluster) -> anyhow::Result<Self> {
        let history = Arc::new(History::of("bystander"));
        let mut holder = Holder::spawn(Plan::new("bystander", "lease", "bystander", 1500, &cluster.apis(), 0), Arc::clone(&history));
        holder.granted().await?;
        Ok(Self(holder, history))
    }

    async fn ends_unharmed(self) -> anyhow::Result<()> {
        // Longer than its lease lasts: what was done to the cluster has had time to hurt.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let hold = self.0.stop(Ending::Release).await?;
        ensure!(hold.outcome == Outcome::Stopped(Ending::Release) && hold.renewals > 2, "the bystander lost its lease: {hold:?}");
        self.1.check().map(drop)
    }
}

/// Fails unless the call was refused with this code; a broken field must be named.
fn refused<T: std::fmt::Debug>(what: &str, result: Result<T, Status>, code: Code, field: &str) -> anyhow::Result<()> {
    let status = match result {
        Ok(answer) => anyhow::bail!("{what}: accepted: {answer:?}"),
        Err(status) => status,
    };
    ensure!(status.code() == code, "{what}: {status}");
    ensure!(!status.message().is_empty(), "{what}: no message");
    ensure!(status.get_details_error_info().is_some_and(|info| !info.reason.is_empty()), "{what}: no reason: {status:?}");
    if !field.is_empty() {
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        ensure!(violations.iter().any(|violation| violation.field.starts_with(field)), "{what}: {field} is not named in {violations:?}");
    }
    Ok(())
}

fn map(key: &str, value: &str) -> std::collections::HashMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

fn bad_acquires() -> Vec<(&'static str, v1::AcquireRequest, &'static str)> {
    let good = || api::acquire("default", "lease", "me", 5000);
    let raw = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    vec![
        ("no name", v1::AcquireRequest { name: String::new(), ..good() }, "name"),
        ("name in capitals", v1::AcquireRequest { name: "Lease".into(), ..good() }, "name"),
        ("name with a slash", v1::AcquireRequest { name: "a/b".into(), ..good() }, "name"),
        ("name that begins with a dot", v1::AcquireRequest { name: ".a".into(), ..good() }, "name"),
        ("name of 254", v1::AcquireRequest { name: "a".repeat(254), ..good() }, "name"),
        ("name with a line feed", v1::AcquireRequest { name: "a\nb".into(), ..good() }, "name"),
        ("namespace with a dot", v1::AcquireRequest { namespace: "a.b".into(), ..good() }, "namespace"),
        ("namespace of 64", v1::AcquireRequest { namespace: "a".repeat(64), ..good() }, "namespace"),
        ("no holder", v1::AcquireRequest { holder: String::new(), ..good() }, "holder"),
        ("holder of 257", v1::AcquireRequest { holder: "h".repeat(257), ..good() }, "holder"),
        ("no duration", v1::AcquireRequest { duration: None, ..good() }, "duration"),
        ("duration 0", v1::AcquireRequest { duration: raw(0, 0), ..good() }, "duration"),
        ("duration negative", v1::AcquireRequest { duration: raw(-5, 0), ..good() }, "duration"),
        ("duration under 1 s", v1::AcquireRequest { duration: millis(999), ..good() }, "duration"),
        ("duration over a day", v1::AcquireRequest { duration: millis(86_400_001), ..good() }, "duration"),
        ("duration for ever", v1::AcquireRequest { duration: raw(i64::MAX, 999_999_999), ..good() }, "duration"),
        ("duration since ever", v1::AcquireRequest { duration: raw(i64::MIN, i32::MIN), ..good() }, "duration"),
        ("duration with too many nanoseconds", v1::AcquireRequest { duration: raw(5, 2_000_000_000), ..good() }, "duration"),
        ("duration of two signs", v1::AcquireRequest { duration: raw(5, -1), ..good() }, "duration"),
        ("request id of 129", v1::AcquireRequest { request_id: "r".repeat(129), ..good() }, "request_id"),
        ("negative wait", v1::AcquireRequest { wait_for: raw(-1, 0), ..good() }, "wait_for"),
        ("endless wait", v1::AcquireRequest { wait_for: raw(i64::MAX, 0), ..good() }, "wait_for"),
        ("holder data of 4,097", v1::AcquireRequest { holder_data: vec![0; 4097].into(), ..good() }, "holder_data"),
        ("negative retention", v1::AcquireRequest { retention: raw(-1, 0), ..good() }, "retention"),
        ("label key with a space", v1::AcquireRequest { labels: map("a b", "c"), ..good() }, "labels"),
        ("label key without a name", v1::AcquireRequest { labels: map("example.com/", "c"), ..good() }, "labels"),
        ("label value of 64", v1::AcquireRequest { labels: map("a", &"v".repeat(64)), ..good() }, "labels"),
        ("label value that ends in a dash", v1::AcquireRequest { labels: map("a", "v-"), ..good() }, "labels"),
        ("65 labels", v1::AcquireRequest { labels: (0..65).map(|n| (format!("key-{n}"), String::new())).collect(), ..good() }, "labels"),
        ("annotations over 16 KiB", v1::AcquireRequest { annotations: map("a", &"v".repeat(16 << 10)), ..good() }, "annotations"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_out_of_range_is_refused_and_named() -> anyhow::Result<()> {
    let cluster = Cluster::three("bad-fields").await?;
    let bystander = Bystander::at(&cluster).await?;
    for replica in cluster.apis() {
        for (what, request, field) in bad_acquires() {
            refused(what, replica.acquire(request).await, Code::InvalidArgument, field)?;
        }
        let mut client = replica.lease.clone();
        for selector in ["==b", "a in", "a in (", "a in (b", "a in ()x", "!", "a=b,,c=d", "a notin b", "a=b c", "(", "a>1>2", "ä=b", "a=-"] {
            let request = v1::ListRequest { label_selector: selector.into(), ..Default::default() };
            refused(&format!("List with {selector:?}"), client.list(request).await, Code::InvalidArgument, "label_selector")?;
            let request = v1::WatchRequest { label_selector: selector.into(), ..Default::default() };
            refused(&format!("Watch with {selector:?}"), client.watch(request).await, Code::InvalidArgument, "label_selector")?;
        }
        let list = |request| async { replica.lease.clone().list(request).await };
        refused("page of 10,001", list(v1::ListRequest { page_size: 10_001, ..Default::default() }).await, Code::InvalidArgument, "page_size")?;
        refused("page token of nobody", list(v1::ListRequest { page_token: "%%%".into(), ..Default::default() }).await, Code::InvalidArgument, "page_token")?;
        let request = v1::WatchRequest { send_initial: true, after_revision: 5, ..Default::default() };
        refused("Watch from two places", client.watch(request).await, Code::InvalidArgument, "after_revision")?;
        refused("Get without a name", client.get(v1::GetRequest::default()).await, Code::InvalidArgument, "name")?;
        let request = v1::ReleaseRequest { name: "lease".into(), ..Default::default() };
        refused("Release of nothing", client.release(request).await, Code::InvalidArgument, "token")?;
        let request = v1::HistoryRequest { name: "lease".into(), limit: 1001, ..Default::default() };
        refused("History of 1,001", client.history(request).await, Code::InvalidArgument, "limit")?;
        let request = v1::PutRequest { name: "lease".into(), update_mask: Some(prost_types::FieldMask { paths: vec!["holder".into()] }), ..Default::default() };
        refused("Put of a field that is not its own", client.put(request).await, Code::InvalidArgument, "update_mask")?;
        let request = v1::AddMemberRequest { node_id: 0, peer_addr: "nowhere".into(), learner_only: false };
        refused("AddMember of nobody", replica.cluster.clone().add_member(request).await, Code::InvalidArgument, "node_id")?;
        let too_many = vec![api::renewal(1); 10_001];
        refused("10,001 renewals", replica.renew(too_many).await, Code::InvalidArgument, "items")?;
    }
    ensure!(cluster.api().list("default", "").await?.is_empty(), "something was created");
    bystander.ends_unharmed().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_names_and_stale_tokens_get_clear_answers() -> anyhow::Result<()> {
    let cluster = Cluster::three("unknown-names").await?;
    let bystander = Bystander::at(&cluster).await?;
    for (at, replica) in cluster.apis().into_iter().enumerate() {
        let mut client = replica.lease.clone();
        let name = format!("lease-{at}");
        refused("Get", replica.get("default", "nobody").await, Code::NotFound, "")?;
        refused("Delete", client.delete(v1::DeleteRequest { name: "nobody".into(), ..Default::default() }).await, Code::NotFound, "")?;
        ensure!(replica.list("no-such-namespace", "").await?.is_empty());
        let answer = replica.release("default", "nobody", 5).await?;
        ensure!(answer.outcome() == release_response::Outcome::NotHolder && answer.lease.is_none(), "{answer:?}");

        let old = replica.grant(api::acquire("default", &name, "old", 60_000)).await?;
        replica.release("default", &name, old.token).await?;
        let new = replica.grant(api::acquire("default", &name, "new", 60_000)).await?;
        let wrong_name = v1::RenewItem { namespace: "default".into(), name: "other".into(), ..api::renewal(new.token) };
        let items = vec![api::renewal(old.token), api::renewal(new.token), api::renewal(12_345), wrong_name];
        let answer = replica.renew(items).await?;
        let lost = |at: usize| match answer.results[at].result.as_ref() {
            Some(renew_result::Result::Lost(lost)) => Some((lost.reason(), lost.holder.as_str())),
            _ => None,
        };
        ensure!(lost(0).is_some_and(|(reason, _)| reason == v1::EndReason::Released), "{answer:?}");
        ensure!(lost(1).is_none(), "{answer:?}");
        ensure!(lost(2).is_some_and(|(reason, _)| reason == v1::EndReason::UnknownToken), "{answer:?}");
        ensure!(lost(3).is_some_and(|(reason, _)| reason == v1::EndReason::WrongLease), "{answer:?}");
        let stale = replica.release("default", &name, old.token).await?;
        ensure!(stale.outcome() == release_response::Outcome::NotHolder, "{stale:?}");

        let delete = v1::DeleteRequest { name: name.clone(), ..Default::default() };
        refused("Delete of a held lease", client.delete(delete.clone()).await, Code::FailedPrecondition, "")?;
        let put = v1::PutRequest { name: name.clone(), ..Default::default() };
        refused("Put over it", client.put(v1::PutRequest { must_not_exist: true, ..put.clone() }).await, Code::AlreadyExists, "")?;
        refused("Put at another revision", client.put(v1::PutRequest { if_revision: 7, ..put }).await, Code::Aborted, "")?;
        let watch = v1::WatchRequest { after_revision: 1, ..Default::default() };
        let watch = match client.watch(watch).await {
            Ok(answers) => answers.into_inner().message().await,
            Err(status) => Err(status),
        };
        refused("Watch from before the beginning", watch, Code::OutOfRange, "")?;
        let request = v1::AcquireRequest { request_id: "same".into(), ..api::acquire("default", &name, "third", 5000) };
        replica.acquire(request.clone()).await?;
        client.delete(v1::DeleteRequest { force: true, ..delete }).await?;
        let granted = replica.grant(v1::AcquireRequest { request_id: "again".into(), ..request.clone() }).await?;
        let other = v1::AcquireRequest { request_id: "again".into(), duration: millis(6000), ..request };
        refused("a request id used for something else", replica.acquire(other).await, Code::InvalidArgument, "")?;
        ensure!(granted.token > new.token, "{granted:?} after {new:?}");

        let mut operator = replica.cluster.clone();
        ensure!(operator.remove_member(v1::RemoveMemberRequest { node_id: 99 }).await.is_err());
        ensure!(operator.transfer_leader(v1::TransferLeaderRequest { node_id: 99 }).await.is_err());
        // Nobody listens there.
        let request = v1::AddMemberRequest { node_id: 9, peer_addr: "127.0.0.1:1".into(), learner_only: false };
        let refusal = tokio::time::timeout(Duration::from_secs(20), operator.add_member(request)).await.context("AddMember hangs")?;
        ensure!(refusal.is_err_and(|status| status.message().contains("127.0.0.1:1")), "it does not say who cannot be reached");
        ensure!(replica.status().await?.members.len() == 3);
    }
    bystander.ends_unharmed().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_over_the_limit_and_broken_streams_harm_nobody() -> anyhow::Result<()> {
    let cluster = Cluster::three("broken-streams").await?;
    let bystander = Bystander::at(&cluster).await?;
    for replica in cluster.apis() {
        // 1 MiB is the limit, and the connection lives on.
        let request = v1::AcquireRequest { holder_data: vec![0; 1 << 20].into(), ..api::acquire("default", "lease", "me", 5000) };
        let status = replica.acquire(request).await.err().context("a message of more than 1 MiB was taken")?;
        refused("a message of more than 1 MiB", Err::<(), _>(status), Code::InvalidArgument, "")?;
        ensure!(replica.get("default", "lease").await.is_err_and(|status| status.code() == Code::NotFound));
    }
    let api = Api::new(&cluster.replicas[0].client.addr());
    let held = api.grant(api::acquire("default", "wanted", "holder", 60_000)).await?;
    for _ in 0..20 {
        // Streams of renewals that end at once, or never say anything.
        drop(api.lease.clone().renew(tokio_stream::empty()).await);
        drop(tokio::time::timeout(Duration::from_millis(5), api.lease.clone().renew(tokio_stream::pending())).await);
        // A waiter whose connection goes away.
        let other = Api::new(&cluster.replicas[1].client.addr());
        let request = v1::AcquireRequest { wait_for: seconds(60), ..api::acquire("default", "wanted", "waiter", 60_000) };
        let answers = other.lease.clone().acquire(request).await?;
        drop((answers, other));
    }
    // They keep their place for 10 s only: when the lease becomes free nobody is there to claim it.
    api.release("default", "wanted", held.token).await?;
    let mine = v1::AcquireRequest { wait_for: seconds(60), ..api::acquire("default", "wanted", "me", 5000) };
    let mut answers = api.lease.clone().acquire(mine).await?.into_inner();
    let granted = tokio::time::timeout(Duration::from_secs(25), async {
        while let Some(answer) = answers.message().await? {
            if matches!(answer.result, Some(v1::acquire_response::Result::Granted(_))) {
                return anyhow::Ok(());
            }
        }
        anyhow::bail!("the stream ended")
    });
    granted.await.context("abandoned waiters are still in the way")??;
    bystander.ends_unharmed().await?;
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_any_port_harms_nobody() -> anyhow::Result<()> {
    let mut rng = Rng::seeded("garbage_on_any_port_harms_nobody");
    let mut cluster = Cluster::three("garbage").await?;
    let bystander = Bystander::at(&cluster).await?;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut noise = vec![0_u8; 64 << 10];
    noise.iter_mut().for_each(|byte| *byte = u8::try_from(rng.below(256)).expect("a byte"));
    let frame = |length: u32, kind: u8| [&length.to_be_bytes()[1..], &[kind, 0, 0, 0, 0, 1]].concat();
    let garbage: Vec<Vec<u8>> = vec![
        noise.clone(),
        [preface.clone(), noise.clone()].concat(),
        // Half a preface; a preface and half a frame; frames of impossible sizes and kinds.
        preface[..10].to_vec(),
        [preface.clone(), frame(5, 1)].concat(),
        [preface.clone(), frame(0x00FF_FFFF, 0)].concat(),
        [preface.clone(), frame(0, 9).repeat(1000)].concat(),
        [preface, frame(0, 4), frame(8, 0), vec![0; 8]].concat(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        [b"GET /".to_vec(), b"a".repeat(200_000), b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\n".to_vec(), b"X: y\r\n".repeat(20_000), b"\r\n".to_vec()].concat(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0; 100_000],
        Vec::new(),
    ];
    let ports: Vec<String> = cluster.replicas.iter().flat_map(|replica| [replica.client.addr(), replica.peer.addr(), replica.http.addr()]).collect();
    let mut open = Vec::new();
    for addr in &ports {
        for bytes in &garbage {
            let mut stream = TcpStream::connect(addr).await.with_context(|| format!("{addr} does not listen any more"))?;
            // It may hang up in the middle: its right.
            stream.write_all(bytes).await.ok();
            if rng.below(2) == 0 {
                stream.shutdown().await.ok();
                let mut answer = Vec::new();
                tokio::time::timeout(Duration::from_millis(30), stream.read_to_end(&mut answer)).await.ok();
            } else {
                // Left open, for the server to look after.
                open.push(stream);
            }
        }
    }
    for replica in &mut cluster.replicas {
        replica.still_alive()?;
        replica.ready().await?;
        let fresh = Api::new(&replica.client.addr());
        let token = fresh.grant(api::acquire("default", "after", "me", 5000)).await?.token;
        fresh.release("default", "after", token).await?;
    }
    bystander.ends_unharmed().await?;
    drop(open);
    cluster.passed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_of_another_cluster_is_not_listened_to() -> anyhow::Result<()> {
    let cluster = Cluster::three("wrong-peer").await?;
    let bystander = Bystander::at(&cluster).await?;
    let before = cluster.api().status().await?;
    for replica in &cluster.replicas {
        let mut peer = PeerServiceClient::connect(format!("http://{}", replica.peer.addr())).await?;
        let hello = peer.hello(HelloRequest {}).await?.into_inner();
        ensure!(hello.node_id == replica.id && !hello.cluster_id.is_empty(), "{hello:?}");
        let right = hello.cluster_id.clone();
        let me = format!("{} {}", replica.id, hello.replica_id);
        let somebody = "1 00000000-0000-4000-8000-000000000000";
        let cases: Vec<(&str, Vec<(&str, String)>)> = vec![
            ("nothing said", vec![]),
            (
                "another cluster",
                vec![("tenure-cluster", "11111111-1111-4111-8111-111111111111".into()), ("tenure-from", somebody.into()), ("tenure-to", me.clone())],
            ),
            ("an unknown replica", vec![("tenure-cluster", right.clone()), ("tenure-from", somebody.into()), ("tenure-to", me.clone())]),
            ("meant for another", vec![("tenure-cluster", right.clone()), ("tenure-from", me.clone()), ("tenure-to", somebody.into())]),
            ("nonsense", vec![("tenure-cluster", "?".into()), ("tenure-from", "?".into()), ("tenure-to", "? ? ?".into())]),
        ];
        for (what, metadata) in cases {
            // A vote of a far future would depose the raft leader, if anybody listened.
            let vote = tenure_proto::peer::v1::Vote { term: 1_000_000, node: 1, committed: false };
            let mut request = tonic::Request::new(VoteRequest { vote: Some(vote), last_log_id: None, leadership_transfer: true });
            for (key, value) in &metadata {
                request.metadata_mut().insert(*key, value.parse()?);
            }
            let status = peer.vote(request).await.err().with_context(|| format!("{what}: answered"))?;
            ensure!(
                matches!(status.code(), Code::PermissionDenied | Code::FailedPrecondition | Code::InvalidArgument | Code::Unauthenticated),
                "{what}: {status}"
            );
            let mut request = tonic::Request::new(ReadIndexRequest {});
            for (key, value) in &metadata {
                request.metadata_mut().insert(*key, value.parse()?);
            }
            peer.read_index(request).await.err().with_context(|| format!("{what}: answered"))?;
        }
    }
    let after = cluster.api().status().await?;
    ensure!(after.term == before.term, "the term went from {} to {}", before.term, after.term);
    bystander.ends_unharmed().await?;
    cluster.passed()
}
