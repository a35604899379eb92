//! The rest of lists that were answered page by page: every page shows the revision of the first, whatever was applied since.
//!
//! Kept at this replica only, for a minute after the last page, and only so many: a token that is not known any more is an error that says to list
//! again. A token is 128 random bits, opaque to clients, and good only for the source address that listed: nobody guesses another's, or learns from one's
//! own what else this replica chose at random.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tenure_lease::{Lease, LeaseTime};
use tokio::sync::Notify;
use tonic::Status;

use super::{status, unguessable::Unguessable, validate::Query};
use crate::admission::Source;

/// Kept so long after its last page.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Lists kept at a time; the one that was made first goes first.
const LISTS: usize = 256;
/// Leases in all of them together: what bounds the memory.
const LEASES: usize = 4_000_000;

/// The result of a list at one revision.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) query: Query,
    pub(super) leases: Vec<Arc<Lease>>,
    pub(super) revision: u64,
    /// For `expires_in`.
    pub(super) now: LeaseTime,
}

/// Names a list that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageId(u128);

/// Lists that have pages left.
#[derive(Debug)]
pub(super) struct Pages {
    ids: Arc<Unguessable>,
    kept: Mutex<Kept>,
    /// There is something to forget.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    /// In the order in which they were made.
    lists: BTreeMap<u64, List>,
    leases: usize,
    /// Counts halves of [`IDLE`].
    now: u64,
}

#[derive(Debug)]
struct List {
    id: PageId,
    listed: Arc<Listed>,
    /// Who listed; `None`: nobody knows.
    source: Option<Source>,
    /// The time of its last use.
    used: u64,
}

impl Pages {
    pub(super) fn new(ids: Arc<Unguessable>) -> Self {
        Self { ids, kept: Mutex::new(Kept::default()), filled: Notify::new() }
    }

    /// Keeps the list for its next pages.
    pub(super) fn keep(&self, listed: Arc<Listed>, source: Option<Source>) -> PageId {
        self.keep_as(PageId(self.ids.next()), listed, source)
    }

    fn keep_as(&self, id: PageId, listed: Arc<Listed>, source: Option<Source>) -> PageId {
        let mut kept = self.kept.lock();
        kept.leases += listed.leases.len();
        while kept.lists.len() >= LISTS || (kept.leases > LEASES && !kept.lists.is_empty()) {
            let oldest = kept.lists.pop_first();
            kept.leases -= oldest.map_or(0, |(_, list)| list.listed.leases.len());
        }
        let (order, used) = (kept.next, kept.now);
        kept.next += 1;
        kept.lists.insert(order, List { id, listed, source, used });
        drop(kept);
        self.filled.notify_one();
        id
    }

    /// With one list, of nobody, whose tokens begin with the digits of `id`.
    #[cfg(feature = "fuzzing")]
    pub(super) fn with(id: u128, listed: Arc<Listed>) -> Self {
        let pages = Self::new(Arc::new(Unguessable::new(0)));
        pages.keep_as(PageId(id), listed, None);
        pages
    }

    /// How to ask for the page that begins there.
    pub(super) fn token(PageId(id): PageId, offset: usize) -> String {
        format!("{id:032x}{offset:08x}")
    }

    /// The list that a token is about, and where its page begins. A page can be asked for again (a retry) as long as its list is kept.
    pub(super) fn resume(&self, token: &str, query: &Query, source: Option<&Source>) -> Result<(PageId, Arc<Listed>, usize), Status> {
        let expired =
            || status::PAGE_TOKEN_EXPIRED.status("the pages of this list are not kept any more (or by another replica): list again from the first page");
        // As `token` writes it and no other way: a sign or a capital is not unchanged.
        let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let part = |range: std::ops::Range<usize>| token.get(range).filter(digits).and_then(|part| u128::from_str_radix(part, 16).ok());
        let (Some(id), Some(offset), 40) = (part(0..32), part(32..40), token.len()) else {
            return Err(status::invalid(vec![tonic_types::FieldViolation::new(
                "page_token",
                "page_token must be the next_page_token of an answer, unchanged",
            )]));
        };
        let mut kept = self.kept.lock();
        let now = kept.now;
        let list = kept.lists.values_mut().find(|list| list.id == PageId(id) && list.source.as_ref() == source).ok_or_else(expired)?;
        if list.listed.query != *query {
            return Err(status::invalid(vec![tonic_types::FieldViolation::new(
                "page_token",
                "page_token is of a list with another namespace or label_selector: every field but page_size must be as in the call before",
            )]));
        }
        list.used = now;
        Ok((list.id, list.listed.clone(), usize::try_from(offset).unwrap_or(usize::MAX)))
    }

