#!/usr/bin/env bash
# The composed cluster, end to end: acquire through one container, kill the raft leader's, renew through another, start the dead one
# again and see it catch up. Needs a Docker engine; without one it says so loudly and succeeds.
#
# Where no image can be pulled, both base images are made here: a Debian of this machine's own release by debootstrap, from this machine's
# own package mirror. In the one that stands in for the Rust image, `cargo` hands out the binaries that were built on this machine: the
# Dockerfile runs as it is, but nothing is compiled twice.
#
# TENURE_BIN_DIR: where tenured and tenure are (default: built here, target/debug).
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

skip() {
    printf '\n%s\n' "##################################################################" >&2
    printf '## SKIPPED: the docker test did not run: %s\n' "$1" >&2
    printf '%s\n\n' "##################################################################" >&2
    echo "SKIPPED"
    exit 0
}

command -v docker >/dev/null || skip "there is no docker command"
timeout 20 docker info >/dev/null 2>&1 || skip "no Docker engine answers"
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    skip "there is neither 'docker compose' nor docker-compose"
fi

scratch=$(mktemp -d)
project="tenuretest$$"
export TENURE_TAG="test-$$"
# Left in the engine between runs: building it takes most of a minute.
base_image="tenure-test-base:$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")"
rust_stand_in="tenure-test-rust:$$"
compose+=(-p "$project" --project-directory "$root" -f "$root/docker-compose.yml")

clean_up() {
    status=$?
    trap - EXIT INT TERM
    if [ "$status" -ne 0 ]; then
        echo "--- the containers' last words" >&2
        timeout 30 "${compose[@]}" logs --no-color --tail=40 >&2 || true
    fi
    timeout 90 "${compose[@]}" down -v --remove-orphans >/dev/null 2>&1 || true
    docker image rm -f "tenure:$TENURE_TAG" "$rust_stand_in" >/dev/null 2>&1 || true
    rm -rf "$scratch"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

say() { printf '[%3ds] %s\n' "$SECONDS" "$*"; }
fail() {
    say "FAILED: $*" >&2
    exit 1
}
# within SECONDS WHAT COMMAND...: repeats the command until it succeeds.
within() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >"$scratch/last" 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { cat "$scratch/last" >&2; fail "$what"; }
        sleep 0.2
    done
}

# The binaries of this machine.
if [ -z "${TENURE_BIN_DIR:-}" ]; then
    cargo build --locked --bin tenured --bin tenure
    TENURE_BIN_DIR=${CARGO_TARGET_DIR:-$root/target}/debug
fi
tenure=$TENURE_BIN_DIR/tenure

# Base images.
pullable() { timeout 60 docker pull -q "$1" >/dev/null 2>&1; }
if [ "${TENURE_DOCKER_PULL:-}" = 1 ] && pullable rust:1.95-bookworm && pullable debian:bookworm-slim; then
    say "the usual base images can be pulled: compiling in the container"
else
    if ! docker image inspect "$base_image" >/dev/null 2>&1; then
        say "making $base_image by debootstrap"
        [ "$(id -u)" = 0 ] || skip "no image can be pulled, and debootstrap needs root"
        command -v debootstrap >/dev/null || { apt-get update -q && apt-get install -y -q debootstrap; } >/dev/null 2>&1 || skip "debootstrap cannot be installed"
        codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
        # The mirror that this machine itself installs from, in either format of sources; a file that is not there is no failure.
        mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -nE 's/^deb +(\[[^]]*\] +)?([^ ]+) +'"$codename"' .*/\2/p' | head -n 1) || true
        [ -n "$mirror" ] || mirror=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -nE 's/^URIs: *([^ ]+).*/\1/p' | head -n 1) || true
        [ -n "$mirror" ] || skip "this machine's package mirror is not known"
        timeout 300 debootstrap --variant=minbase "$codename" "$scratch/root" "$mirror" >"$scratch/debootstrap.log" 2>&1 || {
            tail -n 5 "$scratch/debootstrap.log" >&2
            skip "debootstrap failed"
        }
        tar -C "$scratch/root" -c . | docker import - "$base_image" >/dev/null
        rm -rf "$scratch/root"
    fi
    mkdir "$scratch/stand-in"
    # Without debug information they are a tenth of the size.
    strip -o "$scratch/stand-in/tenured" "$TENURE_BIN_DIR/tenured"
    strip -o "$scratch/stand-in/tenure" "$TENURE_BIN_DIR/tenure"
    cat >"$scratch/stand-in/cargo" <<'CARGO'
#!/bin/sh
mkdir -p target/dist && cp /prebuilt/tenured /prebuilt/tenure target/dist/
CARGO
    chmod +x "$scratch/stand-in/cargo"
    cat >"$scratch/stand-in/Dockerfile" <<DOCKERFILE
