//! What can be typed. Parsing only: no command runs here.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::text::{parse_duration, parse_pair, parse_token};

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    refused: held by somebody else, lost, not found, conflict; nothing changed
  2    the command, a manifest or a value is wrong
  3    not done: no replica could do it in time; safe to run again
  4    unknown: it may or may not have happened; look before running it again
  130  interrupted
exec ends with its command's exit code: see `tenure exec --help`.";

pub(crate) const EXEC_EXIT_CODES: &str = "\
The command gets TENURE_TOKEN, TENURE_LEASE (NAMESPACE/NAME) and TENURE_HOLDER in its environment.

Exit codes:
  the command's own; 128+N when signal N ended it, or ended the wait
  121  somebody else holds the lease (--no-wait, --wait): not run; --conflict-exit-code changes it
  122  the lease was lost, and the command was stopped
  125  not run: no replica answered in time, or a value is wrong
  126  the command cannot be executed
  127  the command was not found";

/// Leases on a Tenure cluster: who holds what, until when, with which fencing token.
#[derive(Debug, Parser)]
#[command(name = "tenure", version, after_help = EXIT_CODES, infer_long_args = false, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Of this process; what is wrong ends it, with a message and exit code 2.
    pub(crate) fn read() -> Self {
        let words: Vec<_> = std::env::args_os().collect();
        let matches = minus_is_a_value(Self::command()).try_get_matches_from(&words).map_err(|error| with_tip(error, &words));
        matches.and_then(|matches| Self::from_arg_matches(&matches)).unwrap_or_else(|error| error.exit())
    }
}

