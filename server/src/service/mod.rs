//! The public gRPC face: handlers without logic. `validate.rs` checks and converts requests, `status.rs` is the one place where errors become
//! `tonic::Status`, `transport.rs` sets every limit of the connection.

mod acquire;
mod cluster;
mod fields;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod header;
mod health;
mod lease;
mod pages;
mod read;
mod renew;
pub(crate) mod status;
#[cfg(test)]
mod tests;
mod transport;
mod unguessable;
mod validate;
#[cfg(test)]
mod validate_tests;
mod watch;
mod write;

use std::{sync::Arc, time::Duration};

use tenure_proto::peer::v1::{Command, Outcome};
use tonic::{Status, metadata::MetadataMap};

pub(crate) use transport::{rules, serve_clients};

use crate::{
    clock::Clock, config::Config, consensus::Consensus, disk::SharedDisk, history::History, identity::Identity, members::Members, read::Reads,
    readiness::Readiness, replica::Applications, waiting::Waiting, watch::WatchHub, write::Router,
};

/// Everything the handlers need, once per replica.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    pub(crate) applications: Arc<Applications>,
    pub(crate) consensus: Consensus,
    pub(crate) router: Router,
    pub(crate) reads: Reads,
    pub(crate) members: Members,
    pub(crate) watches: WatchHub,
    pub(crate) waiting: Waiting,
    pub(crate) history: Option<History>,
    pub(crate) readiness: Readiness,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: SharedDisk,
    /// For minted request ids and page tokens.
    pub(crate) seed: u64,
    /// Cancelled when the replica goes down: streams end with a retryable status.
    pub(crate) stopping: tokio_util::sync::CancellationToken,
}

/// How long a call without a deadline of its own may wait for a raft leader.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What all handlers share.
struct Service {
    parts: Arc<Parts>,
    headers: header::Headers,
    pages: pages::Pages,
    ids: Arc<unguessable::Unguessable>,
}

impl Service {
    fn new(parts: Arc<Parts>) -> Arc<Self> {
        let headers = header::Headers { identity: parts.identity.clone(), leadership: parts.consensus.leadership() };
        let ids = Arc::new(unguessable::Unguessable::new(parts.seed));
        let pages = pages::Pages::new(ids.clone());
        Arc::new(Self { parts, headers, pages, ids })
    }

    fn header(&self) -> Option<tenure_proto::v1::ResponseHeader> {
        self.headers.at(self.parts.applications.progress().revision)
    }

    /// For the answer to a write: at least as new as what it shows, although this replica may not have applied that yet. A watch after it, or a read
    /// with it as `min_revision`, waits until it has.
    fn header_showing(&self, lease: Option<&tenure_proto::v1::Lease>) -> Option<tenure_proto::v1::ResponseHeader> {
        self.header_at_least(lease.map_or(0, |lease| lease.revision.max(lease.renew_revision)))
    }

    fn header_at_least(&self, revision: u64) -> Option<tenure_proto::v1::ResponseHeader> {
        self.headers.at(self.parts.applications.progress().revision.max(revision))
    }

    fn mint_request_id(&self) -> String {
        format!("{:032x}", self.ids.next())
    }

    async fn submit(&self, command: Command, patience: Duration) -> Result<Outcome, Status> {
        self.parts.router.submit(command, patience).await.map_err(|error| status::submit(&error))
    }
}

/// How messages name a lease.
fn named(key: Option<&tenure_proto::peer::v1::Key>) -> String {
    key.map(|key| format!("{}/{}", key.namespace, key.name)).unwrap_or_default()
}

/// As long as the caller does (a little less, so that it hears why), or [`PATIENCE`].
fn patience(metadata: &MetadataMap) -> Duration {
    let given = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(grpc_timeout);
    given.map_or(PATIENCE, |timeout| timeout.saturating_sub((timeout / 10).min(Duration::from_millis(100))))
}

/// `8 digits, unit`, as gRPC writes it.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = Some(digits).filter(|digits| digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3_600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod patience_tests {
    use super::*;

    #[test]
    fn patience_is_a_little_less_than_the_deadline_of_the_call() {
        let with = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", tonic::metadata::MetadataValue::from_static(text));
            patience(&metadata)
        };
        assert_eq!(with("10S"), Duration::from_millis(9_900));
        assert_eq!(with("500m"), Duration::from_millis(450));
        assert_eq!(with("2H"), Duration::from_millis(7_199_900));
        for nonsense in ["", "S", "10", "123456789S", "1é", "-1S", "+1S"] {
            if let Ok(value) = nonsense.parse() {
                let mut metadata = MetadataMap::new();
                metadata.insert("grpc-timeout", value);
                assert_eq!(patience(&metadata), PATIENCE, "{nonsense}");
            }
        }
    }
}
