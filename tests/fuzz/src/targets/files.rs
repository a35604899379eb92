//! Small things on disk: identity files, and the history's holds.

use tenure_server::fuzzing as door;

use super::{Shape, Target};

pub(super) const TARGET: Target = Target {
    name: "files",
    reads: "identity files, and holds as the history keeps them",
    shape: Shape::Bytes,
    words: &["format", "node_id", "replica_id", "cluster_id", "null", "1", "\"", "{", "}", ":", "6f1c9a4e-1c1b-4f0e-9d55-0123456789ab"],
    mutations: 15_000,
    run,
};

/// The first byte chooses.
fn run(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    if kind % 2 == 0 {
        return door::identity(bytes).is_ok();
    }
    let Ok(written) = door::past_hold(bytes) else { return false };
    assert_eq!(door::past_hold(&written).as_ref(), Ok(&written), "a hold means the same again");
    true
}
