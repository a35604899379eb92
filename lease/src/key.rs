//! Names, labels and annotations, with Kubernetes' rules.

use std::{collections::BTreeMap, sync::Arc};

/// Labels or annotations.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
const ANNOTATIONS_MAX: usize = 16 * 1024;
const LABELS_MAX: usize = 64;
const LABELS_SIZE_MAX: usize = 16 * 1024;

const DNS_LABEL: &str = "at most 63 characters, of a-z, 0-9 and '-', starting and ending with a letter or digit";
const DNS_SUBDOMAIN: &str = "at most 253 characters, of a-z, 0-9, '-' and '.', starting and ending with a letter or digit";
const QUALIFIED: &str = "at most 63 characters, of letters, digits, '-', '_' and '.', starting and ending with a letter or digit";

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// DNS label.
    pub namespace: Arc<str>,
    /// DNS subdomain, at most 253 characters.
    pub name: Arc<str>,
}

/// What is wrong with a name, a label or an annotation, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(pub String);

impl LeaseKey {
    /// Checks both.
    ///
    /// # Errors
    /// Says which, and the rule.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Self::check_namespace(namespace)?;
        Self::check_name(name)?;
        Ok(Self::trusted(namespace, name))
    }

    /// Without checks: for what was checked before it was logged.
    #[must_use]
    pub fn trusted(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// A DNS label, at most 63 characters.
    ///
    /// # Errors
    /// Says the rule.
    pub fn check_namespace(namespace: &str) -> Result<(), InvalidName> {
        if namespace.len() <= LABEL_MAX && is_dns_label(namespace) {
            return Ok(());
        }
        Err(InvalidName(format!("namespace {namespace} must be a DNS label: {DNS_LABEL}", namespace = quoted(namespace))))
    }

    /// A DNS subdomain, at most 253 characters.
    ///
    /// # Errors
    /// Says the rule.
    pub fn check_name(name: &str) -> Result<(), InvalidName> {
        if is_subdomain(name) {
            return Ok(());
        }
        Err(InvalidName(format!("name {name} must be a DNS subdomain: {DNS_SUBDOMAIN}", name = quoted(name))))
    }
}

/// Kubernetes' rules for label keys (`[dns-subdomain/]name`) and values; at most 64 labels, and 16 KiB over all. Kubernetes bounds the size of a whole
/// object instead; here every change keeps the labels as they were, so that these are bounded themselves.
///
/// # Errors
/// Says which label, and the rule.
pub fn check_labels(labels: &Labels) -> Result<(), InvalidName> {
    for (key, value) in labels {
        check_label_key(key).map_err(|problem| InvalidName(format!("label key {key}: {problem}", key = quoted(key))))?;
        check_label_value(value)
            .map_err(|problem| InvalidName(format!("label {key} has the value {value}: {problem}", key = quoted(key), value = quoted(value))))?;
    }
    if labels.len() > LABELS_MAX {
        return Err(InvalidName(format!("there are {} labels, at most {LABELS_MAX} are allowed", labels.len())));
    }
    let size = size(labels);
    if size > LABELS_SIZE_MAX {
        return Err(InvalidName(format!("labels have {size} bytes over all, at most {LABELS_SIZE_MAX} are allowed")));
    }
    Ok(())
}

/// Kubernetes' rules for annotation keys; 16 KiB over all.
///
/// # Errors
/// Says which annotation, and the rule.
pub fn check_annotations(annotations: &Labels) -> Result<(), InvalidName> {
    for key in annotations.keys() {
        // As Kubernetes does: annotation keys may have capitals in their prefix.
        check_label_key(&key.to_ascii_lowercase()).map_err(|problem| InvalidName(format!("annotation key {key}: {problem}", key = quoted(key))))?;
    }
    let size = size(annotations);
    if size > ANNOTATIONS_MAX {
        return Err(InvalidName(format!("annotations have {size} bytes over all, at most {ANNOTATIONS_MAX} are allowed")));
    }
    Ok(())
}

/// Of keys and values.
fn size(labels: &Labels) -> usize {
    labels.iter().map(|(key, value)| key.len() + value.len()).sum()
}

pub(crate) fn check_label_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, _)) if !is_subdomain(prefix) => {
            return Err(format!("the prefix {prefix} must be a DNS subdomain: {DNS_SUBDOMAIN}", prefix = quoted(prefix)));
        }
        Some((_, name)) => name,
        None => key,
    };
    if is_qualified(name) { Ok(()) } else { Err(format!("the name {name} must have 1 and {QUALIFIED}", name = quoted(name))) }
}

