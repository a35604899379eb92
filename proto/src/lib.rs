//! The wire, generated from `proto/`: [`v1`] is the public API, [`peer::v1`] what replicas say to each other and what is on disk.
//!
//! Generated types only. Meaning, validation and conversions live with those who use them.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

/// The public API.
pub mod v1 {
    tonic::include_proto!("tenure.v1");

    /// For reflection: every file of the public package and what it imports, as an encoded `FileDescriptorSet`.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tenure_v1.bin"));
}

/// Between replicas and on disk.
pub mod peer {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("tenure.peer.v1");
    }
}
