//! The lease table under commands made of bytes: it must say and do what the naive table of lease/tests says and does, and keep its invariants, also
//! when it is restored from snapshots on the way.

#[path = "../../../../lease/tests/rules/fixture.rs"]
#[allow(dead_code, reason = "the tests of the table use the rest")]
mod fixture;
#[path = "../../../../lease/tests/rules/model.rs"]
mod model;
#[path = "../../../../lease/tests/rules/wishes.rs"]
#[allow(dead_code, reason = "the tests of the table use the rest")]
mod wishes;

use self::wishes::{NAMES, Round, Wish};
use super::{Shape, Target};

pub(super) const TARGET: Target =
    Target { name: "leases", reads: "commands to the lease table, beside the naive one", shape: Shape::Bytes, words: &[], mutations: 1_800, run };

/// Each costs both tables a look at everything.
const MOST_ROUNDS: usize = 60;

fn run(input: &[u8]) -> bool {
    let mut bytes = Bytes(input);
    let mut rounds = Vec::new();
    while !bytes.0.is_empty() && rounds.len() < MOST_ROUNDS {
        rounds.push(bytes.round());
    }
    wishes::live(&rounds);
    rounds.len() > 1
}

/// Zeros after its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.next()) % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn session(&mut self) -> u64 {
        self.below(3) as u64 + 1
    }

    fn round(&mut self) -> Round {
        let passes = self.of(&[0, 0, 1, 2, 150, 500, 899, 1_000, 1_000, 1_001, 2_000, 2_001, 6_001, 10_001, 299_900, 301_000]);
        let wishes = (0..self.below(5)).map(|_| self.wish()).collect();
        let what = self.below(16);
        Round { passes, wishes, restore: what == 15 || what == 14, inert: what == 13 }
    }

    fn wish(&mut self) -> Wish {
        let name = self.below(NAMES.len());
        match self.below(12) {
            0 | 1 => {
                let named = self.one_in(5).then_some(name);
                Wish::Renew { token: self.next().into(), duration: self.of(&[None, Some(300), Some(4_000)]), name: named }
            }
            2 => Wish::ReleaseToken { name, token: self.next().into(), undelivered: self.one_in(4) },
            3 => Wish::ReleaseRequest { name, holder: self.below(3), id: self.below(4) },
            4 => Wish::Keep { session: self.session(), close: self.one_in(8) },
            5 => Wish::Detach { waiter: self.next().into(), session: self.session() },
            6 => {
                let retention = self.of(&[None, Some(None), Some(Some(800)), Some(Some(100_000))]);
                Wish::Put { name, retention, must_not_exist: self.one_in(5), stale: self.one_in(5) }
            }
            7 => Wish::Delete { name, force: self.one_in(2), stale: self.one_in(5) },
            _ => Wish::Acquire {
                name,
                holder: self.below(3),
                id: self.below(6),
                odd: self.one_in(16),
                wait: self.of(&[20_000, 0, 20_000, 900]),
                reclaim: self.one_in(6),
                session: self.session(),
            },
        }
    }
}
