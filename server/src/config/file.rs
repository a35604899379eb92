//! Configuration files: TOML in, [`Settings`] out. Every refusal names the file, the line and the key, and says what would be right.
//!
//! Nothing here is lenient: an unknown key is a typo until proven otherwise, and a typo in a timeout is found at 3 a.m.

use std::{
    collections::BTreeSet,
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::Spanned;

use super::{
    Addresses, Config, DEFAULT_SERVER_IDENTITY, DEFAULT_SNAPSHOT_LOG_BYTES, LogFormat, RaftTiming, ServiceLimits, Settings,
    units::{Bytes, Span},
};

const SECOND: Duration = Duration::from_secs(1);

/// What is wrong with a configuration file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// From 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// The key, with its section; empty when there is none to name.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ", `{}`", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    node_id: Spanned<u64>,
    data_dir: Spanned<PathBuf>,
    #[serde(default)]
    bootstrap: bool,
    history: Option<bool>,
    server_identity: Option<bool>,
    server_identity_duration: Option<Spanned<Span>>,
    host_name: Option<Spanned<String>>,
    #[serde(default)]
    log: LogFormat,
    listen: Option<AddressSection>,
    advertise: Option<AddressSection>,
    #[serde(default)]
    members: Vec<Spanned<MemberSection>>,
    #[serde(default)]
    raft: RaftSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    snapshot: SnapshotSection,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressSection {
    client: Option<Spanned<String>>,
    peer: Option<Spanned<String>>,
    http: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberSection {
    node_id: Spanned<u64>,
    peer: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RaftSection {
    heartbeat: Option<Spanned<Span>>,
    election_min: Option<Spanned<Span>>,
    election_max: Option<Spanned<Span>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    min_duration: Option<Spanned<Span>>,
    max_duration: Option<Spanned<Span>>,
    queue: Option<Spanned<u64>>,
    leases_per_namespace: Option<Spanned<u64>>,
    waiters_per_lease: Option<Spanned<u64>>,
    connections_per_source: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotSection {
    log_bytes: Option<Spanned<Bytes>>,
}

impl Settings {
    /// Reads and checks a file. A relative `data_dir` is taken from the working directory, as everything on a command line is.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or something in it is not right.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: None,
            key: String::new(),
            message: format!("cannot read the configuration: {error}"),
        })?;
        Self::parse(&text, file)
    }

    /// Checks a text; `file` only names it in errors.
    ///
    /// # Errors
    /// See [`Settings::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let source = Source { text, file };
        let document: Document = toml::from_str(text).map_err(|error| source.refused_by_toml(&error))?;
        check(&source, document)
    }
}

fn check(source: &Source<'_>, document: Document) -> Result<Settings, ConfigError> {
    let node_id = *document.node_id.get_ref();
    source.within("node_id", &document.node_id, 1..=u64::MAX)?;
    if document.data_dir.get_ref().as_os_str().is_empty() {
        return Err(source.at(&document.data_dir, "data_dir", "must not be empty"));
    }
    let listen = addresses(source, "listen", document.listen.unwrap_or_default(), &default_listen(), Use::Bind)?;
    let advertise = addresses(source, "advertise", document.advertise.unwrap_or_default(), &listen, Use::Dial)?;
    let initial_members = members(source, &document.members)?;
    if document.bootstrap && !initial_members.iter().any(|(id, _)| *id == node_id) {
        return Err(source.at(&document.node_id, "node_id", "bootstrap = true needs a [[members]] section for every founding member, this one included"));
    }
    if let Some((_, peer)) = initial_members.iter().find(|(id, _)| *id == node_id)
        && *peer != advertise.peer
    {
        let message = format!("[[members]] gives node {node_id} the peer address {peer}, but it advertises {}: they must be the same", advertise.peer);
        return Err(source.at(&document.node_id, "node_id", message));
    }
    let server_identity = document.server_identity_duration.as_ref();
    let server_identity = source.span("server_identity_duration", server_identity, DEFAULT_SERVER_IDENTITY, SECOND..=SECOND * 3600)?;
    let host_name = match document.host_name {
        Some(name) if name.get_ref().trim().is_empty() => return Err(source.at(&name, "host_name", "must not be empty")),
        name => name.map(Spanned::into_inner).unwrap_or_default(),
    };
    Ok(Settings {
        config: Config {
            node_id,
            data_dir: document.data_dir.into_inner(),
            advertise,
            initial_members,
            bootstrap: document.bootstrap,
            raft: raft(source, &document.raft)?,
            limits: limits(source, &document.limits)?,
            snapshot_log_bytes: match &document.snapshot.log_bytes {
                None => DEFAULT_SNAPSHOT_LOG_BYTES,
                Some(bytes) if bytes.get_ref().0 < 64 << 10 => return Err(source.at(bytes, "snapshot.log_bytes", "must be at least 64KiB")),
                Some(bytes) => bytes.get_ref().0,
            },
            history: document.history.unwrap_or(true),
            server_identity: document.server_identity.unwrap_or(true).then_some(server_identity),
            host_name,
        },
        listen,
        log: document.log,
    })
}

