//! Kubernetes' label selector syntax: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, joined by commas.

use std::{collections::BTreeSet, str::FromStr, sync::Arc};

use crate::{
    Labels,
    key::{check_label_key, check_label_value, quoted},
};

/// A parsed selector; the default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// All of them.
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: Arc<str>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(BTreeSet<Arc<str>>),
    /// As in Kubernetes, also satisfied where there is no such label.
    NotIn(BTreeSet<Arc<str>>),
    Exists,
    Absent,
}

/// What is wrong with a selector, at which character.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label selector, at character {at}: {message}")]
pub struct InvalidSelector {
    /// From 1.
    pub at: usize,
    /// What was expected.
    pub message: String,
}

impl Selector {
    /// Whether the labels satisfy every requirement.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }

    /// Whether it has no requirement at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let mut parser = Parser { text, at: 0 };
        let mut requirements = Vec::new();
        if parser.peek() == Token::End {
            return Ok(Self::default());
        }
        loop {
            requirements.push(parser.requirement()?);
            match parser.next() {
                (_, Token::End) => return Ok(Self { requirements }),
                (_, Token::Comma) => {}
                (at, found) => return Err(parser.expected(at, "',' or the end", found)),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    NotEqual,
    End,
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.scan().1
    }

    /// Where it starts, and what it is.
    fn next(&mut self) -> (usize, Token<'a>) {
        let (start, token, end) = self.scan();
        self.at = end;
        (start, token)
    }

    fn scan(&self) -> (usize, Token<'a>, usize) {
        let rest = self.text[self.at..].trim_start();
        let start = self.text.len() - rest.len();
        let (token, length) = match rest.as_bytes() {
            [] => (Token::End, 0),
            [b',', ..] => (Token::Comma, 1),
            [b'(', ..] => (Token::Open, 1),
            [b')', ..] => (Token::Close, 1),
            [b'=', b'=', ..] => (Token::Equal, 2),
            [b'=', ..] => (Token::Equal, 1),
            [b'!', b'=', ..] => (Token::NotEqual, 2),
            [b'!', ..] => (Token::Not, 1),
            _ => {
                let length = rest.find(|c: char| c.is_whitespace() || ",()=!".contains(c)).unwrap_or(rest.len());
                (Token::Word(&rest[..length]), length)
            }
        };
        (start, token, start + length)
    }

    fn requirement(&mut self) -> Result<Requirement, InvalidSelector> {
        if self.peek() == Token::Not {
            self.next();
            return Ok(Requirement { key: self.key()?, test: Test::Absent });
        }
        let key = self.key()?;
        let test = match self.peek() {
            Token::Comma | Token::End => Test::Exists,
            Token::Equal => {
                self.next();
                Test::In([self.value()?].into())
            }
            Token::NotEqual => {
                self.next();
                Test::NotIn([self.value()?].into())
            }
            Token::Word("in") => {
                self.next();
                Test::In(self.values()?)
            }
            Token::Word("notin") => {
                self.next();
                Test::NotIn(self.values()?)
            }
            found => {
                let (at, _) = self.next();
                return Err(self.expected(at, "'=', '==', '!=', 'in', 'notin', ',' or the end", found));
            }
        };
        Ok(Requirement { key, test })
    }

    fn key(&mut self) -> Result<Arc<str>, InvalidSelector> {
        match self.next() {
            (at, Token::Word(key)) => {
                check_label_key(key).map_err(|problem| self.error(at, format!("label key {}: {problem}", quoted(key))))?;
                Ok(key.into())
            }
            (at, found) => Err(self.expected(at, "a label key", found)),
        }
    }

    /// Empty where a comma or the end follows: `a=` asks for the empty value.
    fn value(&mut self) -> Result<Arc<str>, InvalidSelector> {
        match self.peek() {
            Token::Comma | Token::End | Token::Close => Ok("".into()),
            found => {
                let (at, _) = self.next();
                let Token::Word(value) = found else { return Err(self.expected(at, "a value", found)) };
                check_label_value(value).map_err(|problem| self.error(at, format!("value {}: {problem}", quoted(value))))?;
                Ok(value.into())
            }
        }
    }

    fn values(&mut self) -> Result<BTreeSet<Arc<str>>, InvalidSelector> {
        match self.next() {
            (_, Token::Open) => {}
            (at, found) => return Err(self.expected(at, "'('", found)),
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value()?);
            match self.next() {
                (_, Token::Close) => return Ok(values),
                (_, Token::Comma) => {}
                (at, found) => return Err(self.expected(at, "',' or ')'", found)),
            }
        }
    }

