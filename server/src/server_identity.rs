//! The lease by which a replica says that it lives and where clients reach it, as Kubernetes' API servers do: `tenured-…` in `tenure-system`.
//!
//! A user of the write path like any other: nothing in the replica depends on it, and it must never hold up a start or a stop.
//!
//! - **Name**: `tenured-` and 26 characters of SHA-256 over host name and node id ([`name`]): the same after a restart.
//! - **Holder**: that name, `_`, and the id of the data directory. So the same replica, restarted, *reclaims* its lease: one change, a new token,
//!   no transition. The token is what differs from boot to boot.
//! - **Labels**: `tenure.dev/identity=tenured` and `kubernetes.io/hostname`.
//! - **Holder data**: JSON, `{"node_id":1,"client":"host:port","http":"host:port","version":"0.1.0"}`; the addresses are the advertised ones. Readers
//!   ignore what they do not know.
//! - Renewed every third of its duration, released at a graceful stop, removed by retention an hour after its end.

use std::{collections::HashMap, time::Duration};

use rand::{Rng as _, rngs::StdRng};
use sha2::{Digest as _, Sha256};
use tenure_proto::peer::v1::{Acquire, Command, Key, Outcome, Release, Renew, command::Kind as Ask, outcome::Kind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    consensus::Leadership,
    identity::Identity,
    write::{Router, SubmitError},
};

/// The cluster's own.
const NAMESPACE: &str = "tenure-system";
const RETENTION_MS: u64 = 3_600_000;
/// Of the interval, at random: replicas that were started together do not renew together for ever.
const JITTER: f64 = 0.04;
/// After an attempt that failed, at most.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a stop may take over saying goodbye. Without a quorum nobody would hear it.
const FAREWELL: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct ServerIdentity {
    key: Key,
    holder: String,
    holder_data: String,
    labels: HashMap<String, String>,
    duration: Duration,
}

/// What this boot has of the lease.
enum Hold {
    Nothing,
    /// Asked for under this request id; the answer is not known.
    Asked(String),
    Token(u64),
}

