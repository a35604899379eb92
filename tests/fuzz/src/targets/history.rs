//! The checker's own histories: whatever a file says, it is read or refused, and what was read is judged without a panic.

use tenure_checker::{History, html, judge};

use super::{Shape, Target};

pub(super) const TARGET: Target = Target {
    name: "history",
    reads: "histories of the checker, judged and drawn",
    shape: Shape::Text,
    words: &[
        "at",
        "meta",
        "invoke",
        "return",
        "queued",
        "detached",
        "believe",
        "doubt",
        "watch_open",
        "watch_event",
        "watch_bookmark",
        "watch_end",
        "fault",
        "healed",
        "replica",
        "fenced_write",
        "committed",
        "witness",
        "calm",
        "acquire",
        "renew",
        "release",
        "get",
        "list",
        "put",
        "delete",
        "granted",
        "denied",
        "renewed",
        "lost",
        "released",
        "refused",
        "unknown",
        "op",
        "lease",
        "token",
        "revision",
        "duration_ms",
        "deadline",
        "holder",
        "client",
        "18446744073709551615",
        "18446744073709551614",
        "9007199254740993",
        "null",
        "true",
        "{",
        "}",
        "[",
        "]",
        ":",
        "\n",
    ],
    mutations: 4_500,
    run,
};

fn run(input: &[u8]) -> bool {
    let Ok(history) = History::read(input) else { return false };
    let mut written = Vec::new();
    history.write(&mut written).expect("a vector has room");
    assert_eq!(History::read(&*written).expect("what was written is read"), history, "and means the same");
    let report = judge(&history);
    assert!(html(&history, &report).len() > 100);
    assert!(!report.json().is_empty());
    history.records.len() > 1
}
