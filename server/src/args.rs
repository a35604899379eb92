//! The command line of `tenured`, and what every command that runs replicas does first.

use std::{io, path::PathBuf, str::FromStr, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tenure_server::config::LogFormat;
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

/// A replica of Tenure: leases over Raft.
#[derive(Debug, Parser)]
#[command(name = "tenured", version, about, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a cluster of three replicas in this process, on loopback, to try things out.
    Dev(Dev),
    /// Run one replica as its configuration file says.
    Serve(Serve),
    /// Verify a data directory while no replica uses it: identity, log, snapshots, history. Exit code 1: damaged; 2: no replica's data, or in use.
    Check {
        /// The directory to look at; nothing in it is changed.
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// Ask a running replica whether it is ready; exit code 1 if not. For container health checks.
    Health {
        /// Its HTTP address.
        #[arg(long, default_value = "127.0.0.1:7402")]
        addr: String,
        /// How long it may take to answer.
        #[arg(long, default_value = "2s")]
        timeout: Wait,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Dev {
    /// Where the three replicas keep their data; a later start goes on with it.
    #[arg(long, default_value = "./tenure-data")]
    pub(crate) data_dir: PathBuf,
    /// Port for clients of replica 1; its peer and HTTP ports follow, replicas 2 and 3 are 10 and 20 higher.
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=65_513))]
    pub(crate) base_port: u16,
    #[command(flatten)]
    pub(crate) logging: Logging,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// See cluster-configs/ for examples.
    #[arg(long)]
    pub(crate) config: PathBuf,
    /// Instead of the one that the configuration names.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) logging: Logging,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logging {
    /// error, warn, info, debug or trace; also directives such as "info,tenure_server::write=debug". Default: RUST_LOG, or info.
    #[arg(long, global = true)]
    pub(crate) log_level: Option<String>,
    /// Instead of the format that the configuration names.
    #[arg(long, global = true)]
    pub(crate) log: Option<LogFormat>,
}

/// What dependencies say at these levels is either ours to say better or noise.
const QUIET: &str = "openraft=error,raft_log=warn,chunked_wal=warn,sled=warn,h2=warn,hyper=warn,tonic=warn";

impl Logging {
    /// Starts logging to standard error.
    pub(crate) fn start(&self, configured: LogFormat) -> anyhow::Result<()> {
        let directives = match (&self.log_level, std::env::var("RUST_LOG")) {
            (Some(level), _) => format!("{QUIET},{level}"),
            (None, Ok(directives)) if !directives.is_empty() => directives,
            _ => format!("{QUIET},info"),
        };
        let filter = EnvFilter::builder().parse(&directives).with_context(|| format!("--log-level or RUST_LOG: \"{directives}\""))?;
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_span_events(FmtSpan::NONE);
        match self.log.unwrap_or(configured) {
            LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).with_target(false).init(),
            LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
        }
        Ok(())
    }
}

/// A duration on the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait(Duration);

impl From<Wait> for Duration {
    fn from(wait: Wait) -> Self {
        wait.0
    }
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        tenure_server::config::duration(text).filter(|wait| !wait.is_zero()).map(Self).ok_or_else(|| "a duration such as 500ms or 2s".into())
    }
}