impl ServerIdentity {
    /// `None`: the configuration wants none.
    pub(crate) fn of(config: &Config, identity: &Identity) -> Option<Self> {
        let duration = config.server_identity?.clamp(config.limits.min_duration, config.limits.max_duration);
        let name = name(&config.host_name, config.node_id);
        let holder_data = serde_json::json!({
            "node_id": config.node_id,
            "client": config.advertise.client,
            "http": config.advertise.http,
            "version": env!("CARGO_PKG_VERSION"),
        });
        let labels = [("tenure.dev/identity", "tenured".to_owned()), ("kubernetes.io/hostname", label_value(&config.host_name))];
        Some(Self {
            holder: format!("{name}_{}", identity.replica_id()),
            key: Key { namespace: NAMESPACE.into(), name },
            holder_data: holder_data.to_string(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            duration,
        })
    }

    /// Until `stopping`, and then gives the lease back; spawn it once.
    pub(crate) async fn publish(self, router: Router, mut leadership: watch::Receiver<Leadership>, mut rng: StdRng, stopping: CancellationToken) {
        let mut hold = Hold::Nothing;
        let keep = async {
            // A replica that is in no cluster yet has nobody to tell.
            if leadership.wait_for(|now| now.raft_leader.is_some()).await.is_err() {
                return;
            }
            loop {
                let pause = self.keep(&router, &mut hold, &mut rng).await;
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = keep => {}
        }
        self.give_back(&router, hold).await;
    }

    /// One attempt to have the lease for its full duration from now; how long until the next.
    async fn keep(&self, router: &Router, hold: &mut Hold, rng: &mut StdRng) -> Duration {
        let interval = (self.duration / 3).mul_f64(1.0 + rng.random_range(0.0..JITTER));
        let retry = PAUSE.min(self.duration / 10);
        let kept = match hold {
            Hold::Token(token) => self.renew(router, *token, interval).await,
            Hold::Nothing => {
                let request_id = uuid::Builder::from_random_bytes(rng.random()).into_uuid().to_string();
                *hold = Hold::Asked(request_id.clone());
                self.acquire(router, request_id, interval).await
            }
            Hold::Asked(request_id) => self.acquire(router, request_id.clone(), interval).await,
        };
        match kept {
            Ok(Kept::Granted { token, must_renew }) => {
                tracing::debug!(lease = self.key.name, token, "publishing this server's identity");
                *hold = Hold::Token(token);
                if must_renew { Duration::ZERO } else { interval }
            }
            Ok(Kept::Renewed) => interval,
            Ok(Kept::Lost) => {
                tracing::info!(lease = self.key.name, "this server's identity lease was lost: asking for it again");
                *hold = Hold::Nothing;
                retry
            }
            // After another directory of the same node, until that one's lease has run out; or somebody else meddles with the cluster's namespace.
            Ok(Kept::HeldBy(holder)) => {
                tracing::info!(lease = self.key.name, holder, "this server's identity lease is somebody else's: trying again");
                *hold = Hold::Nothing;
                interval
            }
            Err(error) => {
                tracing::debug!(lease = self.key.name, error, "this server's identity was not published");
                retry
            }
        }
    }

    async fn renew(&self, router: &Router, token: u64, patience: Duration) -> Result<Kept, String> {
        let renew = Ask::Renew(Renew { tokens: vec![token], ..Renew::default() });
        match submit(router, renew, patience).await? {
            Kind::Renewed(renewed) if renewed.durations_ms.first().is_some_and(|duration_ms| *duration_ms > 0) => Ok(Kept::Renewed),
            Kind::Renewed(_) => Ok(Kept::Lost),
            other => Err(format!("{other:?}")),
        }
    }

    async fn acquire(&self, router: &Router, request_id: String, patience: Duration) -> Result<Kept, String> {
        let acquire = Ask::Acquire(Acquire {
            key: Some(self.key.clone()),
            holder: self.holder.clone(),
            duration_ms: u32::try_from(self.duration.as_millis()).unwrap_or(u32::MAX),
            request_id,
            reclaim: true,
            holder_data: self.holder_data.clone().into(),
            retention_ms: RETENTION_MS,
            labels: self.labels.clone(),
            ..Acquire::default()
        });
        match submit(router, acquire, patience).await? {
            Kind::Granted(granted) => {
                let lease = granted.lease.ok_or("a grant without a lease")?;
                Ok(Kept::Granted { token: lease.token, must_renew: granted.must_renew })
            }
            Kind::Denied(lease) => Ok(Kept::HeldBy(lease.holder)),
            Kind::Ended(_) => Ok(Kept::Lost),
            other => Err(format!("{other:?}")),
        }
    }

    /// Says goodbye: who looks sees a server that has left, not one that is missed.
    async fn give_back(&self, router: &Router, hold: Hold) {
        let release = match hold {
            Hold::Nothing => return,
            Hold::Token(token) => Release { token, ..Release::default() },
            Hold::Asked(request_id) => Release { holder: self.holder.clone(), request_id, ..Release::default() },
        };
        let release = Ask::Release(Release { key: Some(self.key.clone()), ..release });
        if let Err(error) = submit(router, release, FAREWELL).await {
            tracing::debug!(lease = self.key.name, error, "this server's identity lease was not released: it runs out");
        }
    }
}

enum Kept {
    Granted { token: u64, must_renew: bool },
    Renewed,
    Lost,
    HeldBy(String),
}

async fn submit(router: &Router, ask: Ask, patience: Duration) -> Result<Kind, String> {
    let outcome: Result<Outcome, SubmitError> = router.submit(Command { kind: Some(ask) }, patience).await;
    outcome.map_err(|error| error.to_string())?.kind.ok_or_else(|| "an outcome without content".to_owned())
}

/// The same for the same host name and node id, and for no others: `tenured-` and the first 16 bytes of SHA-256 over the host name's length (u16, big
/// endian), the host name and the node id (u64, big endian), in lower-case base32 without padding.
fn name(host_name: &str, node_id: u64) -> String {
    // Longer host names than the kernel's 64 bytes come from a configuration; beyond 64 KiB they are cut.
    let host_name = &host_name.as_bytes()[..host_name.len().min(usize::from(u16::MAX))];
    let length = u16::try_from(host_name.len()).expect("was cut");
    let digest = Sha256::new().chain_update(length.to_be_bytes()).chain_update(host_name).chain_update(node_id.to_be_bytes()).finalize();
    format!("tenured-{}", base32(&digest[..16]))
}

/// RFC 4648, in lower case, without padding: what a lease's name may consist of.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    (0..bytes.len() * 8).step_by(5).map(|at| char::from(ALPHABET[usize::from((at..at + 5).fold(0, |value, at| value << 1 | bit(at)))])).collect()
}

/// A host name as far as a label can hold it.
fn label_value(host_name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let value: String = host_name.chars().map(fits).take(63).collect();
    value.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use tenure_lease::{LeaseKey, check_labels};

    use super::*;

    #[test]
    fn base32_is_as_rfc_4648_has_it() {
        for (plain, encoded) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foob", "mzxw6yq"), ("fooba", "mzxw6ytb"), ("foobar", "mzxw6ytboi")]
        {
            assert_eq!(base32(plain.as_bytes()), encoded, "{plain}");
        }
    }

    #[test]
    fn name_depends_on_host_and_node_and_on_nothing_else() {
        // For ever: a replica that is upgraded must find its lease again. Computed with another program: sha256(00 05 "web-1" 00..01).
        assert_eq!(name("web-1", 1), "tenured-wasjd6bet33sbsyouq7nq4o5fu");
        let names: std::collections::BTreeSet<_> =
            [("web-1", 1), ("web-1", 2), ("web-11", 1), ("web", 1), ("", 1)].into_iter().map(|(host, id)| name(host, id)).collect();
        assert_eq!(names.len(), 5, "{names:?}");
        for name in names.into_iter().chain([name(&"x".repeat(100_000), u64::MAX)]) {
            assert_eq!(name.len(), "tenured-".len() + 26, "{name}");
            LeaseKey::new(NAMESPACE, &name).expect("a valid lease");
        }
    }

    #[test]
    fn every_host_name_makes_a_valid_label() {
        for (host_name, value) in [
            ("web-1", "web-1"),
            ("Web_1.example.net", "Web_1.example.net"),
            ("-odd-", "odd"),
            ("a b", "a-b"),
            ("", ""),
            ("\u{fc}ber", "ber"),
            (&format!("{}.x", "a".repeat(62)), &"a".repeat(62)),
        ] {
            assert_eq!(label_value(host_name), value);
            let labels = BTreeMap::from([(Arc::from("kubernetes.io/hostname"), Arc::from(label_value(host_name)))]);
            check_labels(&labels).expect("a valid label");
        }
    }
}
