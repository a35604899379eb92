//! Request ids: how they are compared, and the ended ones, remembered for five minutes so that a repeat is never granted twice.
//!
//! The table is a queue in order of ending, in copy-on-write blocks, with two indexes; only the queue is replicated state.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::Arc,
};

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::{Acquire, EndReason, Labels, LeaseKey, LeaseTime, Put, PutHold};

/// For how long of lease clock an ended request is remembered.
pub(crate) const REMEMBER_MS: u64 = 5 * 60 * 1000;
/// With this many remembered, acquires are shed.
const MOST_ENDED: usize = 2_000_000;
/// Entries of one block: what the first change after a freeze copies.
const BLOCK: usize = 512;

/// A map whose keys are numbers of ours or digests: needs no protection against chosen keys, and must hash alike everywhere.
pub(crate) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Multiply and fold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberHasher(u64);

/// As maps of numbers hash them.
pub(crate) fn hash_number(number: u64) -> u64 {
    let mut hasher = NumberHasher::default();
    hasher.write_u64(number);
    hasher.finish()
}

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Digest of (namespace, name, holder, request id).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestKey(pub(crate) [u64; 2]);

impl Hash for RequestKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0] ^ self.0[1]);
    }
}

impl RequestKey {
    pub(crate) fn of(key: &LeaseKey, holder: &str, request_id: &str) -> Self {
        let mut digest = Digest::new(1);
        for text in [&*key.namespace, &*key.name, holder, request_id] {
            digest.bytes(text.as_bytes());
        }
        let (low, high) = digest.finish();
        Self([low, high])
    }
}

/// Digest of what a repeat must have in common with the first request. Not of how long it waits, nor through which replica:
/// who reattaches has a shorter wait left. Never [`ANY_FINGERPRINT`].
pub(crate) fn fingerprint(acquire: &Acquire) -> u64 {
    let mut digest = Digest::new(2);
    digest.number(u64::from(acquire.duration_ms));
    digest.number(u64::from(acquire.reclaim));
    digest.number(acquire.retention_ms);
    digest.bytes(&acquire.holder_data);
    digest.labels(&acquire.labels);
    digest.labels(&acquire.annotations);
    digest.finish().0.max(ANY_FINGERPRINT + 1)
}

/// As [`fingerprint`], of a put that declares a hold: all that it says.
pub(crate) fn put_fingerprint(put: &Put, hold: &PutHold) -> u64 {
    let mut digest = Digest::new(5);
    digest.number(u64::from(hold.duration_ms));
    digest.bytes(&hold.holder_data);
    for labels in [&put.labels, &put.annotations] {
        digest.number(u64::from(labels.is_some()));
        digest.labels(labels.as_deref().unwrap_or(&Labels::new()));
    }
    digest.number(match put.retention_ms {
        None => 0,
        Some(None) => 1,
        Some(Some(_)) => 2,
    });
    digest.number(put.retention_ms.flatten().unwrap_or(0));
    digest.number(put.if_revision.unwrap_or(0));
    digest.number(u64::from(put.must_not_exist));
    digest.finish().0.max(ANY_FINGERPRINT + 1)
}

/// Of a barred request, whose parameters nobody has seen.
pub(crate) const ANY_FINGERPRINT: u64 = 0;

/// Identity of one incarnation of a lease, as a version 8 UUID.
pub(crate) fn uid(create_revision: u64, namespace: &str, name: &str) -> u128 {
    let mut digest = Digest::new(3);
    digest.number(create_revision);
    digest.bytes(namespace.as_bytes());
    digest.bytes(name.as_bytes());
    let (low, high) = digest.finish();
    let digest = (u128::from(high) << 64) | u128::from(low);
    (digest & !(0xf << 76) & !(0x3 << 62)) | (8 << 76) | (2 << 62)
}

/// SipHash with fixed keys over length-prefixed parts: the same on every replica and in every build.
pub(crate) struct Digest(SipHasher24);

impl Digest {
    pub(crate) fn new(purpose: u64) -> Self {
        Self(SipHasher24::new_with_keys(0x7465_6e75_7265_2e76, purpose))
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.write(bytes);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn labels(&mut self, labels: &Labels) {
        self.number(labels.len() as u64);
        for (key, value) in labels {
            self.bytes(key.as_bytes());
            self.bytes(value.as_bytes());
        }
    }

    pub(crate) fn finish(self) -> (u64, u64) {
        let digest = self.0.finish128();
        (digest.h1, digest.h2)
    }
}

/// A request that will never be granted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) request: RequestKey,
    /// 0 if it never was granted.
    pub(crate) token: u64,
    pub(crate) reason: EndReason,
    pub(crate) fingerprint: u64,
    pub(crate) ended_at: LeaseTime,
}

/// Those that ended in the last five minutes of lease clock.
#[derive(Debug)]
pub(crate) struct EndedRequests {
    blocks: EndedBlocks,
    /// Sequence number of the oldest one remembered.
    first: u64,
    next: u64,
    by_request: NumberMap<RequestKey, u64>,
    by_token: NumberMap<u64, u64>,
    pub(crate) most: usize,
}

