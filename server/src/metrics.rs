//! Prometheus text, by hand: a page of numbers needs no library, and next to nothing is counted on the hot path for it.

use std::{fmt::Write as _, sync::Arc};

use crate::{admission::Port, consensus::Consensus, replica::Applications, watch::WatchHub};

/// Where the numbers come from; they are read when somebody asks.
pub(crate) struct Sources {
    pub(crate) applications: Arc<Applications>,
    pub(crate) consensus: Consensus,
    pub(crate) watches: WatchHub,
    pub(crate) ports: [Arc<Port>; 3],
    /// Of the process; `None` where that cannot be told.
    pub(crate) open_files: fn() -> Option<u64>,
    /// Of the lane of renewals, and of the rest.
    pub(crate) queue_depth: Box<dyn Fn() -> [usize; 2] + Send + Sync>,
}

impl Sources {
    /// The page.
    pub(crate) fn text(&self, ready: bool) -> String {
        let (totals, floor) = {
            let table = self.applications.table.read();
            (table.totals(), table.watch_floor())
        };
        let progress = self.applications.progress();
        let raft = self.consensus.progress();
        let leadership = self.consensus.leadership().borrow().clone();
        let leads = leadership.raft_leader == Some(self.consensus.node_id());
        let mut page = Page::default();
        page.gauge("build_info", "Always 1; the version is in the label.", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.plain("ready", "1 while this replica may be sent clients.", ready.into());
        page.plain("is_raft_leader", "1 on the raft leader.", leads.into());
        page.plain("has_raft_leader", "1 while this replica knows of a raft leader.", leadership.raft_leader.is_some().into());
        page.plain("raft_term", "Raft's term.", leadership.term);
        page.plain("log_last_index", "Index of the last entry in this replica's log.", raft.last_log_index);
        page.counter("log_syncs_total", "How often this replica has synced its log to disk since it was started.", raft.log_syncs);
        page.plain("applied_index", "Index of the last entry that this replica has applied.", progress.index);
        page.plain("snapshot_index", "Index of the last entry in this replica's newest snapshot.", raft.snapshot_index);
        page.plain("revision", "Number of the newest change that this replica has applied.", progress.revision);
        page.plain("watch_floor_revision", "Watches can resume after this revision or any later one.", floor);
        page.number("lease_clock_seconds", "The lease clock.", &format!("{}.{:03}", progress.clock.0 / 1000, progress.clock.0 % 1000));
        page.plain("leases", "Leases there are, held or not.", totals.leases);
        page.plain("leases_held", "Leases held now.", totals.held);
        page.plain("waiters", "Places in queues.", totals.waiters);
        page.plain("requests_remembered", "Ended requests that are remembered, so that a repeat is not granted again.", totals.ended);
        page.plain("watches", "Watches open on this replica.", self.watches.open_watches() as u64);
        page.head("write_queue_depth", "Commands that wait to be proposed by this replica, by lane; filled on the raft leader only.");
        for (lane, depth) in ["renewals", "rest"].into_iter().zip((self.queue_depth)()) {
            page.line("write_queue_depth", &[("lane", lane)], &depth.to_string());
        }
        page.head("connections", "Connections open on a port.");
        for port in &self.ports {
            page.line("connections", &[("port", port.rules.port)], &port.open().to_string());
        }
        page.head("connections_limit", "Connections that a port takes at a time.");
        for port in &self.ports {
            page.line("connections_limit", &[("port", port.rules.port)], &port.rules.connections.to_string());
        }
        page.head("unfinished_request_bytes", "Bytes of requests of which only a part has arrived at a port.");
        for port in &self.ports {
            page.line("unfinished_request_bytes", &[("port", port.rules.port)], &port.unfinished().to_string());
        }
        if let Some(open) = (self.open_files)() {
            page.plain("open_files", "File descriptors that this process has open.", open);
        }
        if leads {
            page.head("peer_lag_entries", "Entries that a peer is not known to have; on the raft leader only.");
            for (id, peer) in &raft.peers {
                page.line("peer_lag_entries", &[("node", &id.to_string())], &raft.last_log_index.saturating_sub(peer.matched_index).to_string());
            }
            page.head("peer_last_contact_seconds", "Time since a peer last answered; on the raft leader only, absent if it never did.");
            for (id, peer) in &raft.peers {
                if let Some(ms) = peer.last_contact_ms {
                    page.line("peer_last_contact_seconds", &[("node", &id.to_string())], &format!("{}.{:03}", ms / 1000, ms % 1000));
                }
            }
        }
        page.text
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, help: &str) {
        self.head_of("gauge", name, help);
    }

    fn head_of(&mut self, kind: &str, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP tenure_{name} {help}\n# TYPE tenure_{name} {kind}\n");
    }

    /// Label values are ours (numbers, versions): nothing in them needs escaping.
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "tenure_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.head(name, help);
        self.line(name, labels, &value.to_string());
    }

    fn plain(&mut self, name: &str, help: &str, value: u64) {
        self.gauge(name, help, &[], value);
    }

    /// Only grows while the process lives.
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head_of("counter", name, help);
        self.line(name, &[], &value.to_string());
    }

    fn number(&mut self, name: &str, help: &str, value: &str) {
        self.head(name, help);
        self.line(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_help_and_type_and_labels_are_quoted() {
        let mut page = Page::default();
        page.plain("leases", "Leases.", 3);
        page.gauge("build_info", "Build.", &[("version", "1.2.3")], 1);
        page.number("lease_clock_seconds", "Clock.", "1.500");
        page.counter("log_syncs_total", "Syncs.", 9);
        assert_eq!(
            page.text,
            "# HELP tenure_leases Leases.\n# TYPE tenure_leases gauge\ntenure_leases 3\n\
             # HELP tenure_build_info Build.\n# TYPE tenure_build_info gauge\ntenure_build_info{version=\"1.2.3\"} 1\n\
             # HELP tenure_lease_clock_seconds Clock.\n# TYPE tenure_lease_clock_seconds gauge\ntenure_lease_clock_seconds 1.500\n\
             # HELP tenure_log_syncs_total Syncs.\n# TYPE tenure_log_syncs_total counter\ntenure_log_syncs_total 9\n"
        );
    }
}