    fn expected(&self, at: usize, what: &str, found: Token<'_>) -> InvalidSelector {
        let found = match found {
            Token::Word(word) => quoted(word),
            Token::Comma => "','".into(),
            Token::Open => "'('".into(),
            Token::Close => "')'".into(),
            Token::Not => "'!'".into(),
            Token::Equal => "'='".into(),
            Token::NotEqual => "'!='".into(),
            Token::End => "the end".into(),
        };
        self.error(at, format!("expected {what}, found {found}"))
    }

    fn error(&self, at: usize, message: String) -> InvalidSelector {
        InvalidSelector { at: self.text[..at].chars().count() + 1, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, pairs: &[(&str, &str)]) -> bool {
        let labels: Labels = pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
        selector.parse::<Selector>().expect(selector).matches(&labels)
    }

    #[test]
    fn every_operator_means_what_it_means_in_kubernetes() {
        let web = &[("app", "web"), ("tier", "")];
        for yes in [
            "",
            "  ",
            "app=web",
            "app==web",
            " app = web ",
            "app!=db",
            "other!=db",
            "app in (web,db)",
            "app in ( web , db )",
            "app notin (db)",
            "other notin (db)",
        ] {
            assert!(matches(yes, web), "{yes}");
        }
        for yes in
            ["app", "!other", "! other", "tier=", "tier in (,x)", "tier in ()", "app,tier,!other", "app=web,tier!=x,app in (web)", "app,tier=", "app=web,tier"]
        {
            assert!(matches(yes, web), "{yes}");
        }
        for no in ["app=db", "app!=web", "app in (db)", "app notin (web,db)", "other", "!app", "other=", "app=web,tier=x", "other in (a)", "in", "notin=x"] {
            assert!(!matches(no, web), "{no}");
        }
    }

    #[test]
    fn keywords_are_labels_where_a_key_stands() {
        assert!(matches("in in (in)", &[("in", "in")]));
        assert!(matches("notin", &[("notin", "")]));
        assert!(matches("example.com/app=web", &[("example.com/app", "web")]));
    }

    #[test]
    fn an_empty_selector_has_no_requirements() {
        assert!("".parse::<Selector>().expect("empty").is_empty());
        assert!(Selector::default().matches(&Labels::new()));
        assert!(!"a".parse::<Selector>().expect("one").is_empty());
    }

    #[test]
    fn errors_say_at_which_character() {
        for (selector, at, message) in [
            ("a b", 3, "expected '='"),
            ("a,", 3, "expected a label key, found the end"),
            (",a", 1, "expected a label key, found ','"),
            ("a,,b", 3, "expected a label key, found ','"),
            ("a in b", 6, "expected '(', found \"b\""),
            ("a in (b", 8, "expected ',' or ')', found the end"),
            ("a=b c", 5, "expected ',' or the end, found \"c\""),
            ("a==!b", 4, "expected a value, found '!'"),
            ("!a=b", 3, "expected ',' or the end, found '='"),
            ("a=-b", 3, "value \"-b\""),
            ("ä=b", 1, "label key"),
            ("a=b,ö", 5, "label key"),
            ("a=b)", 4, "expected ',' or the end, found ')'"),
        ] {
            let problem = selector.parse::<Selector>().expect_err(selector);
            assert_eq!(problem.at, at, "{selector}: {problem}");
            assert!(problem.message.starts_with(message), "{selector}: {problem}");
        }
    }
}
