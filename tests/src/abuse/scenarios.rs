//! All scenarios, by the rows of the table of attacks.

use super::{
    Expect, Hurt, SHIPPED, Scenario, Setup,
    attacks::{bodies, calls, connections, frames, peers, streams, writes},
};

/// Of leases, where an attack asks for all of them.
const MANY: u32 = 100_000;
const FULL: Setup = Setup { leases: MANY, ..SHIPPED };
const SMALL_DISKS: Setup = Setup { disk_mib: Some(192), snapshot_log_bytes: "4MiB", ..SHIPPED };

/// The yardstick, the configuration as it is shipped.
const USUAL: Scenario =
    Scenario { row: "", name: "", what: "", must: "", setup: SHIPPED, expect: Expect::Yardstick, attack: |orders| Box::pin(writes::slowly(orders)) };

/// In order.
pub const ALL: &[Scenario] = &[
    Scenario {
        row: "1",
        name: "descriptors-256",
        what: "256 descriptors a replica and a log in files of 16 KiB; 400 idle connections to the raft leader's client port, beside writes",
        must: "the yardstick; or a replica refuses to start because 256 descriptors are too few, and says so",
        setup: Setup { descriptors: Some(256), snapshot_log_bytes: "64KiB", ..SHIPPED },
        expect: Expect::YardstickOrRefusal,
        attack: |orders| Box::pin(connections::idle_at_the_leader(orders)),
    },
    Scenario {
        row: "2",
        name: "descriptors-1024",
        what: "1,024 descriptors a replica; 1,200 idle connections to the client port of each, nothing else",
        setup: Setup { descriptors: Some(1_024), ..SHIPPED },
        attack: |orders| Box::pin(connections::idle_everywhere(orders)),
        ..USUAL
    },
    Scenario {
        row: "3",
        name: "descriptors-writes",
        what: "the same beside writes that bring the log to its next file",
        setup: Setup { descriptors: Some(1_024), ..SHIPPED },
        attack: |orders| Box::pin(connections::idle_beside_writes(orders)),
        ..USUAL
    },
    Scenario {
        row: "4",
        name: "descriptors-followers",
        what: "the same at the two followers only",
        setup: Setup { descriptors: Some(1_024), ..SHIPPED },
        attack: |orders| Box::pin(connections::idle_at_followers(orders)),
        ..USUAL
    },
    Scenario {
        row: "5",
        name: "no-inodes",
        what: "no inode is left on the disk of a follower, beside writes",
        must: "only the replica without inodes may stop; the others keep to the yardstick; started again it serves within 10 s with all that was acknowledged",
        setup: Setup { hurt: Hurt::Inodes(1), ..SMALL_DISKS },
        expect: Expect::VictimsMayStop,
        ..USUAL
    },
    Scenario {
        row: "5b",
        name: "no-inodes-anywhere",
        what: "no inode is left on any of the three disks, beside writes",
        must: "without a majority that can write, calls may fail and leases may end; started again all serve within 10 s with all that was acknowledged",
        setup: Setup { hurt: Hurt::Inodes(3), ..SMALL_DISKS },
        expect: Expect::NoMajority,
        ..USUAL
    },
    Scenario {
        row: "6",
        name: "disk-full",
        what: "the disk of a follower is full, beside writes",
        must: "only the replica without space may stop; the others keep to the yardstick; started again it serves within 10 s with all that was acknowledged",
        setup: Setup { hurt: Hurt::Space(1), ..SMALL_DISKS },
        expect: Expect::VictimsMayStop,
        ..USUAL
    },
    Scenario {
        row: "6b",
        name: "disks-full",
        what: "the disks of both followers are full, beside writes",
        must: "without a majority that can write, calls may fail and leases may end; started again all serve within 10 s with all that was acknowledged",
        setup: Setup { hurt: Hurt::Space(2), ..SMALL_DISKS },
        expect: Expect::NoMajority,
        ..USUAL
    },
    Scenario {
        row: "12",
        name: "endless-snapshot",
        what: "a snapshot of 2^63 bytes is announced to the peer port of a follower, in the raft leader's name, and 1 GiB of it is sent",
        must: "the yardstick; and the data directory grows by at most 512 MiB",
        setup: Setup { disk_is_bounded: true, ..SHIPPED },
        attack: |orders| Box::pin(peers::endless_snapshot(orders)),
        ..USUAL
    },
    Scenario {
        row: "13",
        name: "wrong-sense",
        what: "thousands of well-formed messages of wrong sense to the peer ports, most of them in the name of a replica",
        attack: |orders| Box::pin(peers::wrong_sense(orders)),
        ..USUAL
    },
    Scenario {
        row: "14",
        name: "peer-unfinished",
        what: "16 messages of 60 MiB to the peer port of a follower, without their last byte and without any metadata",
        attack: |orders| Box::pin(bodies::unfinished_at_the_peer_port(orders)),
        ..USUAL
    },
    Scenario {
        row: "15",
        name: "silent-connections",
        what: "250 connections to each port of the raft leader on which nothing is ever said",
        must: "the yardstick; and every one of them is closed within 15 s (looked at in runs of more than 15 s)",
        attack: |orders| Box::pin(connections::silent(orders)),
        ..USUAL
    },
    Scenario {
        row: "16",
        name: "client-unfinished",
        what: "1,500 messages of 1 MiB on three connections to the raft leader's client port, without their last byte",
        attack: |orders| Box::pin(bodies::unfinished_at_the_client_port(orders)),
        ..USUAL
    },
    Scenario {
        row: "22",
        name: "cancelled-acquires",
        what: "whole Acquires on four connections, each reset a millisecond later",
        attack: |orders| Box::pin(calls::cancelled_acquires(orders)),
        ..USUAL
    },
    Scenario {
        row: "23",
        name: "forbidden-frames",
        what: "floods of CONTINUATION (client and peer port), empty CONTINUATION, empty DATA and GOAWAY, one connection each",
        attack: |orders| Box::pin(frames::forbidden(orders)),
        ..USUAL
    },
    Scenario {
        row: "24",
        name: "allowed-frames",
        what: "floods of PING, SETTINGS, PRIORITY and WINDOW_UPDATE, one connection each",
        attack: |orders| Box::pin(frames::allowed(orders)),
        ..USUAL
    },
    Scenario {
        row: "25",
        name: "namespaces",
        what: "100,000 leases, each in a namespace of its own, kept for ever",
        attack: |orders| Box::pin(calls::namespaces(orders)),
        ..USUAL
    },
    Scenario {
        row: "26",
        name: "watches-unread",
        what: "100 watches that want all of 100,000 leases first, on one connection that takes nothing of any answer",
        setup: FULL,
        attack: |orders| Box::pin(streams::watches_unread(orders)),
        ..USUAL
    },
    Scenario {
        row: "27",
        name: "lists-of-one",
        what: "lists of 100,000 leases with one lease a page, 200 at once on one connection",
        setup: FULL,
        attack: |orders| Box::pin(calls::lists_of_one(orders)),
        ..USUAL
    },
    Scenario {
        row: "28",
        name: "statuses",
        what: "Status of a cluster with 100,000 leases, 200 at once on one connection",
        setup: FULL,
        attack: |orders| Box::pin(calls::statuses(orders)),
        ..USUAL
    },
    Scenario {
        row: "29",
        name: "labels",
        what: "one lease whose labels, 900 KB or as many as are taken, are changed 1,500 times by one sequential client",
        attack: |orders| Box::pin(calls::labels_edited(orders)),
        ..USUAL
    },
    Scenario {
        row: "29b",
        name: "labels-little-memory",
        what: "the same where a replica that takes more than 512 MiB is killed",
        setup: Setup { memory_mib: Some(512), ..SHIPPED },
        attack: |orders| Box::pin(calls::labels_edited(orders)),
        ..USUAL
    },
    Scenario {
        row: "30",
        name: "waiters-on-one-lease",
        what: "10,000 waiters of one client on one lease",
        attack: |orders| Box::pin(streams::waiters_on_one_lease(orders)),
        ..USUAL
    },
    Scenario {
        row: "30b",
        name: "waiters-on-many-leases",
        what: "20,000 waiters of one client over 2,000 leases",
        attack: |orders| Box::pin(streams::waiters_on_many_leases(orders)),
        ..USUAL
    },
    Scenario {
        row: "31",
        name: "waiters-cut",
        what: "10,000 waiters whose connections are cut in the middle of the attack",
        attack: |orders| Box::pin(streams::waiters_cut(orders)),
        ..USUAL
    },
    Scenario {
        row: "32",
        name: "bars",
        what: "releases of requests that never were, two million at most (`--seconds 90` for all of them)",
        attack: |orders| Box::pin(calls::bars(orders)),
        ..USUAL
    },
    Scenario {
        row: "33",
        name: "puts-in-flight",
        what: "64 connections to the raft leader with 1,000 Puts in flight on each",
        attack: |orders| Box::pin(calls::puts_in_flight(orders)),
        ..USUAL
    },
    Scenario {
        row: "34",
        name: "unknown-tokens",
        what: "8,000 renewal streams at a follower, each with 266 messages of tokens that were never given, again and again",
        attack: |orders| Box::pin(streams::renewals_of_unknown_tokens(orders)),
        ..USUAL
    },
    Scenario {
        row: "35",
        name: "watches-of-renewals",
        what: "32,768 watches of everything, renewals too, by one client that reads them",
        attack: |orders| Box::pin(streams::watches_of_renewals(orders)),
        ..USUAL
    },
    Scenario {
        row: "36",
        name: "short-deadlines",
        what: "40,000 Acquires of free leases with a deadline of 1 ms",
        must: "the yardstick; and 4 s later at most one lease in a hundred is held by a caller who was not told so",
        attack: |orders| Box::pin(calls::short_deadlines(orders)),
        ..USUAL
    },
    Scenario {
        row: "37",
        name: "http-unread",
        what: "300 connections to an HTTP port that are idle or never read their answers",
        must: "the yardstick; and every probe of /readyz beside them is answered with 200 within 1 s",
        attack: |orders| Box::pin(connections::http_unread(orders)),
        ..USUAL
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_scenario_has_a_row_and_a_name_of_its_own() {
        let names: BTreeSet<&str> = ALL.iter().flat_map(|scenario| [scenario.row, scenario.name]).collect();
        assert_eq!(names.len(), ALL.len() * 2);
        assert!(ALL.iter().all(|scenario| scenario.expect == Expect::Yardstick || !scenario.must.is_empty()));
    }
}