/// `tenure exec job date`: as with `env` and `timeout`, but not here, where flags of the command would be taken for ours.
fn with_tip(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    let runs = words.iter().any(|word| word == "exec") && !words.iter().any(|word| word == "--");
    if runs && error.kind() == ErrorKind::UnknownArgument {
        let tip = "put -- before the command: tenure exec NAME -- CMD...".to_owned();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// `--duration -5s` is a wrong duration and no unknown flag.
fn minus_is_a_value(command: clap::Command) -> clap::Command {
    let number = |arg: &clap::Arg| arg.get_value_names().is_some_and(|names| matches!(names[0].as_str(), "DURATION" | "TOKEN" | "REVISION"));
    command.mut_args(|arg| if number(&arg) { arg.allow_hyphen_values(true) } else { arg }).mut_subcommands(minus_is_a_value)
}

/// The client ports of `tenured dev`.
const DEFAULT_ENDPOINTS: &str = "127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420";

impl Global {
    /// The endpoints as people write them in unit files: spaces around commas and empty places mean nothing, and an empty list is none given.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let given =
            |list: &mut dyn Iterator<Item = &str>| -> Vec<String> { list.map(str::trim).filter(|endpoint| !endpoint.is_empty()).map(str::to_owned).collect() };
        let endpoints = given(&mut self.endpoints.iter().map(String::as_str));
        if endpoints.is_empty() { given(&mut DEFAULT_ENDPOINTS.split(',')) } else { endpoints }
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Replicas to talk to, comma-separated host:port; any one that works is enough
    #[arg(
        long,
        global = true,
        env = "TENURE_ENDPOINTS",
        value_delimiter = ',',
        default_value = DEFAULT_ENDPOINTS,
        value_name = "HOST:PORT,..."
    )]
    pub(crate) endpoints: Vec<String>,
    /// Ask those for the cluster's other servers, and follow servers that move: for commands that run for long
    #[arg(long, global = true)]
    pub(crate) discover: bool,
    /// Give up after this long, all attempts together (add-member: 10m unless given)
    #[arg(long, global = true, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    /// Namespace of the lease
    #[arg(short, long, global = true, default_value = "default")]
    pub(crate) namespace: String,
    /// How to print the result
    #[arg(short, long, global = true, value_enum)]
    pub(crate) output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Aligned columns (the default)
    Table,
    /// More columns
    Wide,
    /// One document; with -w one event a line
    Json,
    /// The same data as json
    Yaml,
    /// lease/NAME
    Name,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show leases: `get NAME`, `get lease NAME`, `get leases -l SELECTOR`
    Get(Get),
    /// Show all leases of a namespace
    List(List),
    /// Take a lease and print its fencing token
    Acquire(Acquire),
    /// Keep a lease
    Renew(Renew),
    /// Give a lease back
    Release(Release),
    /// Print changes as they happen
    Watch(Watch),
    /// Create or change leases from Tenure or Kubernetes manifests
    Apply(Apply),
    /// Remove leases
    Delete(Delete),
    /// Show who held a lease, from when to when, and why that ended
    History(History),
    /// Run a command while holding a lease, and stop it when the lease is lost
    #[command(after_help = EXEC_EXIT_CODES)]
    Exec(Exec),
    /// Campaign to be the elected leader, and print who is, as it changes
    Elect(Elect),
    /// Keep telling that this node is alive, as a kubelet does
    Heartbeat(Heartbeat),
    /// Show which nodes are alive
    Nodes(Nodes),
    /// Show and change the cluster itself
    #[command(subcommand)]
    Cluster(Cluster),
    /// Print a completion script: `source <(tenure completions bash)`
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Scope {
    /// In every namespace
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only leases with these labels: app=web,tier in (a,b),!old
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// Optionally the word `lease` or `leases`, then names; none: all
    #[arg(value_name = "[lease] NAME")]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Then go on with the changes
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Take what a replica has, without asking the raft leader: fast, perhaps old
    #[arg(long)]
    pub(crate) stale: bool,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Then go on with the changes
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Take what a replica has, without asking the raft leader: fast, perhaps old
    #[arg(long)]
    pub(crate) stale: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Acquire {
    /// Of the lease
    pub(crate) name: String,
    /// Who asks [default: this machine's host name]
    #[arg(long)]
    pub(crate) holder: Option<String>,
    /// How long it is held unless renewed
    #[arg(long, value_parser = parse_duration, default_value = "15s")]
    pub(crate) duration: Duration,
    /// Queue for this long when somebody else holds it
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) wait: Option<Duration>,
    /// Do not queue (the default)
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// Take over from a holder of the same name, with a new token
    #[arg(long)]
    pub(crate) reclaim: bool,
    /// For others to read while it is held, an address say; at most 4 KiB
    #[arg(long, value_name = "TEXT")]
    pub(crate) data: Option<String>,
    /// Names this attempt: a repeat is answered from the live state and never granted twice [default: a random one]
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Only when this creates the lease
    #[arg(long = "label", value_parser = parse_pair, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// Only when this creates the lease: delete it this long after nobody holds it [default: 1h]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) retention: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct Renew {
    /// Checked against the token when given
    pub(crate) name: Option<String>,
    /// As printed by acquire
    #[arg(long, value_parser = parse_token)]
    pub(crate) token: u64,
    /// From now on [default: as before]
    #[arg(long, value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["token", "request_id"]))]
pub(crate) struct Release {
    /// Of the lease
    pub(crate) name: String,
    /// As printed by acquire
    #[arg(long, value_parser = parse_token)]
    pub(crate) token: Option<u64>,
    /// Of the acquire whose token never arrived; bars it should it arrive late
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Of that acquire [default: this machine's host name]
    #[arg(long, conflicts_with = "token")]
    pub(crate) holder: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// Only this lease
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Start after this revision [default: now]
    #[arg(long, value_name = "REVISION")]
    pub(crate) after: Option<u64>,
    /// Renewals too
    #[arg(long)]
    pub(crate) renewals: bool,
    /// Watching is what this command does; accepted from habit
    #[arg(short, long, hide = true)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// Manifest files, YAML or JSON, many documents each; - is standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Optionally the word `lease` or `leases`, then names
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Even while held or waited for: the holder's token is revoked
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct History {
    /// Of the lease
    pub(crate) name: String,
    /// At most this many holds, newest first
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Of the lease
    pub(crate) name: String,
    /// Who asks [default: this machine's host name and a UUID, other in each process]
    #[arg(long)]
    pub(crate) holder: Option<String>,
    /// How long the lease outlives this process, should it be killed
    #[arg(long, value_parser = parse_duration, default_value = "15s")]
    pub(crate) duration: Duration,
    /// Queue for this long when somebody else holds it, then give up [default: for ever]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) wait: Option<Duration>,
    /// Do not queue: somebody else runs it
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// Hold the lease this long from the start, even if the command ends sooner: for cron jobs on many machines whose clocks differ by less
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) min_hold: Option<Duration>,
    /// Stop the command (TERM, then KILL) this long before somebody else can hold the lease [default: a third of --duration]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) stop_before: Option<Duration>,
    /// After a signal that asks the command to end: kill it, and all that it has started, when this much later something is left [default: never]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) kill_after: Option<Duration>,
    /// Take over from a holder of the same name, with a new token: the old process is fenced, and stopped as soon as it hears of it
    #[arg(long, requires = "holder")]
    pub(crate) reclaim: bool,
    /// Say nothing while waiting, nor when somebody else holds the lease; errors are still told
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Exit code when somebody else holds the lease
    #[arg(long, default_value_t = crate::fail::exec_code::NOT_ACQUIRED, value_name = "CODE")]
    pub(crate) conflict_exit_code: u8,
    /// For others to read while it is held, at most 4 KiB
    #[arg(long, value_name = "TEXT")]
    pub(crate) data: Option<String>,
    /// Only when this creates the lease
    #[arg(long = "label", value_parser = parse_pair, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// Only when this creates the lease: delete it this long after nobody holds it [default: 1h]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) retention: Option<Duration>,
    /// What to run, after --
    #[arg(required = true, last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Elect {
    /// Of the election: a lease
    pub(crate) name: String,
    /// Who campaigns; no two processes may be the same [default: this machine's host name and a UUID]
    #[arg(long, conflicts_with = "observe")]
    pub(crate) holder: Option<String>,
    /// How long the others wait when the elected leader dies
    #[arg(long, value_parser = parse_duration, default_value = "15s", conflicts_with = "observe")]
    pub(crate) duration: Duration,
    /// Published while leading, an address say; at most 4 KiB
    #[arg(long, value_name = "TEXT", conflicts_with = "observe")]
    pub(crate) data: Option<String>,
    /// Only watch who leads
    #[arg(long)]
    pub(crate) observe: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Heartbeat {
    /// Of the node [default: this machine's host name]
    pub(crate) name: Option<String>,
    /// Who holds the node's lease [default: NAME]
    #[arg(long)]
    pub(crate) holder: Option<String>,
    /// How long after the last heartbeat the node is Unknown
    #[arg(long, value_parser = parse_duration, default_value = "40s")]
    pub(crate) duration: Duration,
    /// Time between heartbeats, give or take 4 % [default: a quarter of --duration]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) every: Option<Duration>,
    /// Published while alive, an address say; at most 4 KiB
    #[arg(long, value_name = "TEXT")]
    pub(crate) data: Option<String>,
    /// When stopped, say nothing: the node stays Ready until its lease runs out, long enough for a restart
    #[arg(long)]
    pub(crate) no_release: bool,
    /// Only when this creates the lease
    #[arg(long = "label", value_parser = parse_pair, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// Only when this creates the lease: forget the node this long after it is gone [default: 1h]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) retention: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct Nodes {
    /// Only nodes with these labels: zone=a,tier in (web,db),!old
    #[arg(short = 'l', long)]
    pub(crate) selector: Option<String>,
    /// Then go on with the changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Members, raft leader, progress
    Status,
    /// Hand raft leadership to another voter
    TransferLeader {
        /// Node id [default: the best caught-up voter]
        node: Option<u64>,
    },
    /// Add an empty replica: a learner first, a voter once it has caught up
    AddMember {
        /// Its node id
        node: u64,
        /// host:port where it listens for peers
        peer_addr: String,
        /// Leave it a learner
        #[arg(long)]
        learner_only: bool,
    },
    /// Remove a member for good: its data directory can never come back
    RemoveMember {
        /// Its node id
        node: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        minus_is_a_value(Cli::command()).debug_assert();
    }

    #[test]
    fn negative_numbers_are_wrong_values_and_not_unknown_flags() {
        for wrong in [["acquire", "a", "--duration", "-5s"], ["renew", "a", "--token", "-1"], ["get", "a", "--timeout", "-1s"], ["watch", "a", "--after", "-1"]]
        {
            let error = minus_is_a_value(Cli::command()).try_get_matches_from(["tenure"].iter().chain(&wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{wrong:?}: {error}");
        }
    }

    #[test]
    fn global_flags_go_before_or_after_the_command() {
        let before = Cli::try_parse_from(["tenure", "-n", "kube-system", "get", "lease"]).unwrap();
        let after = Cli::try_parse_from(["tenure", "get", "lease", "-n", "kube-system", "-o", "json"]).unwrap();
        assert_eq!((before.global.namespace, after.global.namespace), ("kube-system".into(), "kube-system".into()));
        assert_eq!(after.global.output, Some(Output::Json));
    }

    #[test]
    fn what_follows_the_dashes_is_the_commands_own() {
        let cli = Cli::try_parse_from(["tenure", "exec", "job", "-n", "x", "--", "ls", "-n", "--wait"]).unwrap();
        let Command::Exec(exec) = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!((cli.global.namespace.as_str(), exec.command), ("x", vec!["ls".into(), "-n".into(), "--wait".into()]));
        assert!(Cli::try_parse_from(["tenure", "exec", "job", "--"]).is_err());
        assert!(Cli::try_parse_from(["tenure", "exec", "job", "ls"]).is_err(), "without -- flags of the command would be ours");
        assert!(Cli::try_parse_from(["tenure", "exec", "job", "--no-wait", "--wait", "1s", "--", "ls"]).is_err());
    }

    #[test]
    fn a_command_without_dashes_is_told_where_they_go() {
        let tip = |words: &[&str]| {
            let error = Cli::command().try_get_matches_from(words).unwrap_err();
            with_tip(error, &words.iter().map(OsString::from).collect::<Vec<_>>()).to_string()
        };
        assert!(tip(&["tenure", "exec", "job", "date"]).contains("put -- before the command"));
        assert!(!tip(&["tenure", "exec", "job", "--wat", "--", "date"]).contains("put --"));
        assert!(!tip(&["tenure", "get", "--wat"]).contains("put --"));
    }

    #[test]
    fn a_release_names_its_hold_one_way() {
        assert!(Cli::try_parse_from(["tenure", "release", "a"]).is_err());
        assert!(Cli::try_parse_from(["tenure", "release", "a", "--token", "1", "--request-id", "x"]).is_err());
        assert!(Cli::try_parse_from(["tenure", "release", "a", "--token", "1"]).is_ok());
    }
}
