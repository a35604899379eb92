//! Compiles the protos without protoc (protox is pure Rust) and leaves the descriptor set for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const PUBLIC: &[&str] = &["tenure/v1/lease.proto", "tenure/v1/cluster.proto"];
const ALL: &[&str] = &["tenure/v1/lease.proto", "tenure/v1/cluster.proto", "tenure/peer/v1/peer.proto", "tenure/peer/v1/log.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Only the public package is reflected: what replicas say to each other is nobody's API.
    fs::write(out.join("tenure_v1.bin"), protox::compile(PUBLIC, ["proto"])?.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".tenure.v1.Lease.holder_data")
        .bytes(".tenure.v1.AcquireRequest.holder_data")
        .bytes(".tenure.peer.v1")
        .compile_fds(protox::compile(ALL, ["proto"])?)?;
    Ok(())
}