fn default_listen() -> Addresses {
    Addresses { client: "127.0.0.1:7400".into(), peer: "127.0.0.1:7401".into(), http: "127.0.0.1:7402".into() }
}

/// An address to bind may say "every interface"; one that others are told must name a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Bind,
    Dial,
}

fn addresses(source: &Source<'_>, section: &str, given: AddressSection, otherwise: &Addresses, purpose: Use) -> Result<Addresses, ConfigError> {
    let pick = |key: &str, given: Option<Spanned<String>>, otherwise: &str| match given {
        Some(addr) => match check_address(addr.get_ref(), purpose) {
            Ok(()) => Ok(addr.into_inner()),
            Err(message) => Err(source.at(&addr, &format!("{section}.{key}"), message)),
        },
        None => match check_address(otherwise, purpose) {
            Ok(()) => Ok(otherwise.to_owned()),
            Err(message) => Err(source.whole(&format!("{section}.{key}"), format!("not set, and listen.{key} cannot stand in for it: {message}"))),
        },
    };
    Ok(Addresses {
        client: pick("client", given.client, &otherwise.client)?,
        peer: pick("peer", given.peer, &otherwise.peer)?,
        http: pick("http", given.http, &otherwise.http)?,
    })
}

fn check_address(addr: &str, purpose: Use) -> Result<(), String> {
    let Some((host, port)) = addr.rsplit_once(':') else {
        return Err(format!("\"{addr}\" is not host:port"));
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if host.is_empty() || host.contains(char::is_whitespace) || (host.contains(':') && bare.is_none()) {
        return Err(format!("\"{addr}\" is not host:port"));
    }
    let Ok(port) = port.parse::<u16>() else {
        return Err(format!("\"{port}\" is not a port (1 to 65535)"));
    };
    if purpose == Use::Dial {
        if port == 0 {
            return Err("others cannot dial port 0".into());
        }
        if bare.unwrap_or(host).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            return Err(format!("{host} means every interface of this machine: say under which address others reach it"));
        }
    }
    Ok(())
}

fn members(source: &Source<'_>, sections: &[Spanned<MemberSection>]) -> Result<Vec<(u64, String)>, ConfigError> {
    let (mut ids, mut peers) = (BTreeSet::new(), BTreeSet::new());
    let mut members = Vec::with_capacity(sections.len());
    for member in sections.iter().map(Spanned::get_ref) {
        source.within("members.node_id", &member.node_id, 1..=u64::MAX)?;
        check_address(member.peer.get_ref(), Use::Dial).map_err(|message| source.at(&member.peer, "members.peer", message))?;
        if !ids.insert(*member.node_id.get_ref()) {
            return Err(source.at(&member.node_id, "members.node_id", format!("{} is there twice", member.node_id.get_ref())));
        }
        if !peers.insert(member.peer.get_ref().clone()) {
            return Err(source.at(&member.peer, "members.peer", format!("{} is there twice", member.peer.get_ref())));
        }
        members.push((*member.node_id.get_ref(), member.peer.get_ref().clone()));
    }
    Ok(members)
}

fn raft(source: &Source<'_>, section: &RaftSection) -> Result<RaftTiming, ConfigError> {
    let default = RaftTiming::default();
    let ms = Duration::from_millis;
    let timing = RaftTiming {
        heartbeat: source.span("raft.heartbeat", section.heartbeat.as_ref(), default.heartbeat, ms(5)..=ms(10_000))?,
        election_min: source.span("raft.election_min", section.election_min.as_ref(), default.election_min, ms(20)..=ms(60_000))?,
        election_max: source.span("raft.election_max", section.election_max.as_ref(), default.election_max, ms(30)..=ms(120_000))?,
    };
    // Blame a key that the file has: the defaults agree with each other.
    if timing.heartbeat * 2 >= timing.election_min {
        let message = format!(
            "twice the heartbeat ({:?}) must be less than election_min ({:?}), or one lost heartbeat starts an election",
            timing.heartbeat, timing.election_min
        );
        let (key, at) = match (&section.heartbeat, &section.election_min) {
            (Some(at), _) => ("raft.heartbeat", Some(at)),
            (None, at) => ("raft.election_min", at.as_ref()),
        };
        return Err(at.map_or_else(|| source.whole(key, message.clone()), |at| source.at(at, key, message.clone())));
    }
    if timing.election_min >= timing.election_max {
        let message = format!("election_min ({:?}) must be less than election_max ({:?})", timing.election_min, timing.election_max);
        let (key, at) = match (&section.election_max, &section.election_min) {
            (Some(at), _) => ("raft.election_max", Some(at)),
            (None, at) => ("raft.election_min", at.as_ref()),
        };
        return Err(at.map_or_else(|| source.whole(key, message.clone()), |at| source.at(at, key, message.clone())));
    }
    Ok(timing)
}

