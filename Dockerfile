# tenured and tenure on a small Debian. Both base images are arguments, so that a machine that cannot pull builds on its own
# (tests/docker/compose-test.sh does). No protoc is needed: the protos are compiled in Rust.
ARG RUST_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN cargo build --profile dist --locked --bin tenured --bin tenure

FROM ${RUNTIME_IMAGE}
# The directory belongs to the user before a volume is mounted on it: a new named volume takes over its owner.
RUN useradd --system --uid 7400 --user-group --no-create-home --shell /usr/sbin/nologin tenure \
    && install -d -o tenure -g tenure -m 0700 /var/lib/tenure
COPY --from=build /src/target/dist/tenured /src/target/dist/tenure /usr/local/bin/
USER tenure
WORKDIR /var/lib/tenure
VOLUME /var/lib/tenure
# Clients, peers, HTTP.
EXPOSE 7400 7401 7402
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=3s --start-period=10s --retries=3 CMD ["tenured", "health"]
ENTRYPOINT ["tenured"]
CMD ["serve", "--config", "/etc/tenure/node.toml"]