    /// Forgets what nobody asks for, until dropped.
    pub(super) async fn forget_idle(&self) {
        loop {
            if self.kept.lock().lists.is_empty() {
                self.filled.notified().await;
            }
            tokio::time::sleep(IDLE / 2).await;
            self.pass_half_a_minute();
        }
    }

    fn pass_half_a_minute(&self) {
        let mut kept = self.kept.lock();
        kept.now += 1;
        let now = kept.now;
        kept.lists.retain(|_, list| now - list.used < 3);
        kept.leases = kept.lists.values().map(|list| list.listed.leases.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenure_lease::{Scope, Selector};

    fn query() -> Query {
        Query { scope: Scope::All, selector: Selector::default() }
    }

    fn listed(revision: u64) -> Arc<Listed> {
        Arc::new(Listed { query: query(), leases: Vec::new(), revision, now: LeaseTime(0) })
    }

    fn pages(seed: u64) -> Pages {
        Pages::new(Arc::new(Unguessable::new(seed)))
    }

    fn reason(error: &Status) -> String {
        tonic_types::StatusExt::get_details_error_info(error).unwrap().reason
    }

    #[test]
    fn page_can_be_asked_for_again_until_it_has_been_idle() {
        let pages = pages(7);
        let token = Pages::token(pages.keep(listed(3), None), 5);
        for _ in 0..5 {
            pages.pass_half_a_minute();
            let (_, found, offset) = pages.resume(&token, &query(), None).unwrap();
            assert_eq!((found.revision, offset), (3, 5));
        }
        for _ in 0..3 {
            pages.pass_half_a_minute();
        }
        assert_eq!(reason(&pages.resume(&token, &query(), None).unwrap_err()), "PAGE_TOKEN_EXPIRED");
    }

    #[test]
    fn token_of_another_replica_says_to_list_again() {
        let other = pages(8);
        let token = Pages::token(other.keep(listed(3), None), 5);
        assert_eq!(reason(&pages(7).resume(&token, &query(), None).unwrap_err()), "PAGE_TOKEN_EXPIRED");
    }

    #[test]
    fn token_for_another_list_or_nonsense_is_invalid() {
        let pages = pages(7);
        let token = Pages::token(pages.keep(listed(3), None), 5);
        let other = Query { scope: Scope::Namespace("x".into()), selector: Selector::default() };
        assert_eq!(reason(&pages.resume(&token, &other, None).unwrap_err()), "INVALID_REQUEST");
        for nonsense in ["x", "+000000000000007000000000000000000000005", "0000000000000007000000000000000A00000000", &"é".repeat(20), &"z".repeat(40)] {
            assert_eq!(reason(&pages.resume(nonsense, &query(), None).unwrap_err()), "INVALID_REQUEST");
        }
    }

    #[test]
    fn token_is_worth_nothing_to_another_source() {
        let (pages, source) = (pages(7), Source::of("127.0.0.1:1000"));
        let token = Pages::token(pages.keep(listed(3), Some(source)), 5);
        assert!(pages.resume(&token, &query(), Some(&Source::of("127.0.0.1:2000"))).is_ok());
        for other in [Some(Source::of("127.0.0.2:1000")), None] {
            assert_eq!(reason(&pages.resume(&token, &query(), other.as_ref()).unwrap_err()), "PAGE_TOKEN_EXPIRED");
        }
    }

    #[test]
    fn oldest_list_goes_when_there_are_too_many() {
        let pages = pages(7);
        let tokens: Vec<String> = (0..=LISTS as u64).map(|n| Pages::token(pages.keep(listed(n), None), 0)).collect();
        assert!(pages.resume(&tokens[0], &query(), None).is_err());
        assert!(pages.resume(&tokens[1], &query(), None).is_ok());
    }
}