fn limits(source: &Source<'_>, section: &LimitsSection) -> Result<ServiceLimits, ConfigError> {
    let default = ServiceLimits::default();
    let day = Duration::from_secs(24 * 3600);
    let shortest = Duration::from_millis(100);
    let min_duration = source.span("limits.min_duration", section.min_duration.as_ref(), default.min_duration, shortest..=day)?;
    let max_duration = source.span("limits.max_duration", section.max_duration.as_ref(), default.max_duration, shortest..=day)?;
    if min_duration > max_duration {
        let message = format!("min_duration ({min_duration:?}) must not exceed max_duration ({max_duration:?})");
        let at = section.min_duration.as_ref().or(section.max_duration.as_ref());
        return Err(at.map_or_else(|| source.whole("limits", message.clone()), |at| source.at(at, "limits.min_duration", message.clone())));
    }
    let number = |key, given: Option<&Spanned<u64>>, otherwise: u64, range: RangeInclusive<u64>| match given {
        None => Ok(otherwise),
        Some(value) => source.within(key, value, range).map(|()| *value.get_ref()),
    };
    let queue = number("limits.queue", section.queue.as_ref(), default.queue as u64, 16..=1_000_000)?;
    let waiters = number("limits.waiters_per_lease", section.waiters_per_lease.as_ref(), default.waiters_per_lease.into(), 1..=10_000)?;
    if let Some(most) = &section.connections_per_source {
        source.within("limits.connections_per_source", most, 1..=1_000_000)?;
    }
    Ok(ServiceLimits {
        min_duration,
        max_duration,
        queue: usize::try_from(queue).expect("at most a million"),
        leases_per_namespace: number("limits.leases_per_namespace", section.leases_per_namespace.as_ref(), default.leases_per_namespace, 1..=1 << 40)?,
        waiters_per_lease: u32::try_from(waiters).expect("at most ten thousand"),
        connections_per_source: section.connections_per_source.as_ref().map(|most| usize::try_from(*most.get_ref()).expect("at most a million")),
        watch_queue: default.watch_queue,
    })
}

/// The text that was read, to say where something stands in it.
struct Source<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Source<'_> {
    fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
    }

    fn whole(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.to_owned(), line: None, key: key.into(), message: message.into() }
    }

    fn at<T>(&self, value: &Spanned<T>, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError { line: Some(self.line_of(value.span().start)), ..self.whole(key, message) }
    }

    fn within(&self, key: &str, value: &Spanned<u64>, range: RangeInclusive<u64>) -> Result<(), ConfigError> {
        if range.contains(value.get_ref()) {
            return Ok(());
        }
        let (low, high) = range.into_inner();
        let message = if high == u64::MAX { format!("must be {low} or more") } else { format!("must be from {low} to {high}") };
        Err(self.at(value, key, format!("{} is out of range: {message}", value.get_ref())))
    }

    fn span(&self, key: &str, given: Option<&Spanned<Span>>, otherwise: Duration, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
        let Some(given) = given else { return Ok(otherwise) };
        let value = given.get_ref().0;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(self.at(given, key, format!("{value:?} is out of range: must be from {:?} to {:?}", range.start(), range.end())))
    }

    /// The parser's own refusals, in our words where they can be better.
    fn refused_by_toml(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map(|span| span.start);
        let line = start.map(|at| self.line_of(at));
        let section = start.map(|at| self.section_before(at)).unwrap_or_default();
        let on_line = line.and_then(|line| self.text.lines().nth(line - 1)).unwrap_or_default();
        let named = on_line.split_once('=').map_or(on_line, |(key, _)| key).trim().trim_matches(['[', ']']).to_owned();
        let message = error.message();
        if let Some(missing) = quoted_after(message, "missing field ") {
            // The span of a missing key is its table; of the root table, everything.
            let line = line.filter(|_| on_line.trim_start().starts_with('['));
            return ConfigError { file: self.file.to_owned(), line, key: missing.into(), message: "must be set".into() };
        }
        let (key, message) = match quoted_after(message, "unknown field ") {
            Some(unknown) => {
                let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
                let hint = match nearest(unknown, &known) {
                    Some(near) => format!("unknown key; did you mean `{near}`?"),
                    None => format!("unknown key; known here: {}", known.join(", ")),
                };
                (unknown.to_owned(), hint)
            }
            None => (named, message.trim().replace('\n', "; ")),
        };
        let key = if section.is_empty() || key == section || key.is_empty() { key } else { format!("{section}.{key}") };
        ConfigError { file: self.file.to_owned(), line, key, message }
    }

    /// The section that a place in the text belongs to.
    fn section_before(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let header = before.lines().rev().map(str::trim).find(|line| line.starts_with('['));
        header.map(|line| line.split('#').next().unwrap_or(line).trim().trim_matches(['[', ']']).to_owned()).unwrap_or_default()
    }
}

fn quoted_after<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    message.strip_prefix(prefix)?.strip_prefix('`')?.split('`').next()
}

/// The known key that an unknown one was meant to be, if one is near.
fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, near) = known.iter().map(|known| (edits(unknown, known), *known)).min()?;
    (distance <= 1 + unknown.len() / 4).then_some(near)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
