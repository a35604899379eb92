//! How the process's file descriptors are shared out between the ports, so that connections never take those of the log.

use anyhow::ensure;

/// For the log's files, snapshots, history, connections to other replicas, and what the runtime itself takes: some 60 in a cluster of five. etcd
/// keeps as many.
const RESERVED: u64 = 150;
/// A replica with fewer descriptors does not start: too little would be left for clients after what it and its peers need.
const MIN_DESCRIPTORS: u64 = 256;
/// More clients than that belong on more replicas.
const MOST_CLIENTS: u64 = 10_000;
/// A peer opens fewer than ten.
const MOST_PEERS: u64 = 256;
const MOST_HTTP: u64 = 256;

/// How many connections each port takes at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) clients: usize,
    pub(crate) peers: usize,
    pub(crate) http: usize,
}

impl Shares {
    /// Of a limit of open descriptors.
    ///
    /// # Errors
    /// A replica cannot live with so few.
    pub(crate) fn of(descriptors: u64) -> anyhow::Result<Self> {
        ensure!(
            descriptors >= MIN_DESCRIPTORS,
            "{descriptors} file descriptors are too few: a replica needs {MIN_DESCRIPTORS} or more, of which it keeps {RESERVED} for its log, snapshots and \
             peers. Raise the limit (`ulimit -n`, LimitNOFILE= of a systemd unit, --ulimit nofile= of a container; 65536 is a good value)"
        );
        let rest = descriptors - RESERVED;
        let (peers, http) = ((rest / 4).min(MOST_PEERS), (rest / 8).min(MOST_HTTP));
        let clients = (rest - peers - http).min(MOST_CLIENTS);
        let number = |n: u64| usize::try_from(n).expect("at most ten thousand");
        Ok(Self { clients: number(clients), peers: number(peers), http: number(http) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_what_is_reserved() {
        for descriptors in [MIN_DESCRIPTORS, 300, 1_024, 4_096, 65_536, u64::MAX] {
            let Shares { clients, peers, http } = Shares::of(descriptors).expect("enough");
            assert!((clients + peers + http) as u64 <= descriptors - RESERVED, "{descriptors}");
            assert!(clients >= 60 && peers >= 26 && http >= 13, "{descriptors}: {clients} {peers} {http}");
        }
        assert_eq!(Shares::of(65_536).expect("enough"), Shares { clients: 10_000, peers: 256, http: 256 });
    }

    #[test]
    fn too_few_descriptors_are_refused_with_what_to_do() {
        let error = Shares::of(MIN_DESCRIPTORS - 1).expect_err("too few").to_string();
        assert!(error.contains("255 file descriptors are too few") && error.contains("ulimit -n"), "{error}");
    }
}
