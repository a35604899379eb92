//! Clusters of real `tenured` processes, and what drives and judges them. Nothing here links the server: whatever these tests know, they learned
//! over a socket, from a log file or from an exit code.

pub mod abuse;
pub mod api;
pub mod binaries;
pub mod chaos;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod elector;
pub mod example;
pub mod faketime;
pub mod history;
pub mod netns;
pub mod ports;
pub mod probe;
pub mod proxy;
pub mod replica;
pub mod storage;
pub mod tool;
pub mod watcher;
pub mod workload;

pub use api::{Api, millis, seconds};
pub use cluster::{Cluster, Settings};
pub use history::History;
pub use tenure_proto::v1;
pub use tool::Tool;
