//! gRPC health. "" says that the process lives; `tenure.v1.LeaseService` says whether a client may be sent here, as [`Readiness`] has it.

use tenure_proto::v1::{cluster_service_server::ClusterServiceServer, lease_service_server::LeaseServiceServer};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{cluster::Cluster, lease::Leases};
use crate::readiness::Readiness;

const LEASES: &str = <LeaseServiceServer<Leases> as NamedService>::NAME;
const CLUSTER: &str = <ClusterServiceServer<Cluster> as NamedService>::NAME;

/// Not before anything is known.
pub(super) async fn begin(reporter: &HealthReporter, readiness: &Readiness) {
    report(reporter, readiness.is_ready()).await;
    // Any replica tells what it knows.
    reporter.set_service_status(CLUSTER, ServingStatus::Serving).await;
}

/// Until the replica goes down, and then NOT_SERVING for good.
pub(super) async fn follow(reporter: HealthReporter, readiness: Readiness, stopping: CancellationToken) {
    let mut state = readiness.subscribe();
    loop {
        let ready = state.borrow_and_update().is_none();
        report(&reporter, ready).await;
        let going_on = tokio::select! {
            changed = state.changed() => changed.is_ok(),
            () = stopping.cancelled() => false,
        };
        if !going_on {
            report(&reporter, false).await;
            return;
        }
    }
}

async fn report(reporter: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    reporter.set_service_status(LEASES, status).await;
}