/// The queue alone: cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndedBlocks {
    blocks: VecDeque<Arc<Vec<Ended>>>,
    /// How many of the front block are forgotten.
    skip: usize,
}

impl Default for EndedRequests {
    fn default() -> Self {
        Self { blocks: EndedBlocks::default(), first: 0, next: 0, by_request: NumberMap::default(), by_token: NumberMap::default(), most: MOST_ENDED }
    }
}

impl EndedRequests {
    pub(crate) fn len(&self) -> usize {
        (self.next - self.first) as usize
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// False if it is remembered already.
    pub(crate) fn remember(&mut self, ended: Ended) -> bool {
        if self.by_request.contains_key(&ended.request) || (ended.token != 0 && self.by_token.contains_key(&ended.token)) {
            return false;
        }
        self.by_request.insert(ended.request, self.next);
        if ended.token != 0 {
            self.by_token.insert(ended.token, self.next);
        }
        self.next += 1;
        self.blocks.push(ended);
        true
    }

    pub(crate) fn by_request(&self, request: RequestKey) -> Option<&Ended> {
        self.by_request.get(&request).map(|sequence| self.at(*sequence))
    }

    pub(crate) fn by_token(&self, token: u64) -> Option<&Ended> {
        self.by_token.get(&token).map(|sequence| self.at(*sequence))
    }

    fn at(&self, sequence: u64) -> &Ended {
        let at = (sequence - self.first) as usize + self.blocks.skip;
        &self.blocks.blocks[at / BLOCK][at % BLOCK]
    }

    pub(crate) fn oldest(&self) -> Option<&Ended> {
        self.blocks.blocks.front().and_then(|block| block.get(self.blocks.skip))
    }

    /// Forgets at most `most` of those that ended before `horizon`; whether more of them are left.
    pub(crate) fn forget_before(&mut self, horizon: LeaseTime, most: usize) -> bool {
        for _ in 0..most {
            let Some(oldest) = self.oldest().copied().filter(|oldest| oldest.ended_at < horizon) else { return false };
            self.by_request.remove(&oldest.request);
            self.by_token.remove(&oldest.token);
            self.blocks.pop();
            self.first += 1;
        }
        self.oldest().is_some_and(|oldest| oldest.ended_at < horizon)
    }

    pub(crate) fn blocks(&self) -> &EndedBlocks {
        &self.blocks
    }
}

impl EndedBlocks {
    fn push(&mut self, ended: Ended) {
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK => Arc::make_mut(block).push(ended),
            _ => {
                // Not the whole block at once: most clusters end few requests in five minutes.
                self.blocks.push_back(Arc::new(vec![ended]));
            }
        }
    }

    fn pop(&mut self) {
        self.skip += 1;
        // Every block but the last is full, so that positions can be computed.
        if self.blocks.front().is_some_and(|block| self.skip >= block.len()) {
            self.blocks.pop_front();
            self.skip = 0;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Ended> {
        self.blocks.iter().flat_map(|block| block.iter()).skip(self.skip)
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum::<usize>() - self.skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(number: u64) -> Ended {
        Ended { request: RequestKey([number, number]), token: number, reason: EndReason::Released, fingerprint: 1, ended_at: LeaseTime(number) }
    }

    #[test]
    fn remembered_requests_are_found_until_they_are_forgotten_in_order() {
        let mut table = EndedRequests::default();
        for number in 1..=2000 {
            assert!(table.remember(ended(number)));
            assert!(!table.remember(ended(number)), "none twice");
        }
        assert!(table.forget_before(LeaseTime(1500), 1000), "more are left");
        assert!(!table.forget_before(LeaseTime(1500), 1000));
        assert_eq!(table.len(), 501);
        assert_eq!(table.blocks().len(), 501);
        assert_eq!(table.by_token(1499), None);
        for number in 1500..=2000 {
            assert_eq!(table.by_request(RequestKey([number, number])), Some(&ended(number)));
            assert_eq!(table.by_token(number), Some(&ended(number)));
        }
        assert!(!table.forget_before(LeaseTime(u64::MAX), 1000));
        assert_eq!((table.len(), table.oldest()), (0, None));
        assert!(table.remember(ended(7)), "what was forgotten may come again");
        assert_eq!(table.by_token(7), Some(&ended(7)));
    }

    #[test]
    fn request_keys_do_not_run_parts_together() {
        let key = LeaseKey::trusted("a", "bc");
        let other = LeaseKey::trusted("ab", "c");
        assert_ne!(RequestKey::of(&key, "h", "r"), RequestKey::of(&other, "h", "r"));
        assert_ne!(RequestKey::of(&key, "h", "rr"), RequestKey::of(&key, "hr", "r"));
    }

    #[test]
    fn uids_are_version_8_uuids_and_differ_between_incarnations() {
        let first = uid(1, "default", "a");
        assert_eq!((first >> 76) & 0xf, 8);
        assert_eq!((first >> 62) & 0x3, 2);
        assert_ne!(first, uid(2, "default", "a"));
    }
}
