//! Reads among many leases: one of them, all of a label, all there are. Linearizable, as is the default on both sides; etcd has no labels.
//!
//! Every answer must have what was asked for, and all of it.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, ensure};
use tenure_proto::v1::{AcquireRequest, GetRequest, ListRequest};
use tonic::transport::Channel;

use crate::{
    cluster::{Cluster, Target},
    connect,
    etcd::{
        self,
        pb::{RangeRequest, kv_client::KvClient},
    },
    load::{self, Op, Plan},
    report::Figure,
    tenure::{self, storm},
};

const CONNECTIONS: usize = 16;
const READERS: usize = 64;
const SELECTORS: usize = 4;
const PAGE: usize = 1_000;
/// One lease in so many has a given label.
const GROUPS: usize = 100;

fn name_of(n: usize) -> String {
    format!("node-{n:07}")
}

fn request(n: usize) -> anyhow::Result<AcquireRequest> {
    Ok(AcquireRequest { labels: [("group".to_owned(), format!("g{}", n % GROUPS))].into(), ..super::million::request(n)? })
}

pub(super) async fn run(what: String, cluster: &Cluster, leases: usize, plan: Plan) -> anyhow::Result<Figure> {
    let endpoints = cluster.endpoints();
    match cluster.target {
        Target::Tenure => drop(storm::acquire(&endpoints, leases, request).await?),
        Target::Etcd => drop(etcd::storm::put_all(&endpoints, leases, None, |n| format!("tenure-bench/{}", name_of(n))).await?),
    }
    let channels = connect::channels(&endpoints, CONNECTIONS).await?;
    let reader = |n: usize, what| Reader { target: cluster.target, channel: channels[n % channels.len()].clone(), what, leases, next: n * leases / READERS };
    let get = load::run((0..READERS).map(|n| reader(n, What::One)).collect(), plan, cluster).await?;
    let mut figure = Figure::of_load(what, cluster.target, &get, 1);
    if cluster.target == Target::Tenure {
        let select = load::run((0..SELECTORS).map(|n| reader(n, What::Label)).collect(), plan, cluster).await?;
        figure.values.push(("select_p50_ms", select.latency.value_at_quantile(0.5) as f64 / 1e6));
        figure.values.push(("select_p99_ms", select.latency.value_at_quantile(0.99) as f64 / 1e6));
    }
    let all = load::run(vec![reader(0, What::All)], plan, cluster).await?;
    figure.values.push(("list_p50_ms", all.latency.value_at_quantile(0.5) as f64 / 1e6));
    if let Some(usage) = &all.usage {
        let listed = (all.latency.len() * leases as u64).max(1) as f64;
        figure.values.push(("list_cpu_us_per_lease", usage.cpu().as_secs_f64() * 1e6 / listed));
    }
    Ok(figure)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    One,
    Label,
    All,
}

#[derive(Debug)]
struct Reader {
    target: Target,
    channel: Channel,
    what: What,
    leases: usize,
    next: usize,
}

impl Op for Reader {
    async fn once(&mut self) -> anyhow::Result<Option<Duration>> {
        let n = self.next;
        // Far from the one before, and every one in time.
        self.next = (n + 7_919) % self.leases;
        match (self.target, self.what) {
            (Target::Tenure, What::One) => {
                let request = GetRequest { namespace: tenure::NAMESPACE.to_owned(), name: name_of(n), ..Default::default() };
                let lease = tenure::Client::new(self.channel.clone()).get(request).await?.into_inner().lease.context("a lease")?;
                ensure!(lease.name == name_of(n) && lease.holder == name_of(n), "another lease: {lease:?}");
            }
            (Target::Tenure, What::Label) => {
                let group = n % GROUPS;
                let expected = (self.leases - group).div_ceil(GROUPS);
                self.list(format!("group=g{group}"), expected).await?;
            }
            (Target::Tenure, What::All) => self.list(String::new(), self.leases).await?,
            (Target::Etcd, What::All) => self.range().await?,
            (Target::Etcd, _) => {
                let key = format!("tenure-bench/{}", name_of(n)).into_bytes();
                let found = KvClient::new(self.channel.clone()).range(RangeRequest { key: key.clone(), ..Default::default() }).await?.into_inner();
                ensure!(found.kvs.len() == 1 && found.kvs[0].key == key, "another record: {:?}", found.kvs);
            }
        }
        Ok(None)
    }
}

impl Reader {
    /// Page by page.
    async fn list(&self, label_selector: String, expected: usize) -> anyhow::Result<()> {
        let (mut client, mut names, mut page_token) = (tenure::Client::new(self.channel.clone()), HashSet::with_capacity(expected), String::new());
        loop {
            let request = ListRequest {
                namespace: tenure::NAMESPACE.to_owned(),
                label_selector: label_selector.clone(),
                page_size: u32::try_from(PAGE)?,
                page_token,
                ..Default::default()
            };
            let page = client.list(request).await?.into_inner();
            for lease in page.leases {
                ensure!(names.insert(lease.name), "a lease was listed twice");
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        ensure!(names.len() == expected, "{} leases of {expected} were listed", names.len());
        Ok(())
    }

    /// Likewise.
    async fn range(&self) -> anyhow::Result<()> {
        let (mut client, mut listed) = (KvClient::new(self.channel.clone()), 0);
        let (mut key, range_end) = (b"tenure-bench/".to_vec(), b"tenure-bench0".to_vec());
        loop {
            let page = client.range(RangeRequest { key, range_end: range_end.clone(), limit: PAGE as i64 }).await?.into_inner();
            listed += page.kvs.len();
            match page.kvs.last() {
                Some(last) if page.kvs.len() == PAGE => key = [last.key.as_slice(), &[0]].concat(),
                _ => break,
            }
        }
        ensure!(listed == self.leases, "{listed} records of {} were listed", self.leases);
        Ok(())
    }
}