pub(crate) fn check_label_value(value: &str) -> Result<(), String> {
    if value.is_empty() || is_qualified(value) { Ok(()) } else { Err(format!("a value is empty, or has {QUALIFIED}")) }
}

/// As messages quote what was sent: its beginning is enough to know it by, and a message must fit into the headers of an answer.
#[must_use]
pub fn quoted(text: &str) -> String {
    const MOST: usize = 100;
    match text.char_indices().nth(MOST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
    }
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= SUBDOMAIN_MAX && name.split('.').all(is_dns_label)
}

/// But for its length, which Kubernetes limits in namespaces, not between the dots of a subdomain.
fn is_dns_label(label: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = label.as_bytes();
    bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric) && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

fn is_qualified(name: &str) -> bool {
    let bytes = name.as_bytes();
    name.len() <= LABEL_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
    }

    #[test]
    fn namespaces_are_dns_labels() {
        for good in ["default", "a", "0", "tenure-system", &"x".repeat(63)] {
            assert_eq!(LeaseKey::check_namespace(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(LeaseKey::check_namespace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lease_names_are_dns_subdomains() {
        for good in ["a", "node-1.example.com", "0.1", &"x".repeat(253), &format!("{}.b", "x".repeat(100))] {
            assert!(LeaseKey::new("default", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a.-b", "Node", "a/b", &"x".repeat(254)] {
            let problem = LeaseKey::new("default", bad).expect_err(bad).to_string();
            assert!(problem.starts_with(&format!("name {} must be a DNS subdomain", quoted(bad))), "{problem}");
        }
    }

    #[test]
    fn label_keys_have_an_optional_prefix_and_values_may_be_empty() {
        for (key, value) in [("app", "web"), ("example.com/app", ""), ("A_b.c-D", "1.0_X"), (&"k".repeat(63), &*"v".repeat(63))] {
            assert_eq!(check_labels(&labels(&[(key, value)])), Ok(()), "{key}={value}");
        }
        let long = "v".repeat(64);
        for (key, value) in
            [("", "a"), ("a/b/c", ""), ("/a", ""), ("a/", ""), ("Example.com/a", ""), ("-a", ""), ("a", "-b"), ("a", "b c"), ("a", &long), (&long, "")]
        {
            assert!(check_labels(&labels(&[(key, value)])).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn labels_are_bounded_in_number_and_over_all() {
        let many = |count, prefix: &str, value: &str| -> Labels { (0..count).map(|n| (format!("{prefix}{n:063}").into(), value.into())).collect() };
        let (domain, value) = ([["p".repeat(63).as_str(); 3].join("."), "p".repeat(61)].join("."), "v".repeat(63));
        assert_eq!(check_labels(&many(64, "example.com/", &value)), Ok(()));
        assert_eq!(check_labels(&many(65, "", "v")).unwrap_err().0, "there are 65 labels, at most 64 are allowed");
        let longest = many(48, &format!("{domain}/"), &value);
        assert_eq!(check_labels(&longest).unwrap_err().0, "labels have 18240 bytes over all, at most 16384 are allowed");
    }

    #[test]
    fn long_names_are_quoted_by_their_beginning() {
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        assert_eq!(quoted(&"é".repeat(100)), format!("{:?}", "é".repeat(100)));
        assert_eq!(quoted(&"é".repeat(101)), format!("{:?}… (202 bytes)", "é".repeat(100)));
        let problem = LeaseKey::new("default", &"x".repeat(1 << 20)).expect_err("too long").to_string();
        assert!(problem.len() < 400 && problem.contains("(1048576 bytes) must be a DNS subdomain"), "{problem}");
    }

    #[test]
    fn annotations_hold_any_text_up_to_16_kib() {
        assert_eq!(check_annotations(&labels(&[("Example.com/note", "any: text\n at all")])), Ok(()));
        assert!(check_annotations(&labels(&[("not a key", "")])).is_err());
        assert_eq!(check_annotations(&labels(&[("a", &"x".repeat(16 * 1024 - 1))])), Ok(()));
        assert!(check_annotations(&labels(&[("a", &"x".repeat(16 * 1024))])).is_err());
    }
}
