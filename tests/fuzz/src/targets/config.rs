//! Configuration files: what is refused names a line that is there, what is taken is within every bound.

use std::{path::Path, time::Duration};

use tenure_server::config::Settings;

use super::{Shape, Target};

pub(super) const TARGET: Target = Target {
    name: "config",
    reads: "configuration files",
    shape: Shape::Text,
    words: &[
        "node_id",
        "data_dir",
        "bootstrap",
        "history",
        "server_identity",
        "server_identity_duration",
        "host_name",
        "log",
        "listen",
        "advertise",
        "members",
        "raft",
        "limits",
        "snapshot",
        "client",
        "peer",
        "http",
        "heartbeat",
        "election_min",
        "election_max",
        "min_duration",
        "max_duration",
        "queue",
        "leases_per_namespace",
        "waiters_per_lease",
        "connections_per_source",
        "log_bytes",
        "true",
        "false",
        "json",
        "50ms",
        "1.5s",
        "24h",
        "64MiB",
        "127.0.0.1:7400",
        "[::1]:7401",
        "0.0.0.0:0",
        "[[members]]",
        "[raft]",
        "\"\"",
        "''",
        "é",
        "= ",
        "\u{0}",
    ],
    mutations: 6_000,
    run,
};

fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let file = Path::new("node.toml");
    let settings = match Settings::parse(text, file) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(!error.message.is_empty() && error.to_string().starts_with("node.toml"), "{error}");
            assert!(error.line.is_none_or(|line| (1..=text.lines().count() + 1).contains(&line)), "{text:?}: {error}");
            return false;
        }
    };
    let (config, ms) = (settings.config, Duration::from_millis);
    assert!(config.node_id >= 1 && !config.data_dir.as_os_str().is_empty());
    let raft = config.raft;
    assert!(raft.heartbeat >= ms(1) && raft.heartbeat * 2 <= raft.election_min && raft.election_min < raft.election_max, "{raft:?}");
    let limits = config.limits;
    assert!(ms(100) <= limits.min_duration && limits.min_duration <= limits.max_duration && limits.max_duration <= ms(86_400_000), "{limits:?}");
    assert!(limits.queue >= 1 && limits.waiters_per_lease <= 10_000);
    assert!(config.server_identity.is_none_or(|duration| ms(1_000) <= duration && duration <= ms(3_600_000)));
    assert!(config.snapshot_log_bytes >= 64 << 10);
    assert!(!config.bootstrap || config.initial_members.iter().any(|(id, _)| *id == config.node_id));
    true
}
