//! Attacks that are many ordinary calls: acquires, puts, lists, releases.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use anyhow::Context as _;

use super::{
    Orders, Told,
    line::{Line, framed},
    storm::Storm,
};
use crate::{api, clock, v1};

const ACQUIRE: &str = "/tenure.v1.LeaseService/Acquire";
const RELEASE: &str = "/tenure.v1.LeaseService/Release";
const PUT: &str = "/tenure.v1.LeaseService/Put";
const LIST: &str = "/tenure.v1.LeaseService/List";
const STATUS: &str = "/tenure.v1.ClusterService/Status";

fn storm(addrs: &[String], path: &'static str, connections: usize, in_flight: usize) -> Storm {
    Storm { addrs: addrs.to_vec(), connections, in_flight, most: u64::MAX, path, metadata: Vec::new(), cancel_after: None }
}

/// Whole Acquires on four connections, each cancelled a millisecond after it was sent.
pub(crate) async fn cancelled_acquires(orders: Orders) -> anyhow::Result<Told> {
    let storm = Storm { cancel_after: Some(Duration::from_millis(1)), ..storm(&[orders.leader_client().to_owned()], ACQUIRE, 4, 64) };
    let counts = storm.blow(&orders, |number| framed(&api::acquire("cancelled", &format!("lease-{number}"), "careless", 60_000))).await;
    Ok(Told::of(counts.to_string()))
}

/// 100,000 leases, each in a namespace of its own, kept for ever.
pub(crate) async fn namespaces(orders: Orders) -> anyhow::Result<Told> {
    let storm = Storm { most: 100_000, ..storm(&orders.client, PUT, 6, 64) };
    let make = |number: u64| framed(&v1::PutRequest { namespace: format!("namespace-{number}"), name: "lease".into(), ..Default::default() });
    let counts = storm.blow(&orders, make).await;
    orders.end().await;
    Ok(Told::of(counts.to_string()))
}

/// Lists of one lease a page, 200 at once on one connection.
pub(crate) async fn lists_of_one(orders: Orders) -> anyhow::Result<Told> {
    let message = framed(&v1::ListRequest { namespace: orders.filled.clone(), page_size: 1, ..Default::default() });
    let counts = storm(&[orders.leader_client().to_owned()], LIST, 1, 200).blow(&orders, move |_| message.clone()).await;
    Ok(Told::of(counts.to_string()))
}

/// Status, 200 at once on one connection.
pub(crate) async fn statuses(orders: Orders) -> anyhow::Result<Told> {
    let message = framed(&v1::StatusRequest {});
    let counts = storm(&[orders.leader_client().to_owned()], STATUS, 1, 200).blow(&orders, move |_| message.clone()).await;
    Ok(Told::of(counts.to_string()))
}

/// So many labels; every value tells the number, so that each edit changes all of them.
fn labels(count: usize, key_bytes: usize, number: u64) -> HashMap<String, String> {
    let value = format!("{number:0>63}");
    (0..count).map(|at| (format!("k{at:0>width$}", width = key_bytes - 1), value.clone())).collect()
}

/// One lease whose labels are changed all the time by one client that waits for each answer: 900 KB of them, or as many as are taken.
pub(crate) async fn labels_edited(orders: Orders) -> anyhow::Result<Told> {
    let put = |count, key_bytes, number, annotation: usize| {
        let annotations = [("weight".to_owned(), "w".repeat(annotation))].into();
        framed(&v1::PutRequest { name: "labelled".into(), labels: labels(count, key_bytes, number), annotations, ..Default::default() })
    };
    // 7,000 labels of 126 bytes; where those are refused, 64 of them and the annotations that a lease may have.
    let line = Line::open(orders.leader_client()).await?;
    let large = line.call(PUT, &[], put(7_000, 63, 0, 0)).await?.code().await? == 0;
    let (count, annotation) = if large { (7_000, 0) } else { (64, 15 << 10) };
    let storm = Storm { most: 1_500, ..storm(&[orders.leader_client().to_owned()], PUT, 1, 1) };
    let storm = if large { storm } else { Storm { most: u64::MAX, ..storm } };
    let counts = storm.blow(&orders, move |number| put(count, 63, number + 1, annotation)).await;
    orders.end().await;
    Ok(Told::of(format!("{count} labels and {annotation} bytes of annotations at a time: {counts}")))
}

/// Releases of requests that nobody has ever sent, two million at most.
pub(crate) async fn bars(orders: Orders) -> anyhow::Result<Told> {
    let storm = Storm { most: 2_000_000, ..storm(&orders.client, RELEASE, 12, 256) };
    let make = |number: u64| {
        framed(&v1::ReleaseRequest { name: "barred".into(), holder: "nobody".into(), request_id: format!("request-{number}"), ..Default::default() })
    };
    let counts = storm.blow(&orders, make).await;
    Ok(Told::of(counts.to_string()))
}

/// 64 connections to the raft leader with 1,000 Puts in flight on each.
pub(crate) async fn puts_in_flight(orders: Orders) -> anyhow::Result<Told> {
    let storm = storm(&[orders.leader_client().to_owned()], PUT, 64, 1_000);
    let make = |number: u64| {
        let labels = [("number".to_owned(), number.to_string())].into();
        framed(&v1::PutRequest { namespace: "flood".into(), name: format!("lease-{}", number % 10_000), labels, ..Default::default() })
    };
    let counts = storm.blow(&orders, make).await;
    Ok(Told::of(counts.to_string()))
}

/// Leases that may be held though nobody was told, of a hundred asked for. 0: none may, but calls of the very end may still be on their way.
const UNTOLD_IN_A_HUNDRED: u64 = 1;
/// How long the cluster has to give back what nobody was told of.
const SETTLES_WITHIN: Duration = Duration::from_secs(4);

/// Acquires of free leases with a deadline of a millisecond; afterwards those are counted that are held though their asker was told nothing.
pub(crate) async fn short_deadlines(orders: Orders) -> anyhow::Result<Told> {
    let settles = SETTLES_WITHIN.min(orders.left() / 2);
    let storming = Orders { until: orders.until.saturating_sub(clock::nanos(settles)), ..orders.clone() };
    let storm = Storm { most: 40_000, metadata: vec![("grpc-timeout", "1m".to_owned())], ..storm(&orders.client, ACQUIRE, 6, 64) };
    let counts = storm.blow(&storming, |number| framed(&api::acquire("short", &format!("lease-{number}"), "hasty", 600_000))).await;
    let granted = counts.times(0);
    tokio::time::sleep(settles.min(orders.left())).await;
    let line = Line::open(orders.leader_client()).await.context("to count what is held")?;
    let (mut held, mut request) = (0, v1::ListRequest { namespace: "short".into(), page_size: 10_000, ..Default::default() });
    loop {
        let page: v1::ListResponse = line.ask(LIST, &request).await?;
        held += page.leases.iter().filter(|lease| lease.state() == v1::lease::State::Held).count() as u64;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let asked = counts.sent.load(Ordering::Relaxed);
    let untold = held.saturating_sub(granted);
    let mut told = Told::of(format!("{counts}; {held} leases held, {granted} of them by who was told so"));
    if untold * 100 > asked * UNTOLD_IN_A_HUNDRED {
        told.complaints.push(format!("{untold} of {asked} leases are held by callers who were never told so"));
    }
    Ok(told)
}
