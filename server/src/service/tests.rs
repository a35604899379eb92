//! A replica that is a cluster by itself, and its clients over TCP: what only shows with everything in place.

use std::{future::Future, time::Duration};

use tenure_proto::v1::{
    self, acquire_response::Result as Answer, cluster_service_client::ClusterServiceClient, lease_service_client::LeaseServiceClient,
    renew_result::Result as Renewed,
};
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

use crate::{
    clock::SystemClock,
    config::{Addresses, Config, RaftTiming, ServiceLimits},
    disk::SystemDisk,
    net::{self, Listeners, TcpConnector},
};

struct Replica {
    addr: String,
    leases: LeaseServiceClient<Channel>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
    dir: tempfile::TempDir,
}

impl Replica {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut ports = Vec::new();
        for _ in 0..3 {
            ports.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        }
        let addr = |n: usize| ports[n].local_addr().expect("bound").to_string();
        let config = Config {
            node_id: 1,
            data_dir: dir.path().into(),
            advertise: Addresses { client: addr(0), peer: addr(1), http: addr(2) },
            initial_members: vec![(1, addr(1))],
            bootstrap: true,
            raft: RaftTiming::default(),
            limits: ServiceLimits::default(),
            snapshot_log_bytes: 1 << 26,
            history: true,
            // What these tests count is theirs alone.
            server_identity: None,
            host_name: String::new(),
        };
        let client = addr(0);
        let [client_port, peer_port, http_port] = <[TcpListener; 3]>::try_from(ports).expect("three");
        let listeners = Listeners { client: net::accept(client_port), peer: net::accept(peer_port), http: net::accept(http_port) };
        let (stop, stopped) = oneshot::channel::<()>();
        let (connector, clock, disk) = (std::sync::Arc::new(TcpConnector), SystemClock::shared(), SystemDisk::shared());
        let surroundings = crate::Surroundings {
            listeners,
            clients: None,
            connector,
            clock,
            disk,
            descriptors: crate::descriptors::Descriptors::boundless(),
            seed: 42,
            observer: None,
        };
        let running = tokio::spawn(crate::run(config, surroundings, async move { drop(stopped.await) }));
        let channel = Channel::from_shared(format!("http://{client}")).expect("an address").connect().await.expect("it listens");
        let leases = LeaseServiceClient::new(channel.clone());
        let mut health = HealthClient::new(channel).watch(HealthCheckRequest { service: "tenure.v1.LeaseService".into() }).await.expect("health").into_inner();
        while health.message().await.expect("health goes on").expect("health goes on").status() != ServingStatus::Serving {}
        Self { addr: client, leases, stop, running, dir }
    }

    async fn acquire(&mut self, request: v1::AcquireRequest) -> Result<Streaming<v1::AcquireResponse>, Status> {
        self.leases.acquire(request).await.map(tonic::Response::into_inner)
    }

    /// Granted at once.
    async fn hold(&mut self, name: &str, holder: &str) -> v1::Lease {
        let mut answers = self.acquire(request(name, holder, 0)).await.expect("an answer");
        match next(&mut answers).await {
            Answer::Granted(v1::Granted { lease, must_renew: false }) => lease.expect("a lease"),
            other => panic!("{other:?}"),
        }
    }

    async fn get(&mut self, name: &str) -> v1::Lease {
        self.leases.get(v1::GetRequest { name: name.into(), ..Default::default() }).await.expect("it is there").into_inner().lease.expect("a lease")
    }

    async fn release(&mut self, name: &str, token: u64) -> v1::ReleaseResponse {
        self.leases.release(v1::ReleaseRequest { name: name.into(), token, ..Default::default() }).await.expect("an answer").into_inner()
    }

    async fn watch(&mut self, request: v1::WatchRequest) -> Streaming<v1::WatchResponse> {
        self.leases.watch(request).await.expect("a watch").into_inner()
    }

    async fn stop(self) {
        drop(self.stop);
        self.running.await.expect("no panic").expect("a clean end");
        drop(self.dir);
    }
}

fn request(name: &str, holder: &str, wait_s: i64) -> v1::AcquireRequest {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    v1::AcquireRequest {
        name: name.into(),
        holder: holder.into(),
        duration: seconds(60),
        wait_for: (wait_s > 0).then(|| seconds(wait_s)).flatten(),
        ..Default::default()
    }
}

async fn next(answers: &mut Streaming<v1::AcquireResponse>) -> Answer {
    let answer = answers.message().await.expect("no error").expect("not at its end");
    assert!(!answer.request_id.is_empty());
    let header = answer.header.expect("a header");
    assert!(!header.cluster_id.is_empty() && !header.raft_leader.is_empty() && header.served_by == 1);
    answer.result.expect("a result")
}