FROM $base_image
COPY tenured tenure /prebuilt/
COPY cargo /usr/local/bin/cargo
DOCKERFILE
    DOCKER_BUILDKIT=0 docker build -q -t "$rust_stand_in" "$scratch/stand-in" >/dev/null 2>&1 || fail "the stand-in for the Rust image cannot be built"
    export RUST_IMAGE=$rust_stand_in RUNTIME_IMAGE=$base_image DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0
fi

# Ports that nobody uses: another cluster may run here.
read -r TENURE_PORT_1 TENURE_PORT_2 TENURE_PORT_3 TENURE_HTTP_PORT_1 TENURE_HTTP_PORT_2 TENURE_HTTP_PORT_3 < <(python3 - <<'PYTHON'
import socket
held = [socket.socket() for _ in range(6)]
for s in held:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))
PYTHON
)
export TENURE_PORT_1 TENURE_PORT_2 TENURE_PORT_3 TENURE_HTTP_PORT_1 TENURE_HTTP_PORT_2 TENURE_HTTP_PORT_3
ports=("" "$TENURE_PORT_1" "$TENURE_PORT_2" "$TENURE_PORT_3")
http_ports=("" "$TENURE_HTTP_PORT_1" "$TENURE_HTTP_PORT_2" "$TENURE_HTTP_PORT_3")

say "building and starting"
timeout 1200 "${compose[@]}" up --build -d >"$scratch/up.log" 2>&1 || { tail -n 40 "$scratch/up.log" >&2; fail "compose up"; }

container() { "${compose[@]}" ps -q "tenure-$1"; }
healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }
metric() { "$TENURE_BIN_DIR/tenured" health --addr "127.0.0.1:${http_ports[$1]}" && python3 - "${http_ports[$1]}" "$2" <<'PYTHON'
import sys, urllib.request
page = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics", timeout=3).read().decode()
print(next(line.split()[1] for line in page.splitlines() if line.startswith(f"tenure_{sys.argv[2]} ")))
PYTHON
}
for n in 1 2 3; do within 60 "container $n is not healthy" healthy "$n"; done
say "three healthy containers"
[ "$(docker exec "$(container 1)" id -u)" != 0 ] || fail "the container runs as root"

through() { timeout 20 "$tenure" --endpoints "127.0.0.1:${ports[$1]}" "${@:2}"; }
json() { python3 -c 'import json,sys; v=json.load(sys.stdin)
for k in sys.argv[1:]: v=v.get(k, v.get("lease", {}).get(k)) if isinstance(v, dict) else None
print(v)' "$@"; }

leader=
for n in 1 2 3; do [ "$(metric "$n" is_raft_leader)" = 1 ] && leader=$n; done
[ -n "$leader" ] || fail "no container is raft leader"
follower=$((leader % 3 + 1))
other=$((follower % 3 + 1))
say "the raft leader is container $leader"

through "$follower" acquire docker-test --holder tester --duration 60s -o json >"$scratch/acquired"
token=$(json token <"$scratch/acquired")
[ "$token" -gt 0 ] 2>/dev/null || { cat "$scratch/acquired" >&2; fail "no token came back"; }
say "acquired through container $follower, token $token"

dead=$(container "$leader")
docker kill "$dead" >/dev/null
within 10 "renewing through container $other" through "$other" renew --token "$token"
say "killed the raft leader's container, renewed through container $other"
through "$other" get lease docker-test -o json >"$scratch/got"
[ "$(json token <"$scratch/got")" = "$token" ] || { cat "$scratch/got" >&2; fail "the token changed"; }

for i in $(seq 20); do through "$follower" acquire "while-dead-$i" --holder tester --duration 60s >/dev/null 2>&1; done
docker start "$dead" >/dev/null
within 30 "container $leader is not healthy again" healthy "$leader"
goal=$(metric "$other" applied_index)
caught_up() { [ "$(metric "$leader" applied_index)" -ge "$goal" ]; }
within 20 "container $leader does not catch up to $goal" caught_up
through "$leader" get lease while-dead-20 >/dev/null
say "container $leader is back and has applied entry $goal"

# A graceful stop ends well before the grace period does.
started=$SECONDS
docker stop "$(container "$other")" >/dev/null
[ $((SECONDS - started)) -lt 12 ] || fail "stopping took $((SECONDS - started)) s"
[ "$(docker inspect -f '{{.State.ExitCode}}' "$(container "$other")")" = 0 ] || fail "a graceful stop exits with $(docker inspect -f '{{.State.ExitCode}}' "$(container "$other")")"
say "container $other stopped gracefully"
echo "1 passed, 0 failed"
