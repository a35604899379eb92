//! Blocks, their index, and what an earlier build left behind.

use super::*;

fn hold(n: u64) -> Hold {
    Hold {
        holder: "h".into(),
        token: n,
        acquire_time: UnixMillis(n),
        end_time: Some(UnixMillis(n)),
        end_reason: Some(EndReason::Expired),
        end_revision: 100 + n,
    }
}

fn key(name: &str) -> LeaseKey {
    LeaseKey::trusted("default", name)
}

fn record(store: &mut Store, holds: &[(&str, u64)]) {
    let holds: Vec<_> = holds.iter().map(|(name, n)| (key(name), hold(*n))).collect();
    let marks = store.marks;
    store.record(holds.iter().map(|(key, hold)| (key.clone(), hold)), marks).unwrap();
}

fn tokens(store: &Store, name: &str, limit: usize) -> Vec<u64> {
    store.of(&key(name), limit).unwrap().iter().map(|hold| hold.token).collect()
}

#[test]
fn holds_of_a_lease_are_found_in_every_block_that_has_some() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    record(&mut store, &[("a", 1), ("b", 2), ("a", 3)]);
    record(&mut store, &[("b", 4)]);
    record(&mut store, &[("ab", 5), ("a", 6)]);
    assert_eq!(tokens(&store, "a", 10), [6, 3, 1]);
    assert_eq!(tokens(&store, "a", 2), [6, 3]);
    assert_eq!(tokens(&store, "b", 10), [4, 2]);
    assert_eq!(tokens(&store, "ab", 10), [5]);
    assert_eq!(tokens(&store, "", 10), [0; 0]);
    assert_eq!(store.verify().unwrap(), (6, 0));
}

#[test]
fn oldest_blocks_go_first_and_the_gap_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    for n in [1, 3, 5] {
        record(&mut store, &[("a", n), ("b", n + 1)]);
    }
    store.prune(3).unwrap();
    assert_eq!((store.marks.holds, store.marks.complete_since), (4, 102), "no fewer than three without the next block");
    store.prune(2).unwrap();
    assert_eq!((store.marks.holds, store.marks.complete_since), (2, 104));
    assert_eq!((tokens(&store, "a", 10), tokens(&store, "b", 10)), (vec![5], vec![6]));
    assert_eq!(store.db.len(), 4, "a block, two leases, the marks: nothing else is left");
}

#[test]
fn holds_that_an_earlier_build_wrote_are_found_behind_the_others_and_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let mut batch = sled::Batch::default();
    for n in [1_u64, 2] {
        let mut place = lease_prefix(b"h", "default", "a");
        place.extend(n.to_be_bytes());
        let record = Record { namespace: String::new(), name: String::new(), ..Record::of(&key("a"), &hold(n)) };
        batch.insert(revision_key(b"r", 100 + n), &place[..]);
        batch.insert(place, value(&record));
    }
    batch.insert(MARKS, value(&Marks { complete_since: 7, through: 102, holds: 2 }));
    store.db.apply_batch(batch).unwrap();
    drop(store);
    store = Store::open(dir.path()).unwrap();
    record(&mut store, &[("a", 3), ("a", 4)]);
    assert_eq!(tokens(&store, "a", 10), [4, 3, 2, 1]);
    assert_eq!(tokens(&store, "a", 3), [4, 3, 2]);
    assert_eq!(store.verify().unwrap(), (4, 7));
    store.prune(3).unwrap();
    assert_eq!(tokens(&store, "a", 10), [4, 3, 2]);
    assert_eq!((store.marks.holds, store.marks.complete_since), (3, 101));
    store.prune(0).unwrap();
    assert_eq!((tokens(&store, "a", 10), store.db.len()), (Vec::new(), 1));
}
