# Shorthands for people; CI does not need them (.ci/run).

# What CI runs, without Docker: formatting, lints, tests, documentation.
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

# Formats, and repairs what clippy can.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# Tests; arguments go to cargo test.
test *ARGS:
    cargo test --workspace {{ARGS}}

# Three replicas in one process.
dev *ARGS:
    cargo run --release --bin tenured -- dev {{ARGS}}

# Three replicas in three processes, until Ctrl-C.
cluster:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --bin tenured
    trap 'kill $(jobs -p); wait' EXIT INT TERM
    for n in 1 2 3; do target/release/tenured serve --config cluster-configs/node-$n.toml & done
    wait

# The composed cluster, end to end; needs a Docker engine.
docker:
    bash tests/docker/compose-test.sh

# Fuzz campaigns, guided by coverage: `just fuzz all --seconds 120`, `just fuzz requests`.
fuzz *ARGS:
    RUSTC_WORKSPACE_WRAPPER="$PWD/tests/fuzz/rustc-with-counters" cargo run --profile fuzz -p tenure-fuzz -- {{ARGS}}

# Whole clusters in simulated time: `just sim --seed 7`, `just sim --seeds 1..200`.
sim *ARGS:
    cargo run -p tenure-sim -- {{ARGS}}

# The same, built for thousands of seeds: five minutes longer, then about 1.7 times as fast. `just campaign --seeds 1..5001`.
campaign *ARGS:
    cargo run --profile campaign -p tenure-sim -- {{ARGS}}

# Mistakes on purpose, each of which must be found: `just bugs`, `just bugs --within-seeds 10`.
bugs *ARGS:
    cargo run -p tenure-sim --features bugs -- --bugs {{ARGS}}
