//! What checking a history found: property by property, how much was looked at and what was wrong.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;

/// So many violations of a property are told in words; the rest are counted.
const TOLD: usize = 20;

/// One claim about every history.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Short name.
    pub id: &'static str,
    /// What it says.
    pub claim: &'static str,
    /// Looks for what contradicts it.
    pub check: fn(&Facts<'_>, &mut Findings),
}

/// What contradicts a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When, in true time.
    pub at: u64,
    /// Which lease; empty if it is about none.
    pub lease: String,
    /// What is wrong.
    pub text: String,
}

/// What was found about one claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// How often the claim was put to the test. 0: the history says nothing about it.
    pub checked: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
    /// All of them.
    pub violated: u64,
    /// Why less than everything was checked.
    pub note: Option<String>,
}

impl Findings {
    /// Counts a test of the claim, and a violation if it failed.
    pub fn check(&mut self, holds: bool, at: u64, lease: &str, text: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.violation(at, lease, text);
        }
    }

    /// Counts a violation.
    pub fn violation(&mut self, at: u64, lease: &str, text: impl FnOnce() -> String) {
        self.violated += 1;
        if self.violations.len() < TOLD {
            self.violations.push(Violation { at, lease: lease.to_owned(), text: text() });
        }
    }

    /// Says why something was not checked.
    pub fn note(&mut self, text: impl Into<String>) {
        self.note.get_or_insert_with(|| text.into());
    }
}
