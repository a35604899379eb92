//! The rules of the lease (DESIGN.md §4), each as a test that can fail, and a naive table that the real one must agree with.

mod declared;
mod entries;
mod fixture;
mod holds;
mod model;
mod notices;
mod proptests;
mod queues;
mod releases;
mod requests;
mod sessions;
mod snapshots;
mod wishes;
