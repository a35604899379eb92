//! Configuration files: what is refused, and how the refusal reads.

use super::*;

const GOOD: &str = r#"
node_id = 1
data_dir = "./data"
bootstrap = true

[listen]
client = "127.0.0.1:7400"
peer = "127.0.0.1:7401"
http = "127.0.0.1:7402"

[[members]]
node_id = 1
peer = "127.0.0.1:7401"

[[members]]
node_id = 2
peer = "127.0.0.1:7411"

[raft]
heartbeat = "50ms"
election_min = "150ms"
election_max = "300ms"

[limits]
min_duration = "1s"
"#;

fn parse(text: &str) -> Result<Settings, ConfigError> {
    Settings::parse(text, Path::new("x.toml"))
}

/// Replaces one line of the good text and says how the refusal reads.
fn refusal(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in the good text");
    parse(&GOOD.replacen(from, to, 1)).expect_err(to).to_string()
}

#[test]
fn every_shipped_configuration_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster-configs");
    let mut folders = vec![root];
    let mut loaded = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("cluster-configs is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                let settings = Settings::load(&path).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(settings.config.initial_members.len(), 3, "{}", path.display());
                loaded += 1;
            }
        }
    }
    assert!(loaded >= 6, "only {loaded} files found");
}

#[test]
fn defaults_fill_what_is_not_said() {
    let settings = parse("node_id = 7\ndata_dir = \"d\"\n").expect("is enough");
    assert_eq!(settings.config.raft, RaftTiming::default());
    assert_eq!(settings.config.limits, ServiceLimits::default());
    assert_eq!(settings.config.advertise, settings.listen);
    assert!(settings.config.history && !settings.config.bootstrap);
}

#[test]
fn server_identity_is_on_unless_it_is_turned_off() {
    let with = |lines: &str| parse(&format!("node_id = 7\ndata_dir = \"d\"\n{lines}\n")).map(|settings| settings.config);
    assert_eq!(with("").expect("is enough").server_identity, Some(Duration::from_secs(30)));
    assert_eq!(with("server_identity = false\nserver_identity_duration = \"3s\"").expect("is right").server_identity, None);
    let config = with("server_identity_duration = \"3s\"\nhost_name = \"web-1\"").expect("is right");
    assert_eq!((config.server_identity, config.host_name.as_str()), (Some(Duration::from_secs(3)), "web-1"));
    for (lines, key) in [("server_identity_duration = \"2h\"", "`server_identity_duration`"), ("host_name = \" \"", "`host_name`")] {
        let text = with(lines).expect_err(lines).to_string();
        assert!(text.starts_with(&format!("x.toml, line 3, {key}: ")), "{text}");
    }
}

#[test]
fn a_typo_is_named_with_its_line_and_the_nearest_key() {
    assert_eq!(refusal("heartbeat = ", "hartbeat = "), "x.toml, line 20, `raft.hartbeat`: unknown key; did you mean `heartbeat`?");
    assert_eq!(refusal("node_id = 1\ndata", "nodeid = 1\ndata"), "x.toml, line 2, `nodeid`: unknown key; did you mean `node_id`?");
    assert_eq!(refusal("[limits]", "[limit]"), "x.toml, line 24, `limit`: unknown key; did you mean `limits`?");
    assert!(refusal("heartbeat = ", "zebra = ").contains("known here: heartbeat, election_min, election_max"));
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(refusal("node_id = 1\ndata", "data"), "x.toml, `node_id`: must be set");
    assert!(refusal("peer = \"127.0.0.1:7411\"\n", "").ends_with("`peer`: must be set"));
}

#[test]
fn wrong_types_and_units_are_named_with_their_key() {
    let text = refusal("\"50ms\"", "50");
    assert!(text.starts_with("x.toml, line 20, `raft.heartbeat`: ") && text.contains("such as \"50ms\""), "{text}");
    let text = refusal("\"50ms\"", "\"50 parsecs\"");
    assert!(text.starts_with("x.toml, line 20, `raft.heartbeat`: "), "{text}");
    let text = refusal("bootstrap = true", "bootstrap = \"yes\"");
    assert!(text.starts_with("x.toml, line 4, `bootstrap`: "), "{text}");
    let text = refusal("bootstrap = true", "bootstrap = ");
    assert!(text.starts_with("x.toml, line 4"), "{text}");
}

#[test]
fn values_out_of_range_are_refused() {
    for (from, to, said) in [
        ("\"50ms\"", "\"75ms\"", "line 20, `raft.heartbeat`: twice the heartbeat"),
        ("\"150ms\"", "\"90ms\"", "twice the heartbeat"),
        ("\"300ms\"", "\"150ms\"", "line 22, `raft.election_max`: election_min (150ms) must be less"),
        ("\"1s\"", "\"99ms\"", "line 25, `limits.min_duration`: 99ms is out of range: must be from 100ms"),
        ("\"1s\"", "\"25h\"", "`limits.min_duration`"),
        ("node_id = 1\ndata", "node_id = 0\ndata", "line 2, `node_id`: 0 is out of range: must be 1 or more"),
        ("min_duration = \"1s\"", "queue = 0", "line 25, `limits.queue`"),
        ("min_duration = \"1s\"", "waiters_per_lease = 10001", "line 25, `limits.waiters_per_lease`"),
        ("node_id = 2", "node_id = 1", "line 16, `members.node_id`: 1 is there twice"),
        ("\"127.0.0.1:7411\"", "\"127.0.0.1:7401\"", "`members.peer`: 127.0.0.1:7401 is there twice"),
        ("\"127.0.0.1:7400\"", "\"127.0.0.1\"", "`listen.client`: \"127.0.0.1\" is not host:port"),
        ("\"127.0.0.1:7400\"", "\"127.0.0.1:70000\"", "`listen.client`: \"70000\" is not a port"),
        ("\"127.0.0.1:7400\"", "\"0.0.0.0:7400\"", "`advertise.client`: not set"),
        ("node_id = 1\ndata", "node_id = 3\ndata", "bootstrap = true needs a [[members]] section"),
        ("[listen]", "[advertise]\npeer = \"h:9\"\n[listen]", "they must be the same"),
    ] {
        let text = refusal(from, to);
        assert!(text.contains(said), "{to}: {text}");
    }
}

#[test]
fn garbage_is_refused_without_a_panic() {
    for text in ["\u{0}", "[[", "= = =", "node_id = 99999999999999999999999", "é = 1", "[raft", "node_id = -1\ndata_dir = 'x'"] {
        parse(text).expect_err(text);
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Settings::load(Path::new("/no/such/file.toml")).expect_err("is not there").to_string();
    assert!(error.starts_with("/no/such/file.toml: cannot read"), "{error}");
}