fn position(answer: Answer) -> u32 {
    match answer {
        Answer::Queued(queued) => queued.position,
        other => panic!("{other:?}"),
    }
}

fn reason(error: &Status) -> String {
    error.get_details_error_info().unwrap_or_else(|| panic!("a reason: {error:?}")).reason
}

/// Events until one is of this lease and kind.
async fn until(watch: &mut Streaming<v1::WatchResponse>, kind: v1::event::Type, name: &str) -> v1::Event {
    loop {
        let response = watch.message().await.expect("no error").expect("not at its end");
        if let Some(event) = response.events.into_iter().find(|event| event.r#type() == kind && event.lease.as_ref().is_some_and(|lease| lease.name == name)) {
            return event;
        }
    }
}

/// Fails instead of hanging.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("within a minute")
}

#[tokio::test]
async fn lease_goes_through_its_life() {
    within(async {
        let mut replica = Replica::start().await;
        let held = replica.hold("db", "a").await;
        assert!(held.token > 1 << 40);
        let mut denied = replica.acquire(request("db", "b", 0)).await.unwrap();
        let Answer::Denied(v1::Denied { lease: Some(lease) }) = next(&mut denied).await else { panic!("somebody holds it") };
        assert_eq!(lease.holder, "a");
        assert!(lease.expires_in.unwrap().seconds > 50);
        assert!(denied.message().await.unwrap().is_none(), "one answer");

        let shown = replica.get("db").await;
        assert_eq!((shown.token, shown.recent_holds.len()), (held.token, 1));
        assert!(shown.expires_in.is_some());
        let released = replica.release("db", held.token).await;
        assert_eq!(released.outcome(), v1::release_response::Outcome::Released);
        assert_eq!(replica.release("db", held.token).await.outcome(), v1::release_response::Outcome::AlreadyReleased);

        let again = replica.hold("db", "c").await;
        assert!(again.token > held.token);
        let history = replica.leases.history(v1::HistoryRequest { name: "db".into(), ..Default::default() }).await.unwrap().into_inner();
        let holders: Vec<_> = history.holds.iter().map(|hold| (hold.holder.as_str(), hold.end_reason())).collect();
        assert_eq!(holders, [("c", v1::EndReason::Unspecified), ("a", v1::EndReason::Released)]);
        assert_eq!(history.complete_since, 0);

        let in_use = replica.leases.delete(v1::DeleteRequest { name: "db".into(), ..Default::default() }).await.unwrap_err();
        assert_eq!((in_use.code(), reason(&in_use)), (Code::FailedPrecondition, "LEASE_IN_USE".into()));
        replica.leases.delete(v1::DeleteRequest { name: "db".into(), force: true, ..Default::default() }).await.unwrap();
        let gone = replica.leases.get(v1::GetRequest { name: "db".into(), ..Default::default() }).await.unwrap_err();
        assert_eq!((gone.code(), reason(&gone)), (Code::NotFound, "LEASE_NOT_FOUND".into()));
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn waiters_are_told_their_positions_and_granted_in_turn() {
    within(async {
        let mut replica = Replica::start().await;
        let held = replica.hold("db", "a").await;
        let mut first = replica.acquire(request("db", "b", 60)).await.unwrap();
        assert_eq!(position(next(&mut first).await), 1);
        let mut second = replica.acquire(request("db", "c", 60)).await.unwrap();
        assert_eq!(position(next(&mut second).await), 2);
        replica.release("db", held.token).await;
        let Answer::Granted(v1::Granted { lease: Some(lease), must_renew: true }) = next(&mut first).await else { panic!("b is next") };
        assert_eq!(lease.holder, "b");
        assert!(first.message().await.unwrap().is_none(), "a grant is the last answer");
        assert_eq!(position(next(&mut second).await), 1);
        // b never renews: its claim ends, and c is granted.
        let Answer::Granted(v1::Granted { lease: Some(lease), .. }) = next(&mut second).await else { panic!("c is next") };
        assert_eq!(lease.holder, "c");
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn wait_that_is_over_is_denied() {
    within(async {
        let mut replica = Replica::start().await;
        replica.hold("db", "a").await;
        let mut waits = replica.acquire(request("db", "b", 1)).await.unwrap();
        assert_eq!(position(next(&mut waits).await), 1);
        let Answer::Denied(v1::Denied { lease: Some(lease) }) = next(&mut waits).await else { panic!("a holds it on") };
        assert_eq!(lease.holder, "a");
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn waiter_that_goes_away_is_skipped() {
    within(async {
        let mut replica = Replica::start().await;
        let held = replica.hold("db", "a").await;
        let mut leaves = replica.acquire(request("db", "b", 60)).await.unwrap();
        assert_eq!(position(next(&mut leaves).await), 1);
        let mut stays = replica.acquire(request("db", "c", 60)).await.unwrap();
        assert_eq!(position(next(&mut stays).await), 2);
        let mut watch = replica.watch(v1::WatchRequest { name: "db".into(), ..Default::default() }).await;
        drop(leaves);
        replica.release("db", held.token).await;
        // At worst b is granted before its departure is known, and then gives the grant up at once.
        let granted = loop {
            match next(&mut stays).await {
                Answer::Queued(_) => {}
                Answer::Granted(granted) => break granted.lease.expect("a lease"),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(granted.holder, "c");
        let event = until(&mut watch, v1::event::Type::Acquired, "db").await;
        assert_ne!(event.previous_holder, "", "a hand-over is one change");
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn grant_that_nobody_took_is_given_back() {
    within(async {
        let mut replica = Replica::start().await;
        let mut watch = replica.watch(v1::WatchRequest::default()).await;
        // Without a window the answer stays at the replica.
        let endpoint = Channel::from_shared(format!("http://{}", replica.addr)).unwrap().initial_stream_window_size(0);
        let mut deaf = LeaseServiceClient::new(endpoint.connect().await.unwrap());
        let answers = deaf.acquire(request("db", "a", 0)).await.unwrap();
        until(&mut watch, v1::event::Type::Acquired, "db").await;
        drop(answers);
        let released = until(&mut watch, v1::event::Type::Released, "db").await;
        assert_eq!((released.previous_holder.as_str(), released.reason()), ("a", v1::EndReason::Released));
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn request_ids_and_page_tokens_tell_nothing_of_each_other() {
    within(async {
        let mut replica = Replica::start().await;
        let mut seen = Vec::new();
        for name in ["a", "b", "c"] {
            let mut answers = replica.acquire(request(name, "x", 0)).await.unwrap();
            seen.push(answers.message().await.unwrap().unwrap().request_id);
        }
        let page = replica.leases.list(v1::ListRequest { page_size: 1, ..Default::default() }).await.unwrap().into_inner();
        seen.push(page.next_page_token[..32].to_owned());
        for (at, one) in seen.iter().enumerate() {
            assert_eq!(one.len(), 32, "128 bits in {one}");
            for other in &seen[at + 1..] {
                let same = one.bytes().zip(other.bytes()).filter(|(one, other)| one == other).count();
                assert!(same < 16, "{one} is like {other}");
            }
        }
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn grant_that_another_attempt_has_renewed_is_not_given_back() {
    within(async {
        let mut replica = Replica::start().await;
        let endpoint = Channel::from_shared(format!("http://{}", replica.addr)).unwrap().initial_stream_window_size(0);
        let mut deaf = LeaseServiceClient::new(endpoint.connect().await.unwrap());
        let named = v1::AcquireRequest { request_id: "r".into(), ..request("db", "a", 0) };
        let answers = deaf.acquire(named.clone()).await.unwrap();
        let mut again = replica.acquire(named).await.unwrap();
        let Answer::Granted(v1::Granted { lease: Some(lease), must_renew: true }) = next(&mut again).await else { panic!("it is the same request") };
        let items = vec![v1::RenewItem { token: lease.token, ..Default::default() }];
        let mut renewals = replica.leases.renew(tokio_stream::once(v1::RenewRequest { items })).await.unwrap().into_inner();
        renewals.message().await.unwrap().unwrap();
        let mut watch = replica.watch(v1::WatchRequest::default()).await;
        drop(answers);
        // Another change, through the same connection, after the departure was seen.
        deaf.delete(v1::DeleteRequest { name: "nothing".into(), ..Default::default() }).await.unwrap_err();
        replica.hold("other", "a").await;
        until(&mut watch, v1::event::Type::Acquired, "other").await;
        assert_eq!(replica.get("db").await.token, lease.token);
        assert_eq!(replica.get("db").await.holder, "a");
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn renewals_are_pipelined_and_a_bad_one_ends_the_stream_after_the_good_ones() {
    within(async {
        let mut replica = Replica::start().await;
        let token = replica.hold("db", "a").await.token;
        let (send, messages) = tokio::sync::mpsc::unbounded_channel();
        let item = |token| v1::RenewItem { token, ..Default::default() };
        for items in [vec![item(token)], vec![item(token), item(7)], vec![], vec![item(0)]] {
            send.send(v1::RenewRequest { items }).unwrap();
        }
        drop(send);
        let mut answers = replica.leases.renew(UnboundedReceiverStream::new(messages)).await.unwrap().into_inner();
        let first = answers.message().await.unwrap().unwrap();
        assert_eq!(first.renew_within, Some(prost_types::Duration { seconds: 20, nanos: 0 }));
        let second = answers.message().await.unwrap().unwrap();
        assert!(matches!(second.results[0].result, Some(Renewed::Renewed(_))));
        let Some(Renewed::Lost(lost)) = &second.results[1].result else { panic!("7 was never granted") };
        assert_eq!(lost.reason(), v1::EndReason::UnknownToken);
        assert_eq!(answers.message().await.unwrap().unwrap().results, []);
        let error = answers.message().await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains("items[0].token"));
        assert_eq!(replica.get("db").await.token, token, "the lease is unhurt");
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn watch_shows_what_is_there_then_every_change_and_resumes() {
    within(async {
        let mut replica = Replica::start().await;
        replica.hold("a", "h").await;
        let mut watch = replica.watch(v1::WatchRequest { send_initial: true, ..Default::default() }).await;
        let initial = watch.message().await.unwrap().unwrap();
        assert_eq!(initial.events.len(), 1);
        assert_eq!(initial.events[0].r#type(), v1::event::Type::Created);
        assert!(initial.bookmark >= initial.events[0].revision);
        let token = replica.hold("b", "h").await.token;
        let acquired = until(&mut watch, v1::event::Type::Acquired, "b").await;
        assert_eq!((acquired.revision, acquired.lease.unwrap().token), (token, token));
        replica.release("b", token).await;
        let released = until(&mut watch, v1::event::Type::Released, "b").await;
        assert_eq!((released.previous_holder.as_str(), released.reason()), ("h", v1::EndReason::Released));

        let mut resumed = replica.watch(v1::WatchRequest { after_revision: initial.bookmark, ..Default::default() }).await;
        let kinds = async {
            let mut kinds = Vec::new();
            while kinds.len() < 2 {
                kinds.extend(resumed.message().await.unwrap().unwrap().events.iter().map(v1::Event::r#type));
            }
            kinds
        };
        assert_eq!(kinds.await, [v1::event::Type::Acquired, v1::event::Type::Released]);
        let error = replica.leases.watch(v1::WatchRequest { after_revision: 1, ..Default::default() }).await.unwrap_err();
        assert_eq!((error.code(), reason(&error)), (Code::OutOfRange, "REVISION_COMPACTED".into()));
        let floor: u64 = error.get_details_error_info().unwrap().metadata["floor"].parse().unwrap();
        replica.watch(v1::WatchRequest { after_revision: floor, ..Default::default() }).await;
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn pages_show_the_revision_of_the_first() {
    within(async {
        let mut replica = Replica::start().await;
        for n in 0..5 {
            replica.leases.put(v1::PutRequest { name: format!("l{n}"), ..Default::default() }).await.unwrap();
        }
        let first = replica.leases.list(v1::ListRequest { page_size: 2, ..Default::default() }).await.unwrap().into_inner();
        replica.leases.delete(v1::DeleteRequest { name: "l3".into(), ..Default::default() }).await.unwrap();
        let mut names: Vec<String> = Vec::new();
        let mut page = first.clone();
        loop {
            assert_eq!(page.header.as_ref().unwrap().revision, first.header.as_ref().unwrap().revision);
            names.extend(page.leases.into_iter().map(|lease| lease.name));
            if page.next_page_token.is_empty() {
                break;
            }
            page = replica.leases.list(v1::ListRequest { page_size: 2, page_token: page.next_page_token, ..Default::default() }).await.unwrap().into_inner();
        }
        assert_eq!(names, ["l0", "l1", "l2", "l3", "l4"]);
        replica.stop().await;
    })
    .await;
}

/// Sends what is no request of this call: its first field has another type in all of them.
async fn wrong_request(addr: &str, path: &'static str) -> Status {
    let channel = Channel::from_shared(format!("http://{addr}")).expect("an address").connect().await.expect("it listens");
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("ready");
    let codec = tonic_prost::ProstCodec::<prost_types::Timestamp, prost_types::Timestamp>::default();
    let message = futures::stream::iter([prost_types::Timestamp { seconds: 5, nanos: 0 }]);
    let answer = grpc.streaming(Request::new(message), http::uri::PathAndQuery::from_static(path), codec).await;
    match answer {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.expect_err("no answer"),
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_a_reason() {
    within(async {
        let replica = Replica::start().await;
        for (path, expected) in [
            ("/tenure.v1.LeaseService/Get", (Code::InvalidArgument, "INVALID_REQUEST")),
            ("/tenure.v1.LeaseService/Watch", (Code::InvalidArgument, "INVALID_REQUEST")),
            ("/tenure.v1.LeaseService/Renew", (Code::InvalidArgument, "INVALID_REQUEST")),
            ("/tenure.v1.LeaseService/Nothing", (Code::Unimplemented, "UNKNOWN_CALL")),
            ("/nobody.v1.Nothing/Get", (Code::Unimplemented, "UNKNOWN_CALL")),
        ] {
            let error = wrong_request(&replica.addr, path).await;
            assert_eq!((error.code(), reason(&error).as_str()), expected, "{path}: {error}");
            assert!(!error.message().is_empty(), "{path}");
        }
        let channel = Channel::from_shared(format!("http://{}", replica.addr)).expect("an address").connect().await.expect("it listens");
        let error = HealthClient::new(channel).check(HealthCheckRequest { service: "nobody".into() }).await.expect_err("unknown");
        assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "UNKNOWN_SERVICE"));
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn bad_input_hurts_nobody_else() {
    within(async {
        let mut replica = Replica::start().await;
        let token = replica.hold("db", "a").await.token;
        let mut garbage = tokio::net::TcpStream::connect(&replica.addr).await.unwrap();
        garbage.write_all(&[0xa5; 4_096]).await.unwrap();
        let mut http1 = tokio::net::TcpStream::connect(&replica.addr).await.unwrap();
        http1.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let large = v1::AcquireRequest { annotations: [("a".to_owned(), "x".repeat(2 << 20))].into(), ..request("big", "a", 0) };
        let error = replica.acquire(large).await.map(drop).unwrap_err();
        assert_eq!((error.code(), reason(&error)), (Code::InvalidArgument, "INVALID_REQUEST".into()));
        assert!(error.message().contains(&(1 << 20).to_string()), "{}", error.message());
        let unknown = replica
            .leases
            .release(v1::ReleaseRequest { name: "nobody".into(), token: 9, ..Default::default() })
            .await
            .map(|answer| answer.into_inner().outcome());
        assert!(unknown.is_err() || unknown.is_ok_and(|outcome| outcome == v1::release_response::Outcome::NotHolder));
        let mut late = Request::new(v1::GetRequest { name: "db".into(), min_revision: 1 << 52, ..Default::default() });
        late.set_timeout(Duration::from_millis(300));
        let behind = replica.leases.get(late).await.unwrap_err();
        assert_eq!((behind.code(), reason(&behind)), (Code::Unavailable, "REPLICA_BEHIND".into()));
        assert_eq!(replica.get("db").await.token, token, "on the connection that was scolded");
        replica.stop().await;
    })
    .await;
}

#[tokio::test]
async fn streams_end_with_a_retryable_status_when_the_replica_goes_down() {
    within(async {
        let mut replica = Replica::start().await;
        replica.hold("db", "a").await;
        let mut waits = replica.acquire(request("db", "b", 60)).await.unwrap();
        assert_eq!(position(next(&mut waits).await), 1);
        let mut watch = replica.watch(v1::WatchRequest::default()).await;
        watch.message().await.unwrap().unwrap();
        let (send, messages) = tokio::sync::mpsc::unbounded_channel::<v1::RenewRequest>();
        let mut renewals = replica.leases.renew(UnboundedReceiverStream::new(messages)).await.unwrap().into_inner();
        let stopped = tokio::spawn(replica.stop());
        for error in [waits.message().await.unwrap_err(), watch.message().await.unwrap_err(), renewals.message().await.unwrap_err()] {
            assert_eq!((error.code(), reason(&error)), (Code::Unavailable, "SHUTTING_DOWN".into()));
        }
        drop(send);
        stopped.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn status_tells_of_the_members_and_the_state() {
    within(async {
        let mut replica = Replica::start().await;
        replica.hold("db", "a").await;
        let channel = Channel::from_shared(format!("http://{}", replica.addr)).unwrap().connect().await.unwrap();
        let mut cluster = ClusterServiceClient::new(channel);
        let status = cluster.status(v1::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!((status.leases, status.held, status.members.len()), (1, 1, 1));
        let member = &status.members[0];
        assert!(member.is_raft_leader && member.reachable && member.client_addr == replica.addr);
        assert!(status.state_hash != 0 && status.applied_index > 0 && status.term > 0);
        let wrong = cluster.add_member(v1::AddMemberRequest::default()).await.unwrap_err();
        assert_eq!(wrong.code(), Code::InvalidArgument);
        replica.stop().await;
    })
    .await;
}
