//! Short texts: page tokens, `grpc-timeout`, durations as people write them, names.

use std::time::Duration;

use tenure_lease::{LeaseKey, check_annotations, check_labels};
use tenure_server::{config, fuzzing as door};

use super::{Shape, Target};

pub(super) const TARGET: Target = Target {
    name: "texts",
    reads: "page tokens, timeouts, durations, names",
    shape: Shape::Text,
    words: &[
        "0",
        "+",
        "-",
        ".",
        "/",
        "a",
        "ms",
        "s",
        "m",
        "h",
        "d",
        "H",
        "M",
        "S",
        "u",
        "n",
        "0000000000000007",
        "00000000",
        "ffffffff",
        "é",
        "1.5",
        "99999999",
    ],
    mutations: 30_000,
    run,
};

/// The first byte chooses.
fn run(input: &[u8]) -> bool {
    let Some((kind, text)) = input.split_first() else { return false };
    let Ok(text) = std::str::from_utf8(text) else { return false };
    match kind % 5 {
        0 => match door::page_token(text) {
            Ok(again) => {
                assert_eq!(again, text, "a page has one token");
                true
            }
            Err(_) => false,
        },
        1 => door::patience(text).is_some_and(|patience| {
            assert!(patience <= Duration::from_secs(99_999_999 * 3_600));
            patience != Duration::from_secs(5)
        }),
        2 => config::duration(text).is_some(),
        3 => match tenure_cli::fuzzing::duration(text) {
            Ok(duration) => {
                // What is shown can be typed, to the millisecond; numbers that no float can tell apart aside.
                let shown = tenure_cli::fuzzing::json_duration(duration);
                let typed = tenure_cli::fuzzing::duration(&shown);
                assert!(duration.as_secs() > 1 << 40 || typed == Ok(duration), "{text:?} is shown as {shown}, which is {typed:?}");
                true
            }
            Err(_) => false,
        },
        _ => is_a_name(text),
    }
}

fn is_a_name(text: &str) -> bool {
    let key = LeaseKey::new("default", text);
    if let Ok(key) = &key {
        assert!(key.name.len() <= 253 && key.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte)));
    }
    let label = [(text.into(), text.into())].into();
    if check_labels(&label).is_ok() {
        check_annotations(&label).expect("what is good as a label is good as an annotation");
    }
    key.is_ok()
}
