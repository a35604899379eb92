//! Random entries: the table says and does what the naive one does, from a snapshot too, and any bytes are read without harm.

use super::{
    fixture::{LEADER, START, entry},
    model::Model,
    wishes::{LIMITS, NAMES, Round, Wish, bootstrapped, bytes, command, live, restore, seen},
};
use proptest::{collection::vec, prelude::*, sample::Index};

fn wish() -> impl Strategy<Value = Wish> {
    let name = 0..NAMES.len();
    let duration = prop_oneof![Just(None), Just(Some(300)), Just(Some(4000))];
    let wait = prop_oneof![2 => Just(0_u64), 4 => Just(20_000), 1 => Just(900)];
    let retention = prop_oneof![Just(None), Just(Some(None)), Just(Some(Some(800))), Just(Some(Some(100_000)))];
    prop_oneof![
        5 => (any::<u16>(), duration, proptest::option::weighted(0.2, name.clone())).prop_map(|(token, duration, name)| Wish::Renew { token, duration, name }),
        3 => (name.clone(), any::<u16>(), prop::bool::weighted(0.2)).prop_map(|(name, token, undelivered)| Wish::ReleaseToken { name, token, undelivered }),
        1 => (name.clone(), 0..3_usize, 0..4_usize).prop_map(|(name, holder, id)| Wish::ReleaseRequest { name, holder, id }),
        4 => (1..4_u64, prop::bool::weighted(0.1)).prop_map(|(session, close)| Wish::Keep { session, close }),
        10 => (name.clone(), 0..3_usize, 0..6_usize, prop::bool::weighted(0.05), wait, prop::bool::weighted(0.15), 1..4_u64)
            .prop_map(|(name, holder, id, odd, wait, reclaim, session)| Wish::Acquire { name, holder, id, odd, wait, reclaim, session }),
        3 => (any::<u16>(), 1..4_u64).prop_map(|(waiter, session)| Wish::Detach { waiter, session }),
        1 => (name.clone(), retention, prop::bool::weighted(0.2), prop::bool::weighted(0.2))
            .prop_map(|(name, retention, must_not_exist, stale)| Wish::Put { name, retention, must_not_exist, stale }),
        1 => (name, any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(name, force, stale)| Wish::Delete { name, force, stale }),
    ]
}

fn round() -> impl Strategy<Value = Round> {
    let passes = prop_oneof![4 => 0..3_u64, 4 => 100..900_u64, 3 => 900..2100_u64, 1 => 2001..11_000_u64, 1 => Just(1000_u64), 1 => 299_000..302_000_u64];
    (passes, vec(wish(), 0..5), prop::bool::weighted(0.15), prop::bool::weighted(0.05)).prop_map(|(passes, wishes, restore, inert)| Round {
        passes,
        wishes,
        restore,
        inert,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn table_does_what_the_naive_one_does_from_snapshots_too(rounds in vec(round(), 1..60)) {
        live(&rounds);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..400), good_version in any::<bool>()) {
        let mut bytes = bytes;
        if good_version && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&1_u32.to_le_bytes());
        }
        prop_assert!(restore(&bytes).is_err() || bytes.len() > 60);
    }

    #[test]
    fn damaged_snapshots_are_read_without_harm(rounds in vec(round(), 1..20), damage in vec((any::<Index>(), any::<u8>()), 1..4)) {
        let mut table = bootstrapped();
        let model = Model::new(START, LIMITS);
        let mut now = 0;
        for round in &rounds {
            now += round.passes;
            table.apply(LEADER, entry(now, round.wishes.iter().map(|wish| command(wish, &model))), false);
        }
        let mut written = bytes(&table);
        for (at, byte) in damage {
            let at = at.index(written.len());
            written[at] = byte;
        }
        if let Ok(table) = restore(&written) {
            std::hint::black_box((table.state_hash(), table.next_timer(), seen(&table)));
        }
    }
}
