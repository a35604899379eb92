//! Where clusters come from.

use anyhow::ensure;

use crate::{
    cli::Setup,
    cluster::{Binaries, Cluster, Target},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Lab {
    start: bool,
    endpoints: Vec<String>,
    pub(crate) binaries: Binaries,
}

impl Lab {
    pub(crate) fn new(setup: &Setup) -> Self {
        let binaries = Binaries { tenured: setup.tenured_bin.clone(), etcd: setup.etcd_bin.clone(), dir: setup.data_dir.clone() };
        Self { start: setup.start, endpoints: setup.endpoints.clone(), binaries }
    }

    /// A new one, or the one that is running.
    pub(crate) async fn cluster(&self, target: Target) -> anyhow::Result<Cluster> {
        if self.start || target == Target::Etcd {
            return self.new_cluster(target).await;
        }
        ensure!(!self.endpoints.is_empty(), "no --endpoints");
        Ok(Cluster::running(target, &self.endpoints))
    }

    /// A new one.
    pub(crate) async fn new_cluster(&self, target: Target) -> anyhow::Result<Cluster> {
        Cluster::start(target, &self.binaries).await
    }
}
