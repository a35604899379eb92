//! Label selectors: what is wrong is wrong somewhere in the text; what is right means the same with more spaces, and with more said.

use std::sync::Arc;

use tenure_lease::{Labels, Selector};

use super::{Shape, Target};

pub(super) const TARGET: Target = Target {
    name: "selector",
    reads: "label selectors",
    shape: Shape::Text,
    words: &["in", "notin", "(", ")", "!", "=", "==", "!=", ",", " ", "app", "example.com/app", "web", "db", "a-b.c_d", "\u{a0}", "é", "()", "(,)", "=,"],
    mutations: 60_000,
    run,
};

fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let selector: Selector = match text.parse() {
        Ok(selector) => selector,
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.at), "{text:?}: {error}");
            return false;
        }
    };
    assert_eq!(selector.is_empty(), text.trim().is_empty(), "{text:?}");
    for padded in [format!(" {text}\t"), text.replace(',', " , "), text.replace('(', "( ")] {
        assert_eq!(padded.parse().as_ref(), Ok(&selector), "{padded:?}");
    }
    let sides: [&[(&str, &str)]; 4] = [&[], &[("app", "web")], &[("app", ""), ("a", "b")], &[("example.com/app", "db"), ("in", "in"), ("app", "db")]];
    for labels in sides {
        let labels: Labels = labels.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
        let matches = selector.matches(&labels);
        for (more, too) in [("app", labels.contains_key("app")), ("!in", !labels.contains_key("in"))] {
            if !selector.is_empty() {
                let both: Selector = format!("{text},{more}").parse().expect("one more requirement");
                assert_eq!(both.matches(&labels), matches && too, "{text:?} and {more}");
            }
        }
    }
    true
}
