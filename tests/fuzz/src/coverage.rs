//! Which branches of our crates an input takes, when they were compiled to count them (`rustc-with-counters`): then inputs that reach something new
//! are kept and mutated further. Without counters everything works all the same, only blindly.
#![expect(unsafe_code, reason = "the counters are memory of the compiler's making, handed over by pointers")]

use std::{
    slice,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

/// The counters of each compiled crate.
static COUNTERS: Mutex<Vec<&'static [AtomicU8]>> = Mutex::new(Vec::new());

/// Called once for each crate that counts, before `main`.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    if start.is_null() || stop <= start {
        return;
    }
    // SAFETY: by the compiler's contract these are the bounds of one array of bytes, which lives as long as the process and is written to by
    // instrumented code of any thread; atomics are bytes in memory.
    let counters = unsafe { slice::from_raw_parts(start.cast::<AtomicU8>(), stop.addr() - start.addr()) };
    let mut all = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner);
    if !all.iter().any(|known| known.as_ptr() == counters.as_ptr()) {
        all.push(counters);
    }
}

/// What was ever seen.
pub(crate) struct Coverage {
    counters: Vec<Counters>,
    /// For each counter, the magnitudes that it has had.
    seen: Vec<u8>,
    branches: usize,
}

/// One crate's, looked at eight at a time, since most are zero.
struct Counters {
    head: &'static [AtomicU8],
    words: &'static [AtomicU64],
    tail: &'static [AtomicU8],
}

impl Counters {
    fn of(counters: &'static [AtomicU8]) -> Self {
        // SAFETY: any eight bytes are a number, and both are atomics.
        let (head, words, tail) = unsafe { counters.align_to() };
        Self { head, words, tail }
    }

    /// Those that are not zero, with their places.
    fn each(&self, mut each: impl FnMut(usize, u8)) {
        let mut one = |at: usize, counter: &AtomicU8| {
            let count = counter.load(Relaxed);
            if count != 0 {
                each(at, count);
            }
        };
        let words = self.head.len();
        let tail = words + self.words.len() * 8;
        self.head.iter().enumerate().for_each(|(at, counter)| one(at, counter));
        self.tail.iter().enumerate().for_each(|(at, counter)| one(tail + at, counter));
        for (at, word) in self.words.iter().enumerate() {
            let counts = word.load(Relaxed);
            if counts != 0 {
                let counts = counts.to_ne_bytes().into_iter().enumerate().filter(|(_, count)| *count != 0);
                counts.for_each(|(byte, count)| each(words + at * 8 + byte, count));
            }
        }
    }

    fn clear(&self) {
        self.head.iter().chain(self.tail).for_each(|counter| counter.store(0, Relaxed));
        // A write costs more than a look.
        self.words.iter().filter(|word| word.load(Relaxed) != 0).for_each(|word| word.store(0, Relaxed));
    }

    fn len(&self) -> usize {
        self.head.len() + self.words.len() * 8 + self.tail.len()
    }
}

impl Coverage {
    pub(crate) fn new() -> Self {
        let counters: Vec<_> = COUNTERS.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().map(Counters::of).collect();
        let seen = vec![0; counters.iter().map(Counters::len).sum()];
        Self { counters, seen, branches: 0 }
    }

    /// How many branches count; 0: none was compiled to.
    pub(crate) fn counted(&self) -> usize {
        self.seen.len()
    }

    /// How many were ever taken.
    pub(crate) fn taken(&self) -> usize {
        self.branches
    }

    /// To be called before an input is run.
    pub(crate) fn clear(&self) {
        self.counters.iter().for_each(Counters::clear);
    }

    /// What the input that was run since has done as none before.
    pub(crate) fn news(&mut self) -> News {
        let (mut news, mut first) = (News::None, 0);
        let Self { counters, seen, branches } = self;
        for counters in counters {
            counters.each(|at, count| {
                let seen = &mut seen[first + at];
                let magnitude = magnitude(count);
                if *seen == 0 {
                    *branches += 1;
                    news = News::Branch;
                } else if *seen & magnitude == 0 {
                    news = news.max(News::Magnitude);
                }
                *seen |= magnitude;
            });
            first += counters.len();
        }
        news
    }
}

/// See [`Coverage::news`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// Took a branch more often than any before, or less.
    Magnitude,
    /// Took a branch.
    Branch,
}

/// One bit each for 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, and more.
fn magnitude(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..8 => 8,
        8..16 => 16,
        16..32 => 32,
        32..128 => 64,
        128.. => 128,
    }
}
