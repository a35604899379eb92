//! The properties: each a file of its own, with the hand-made histories that it must refuse and those that only look like them.

mod l1_progress;
mod l2_expiry;
mod l3_hand_over;
mod l4_mass_expiry;
mod l5_outage;
mod l6_catch_up;
mod p01_belief;
mod p02_fencing;
mod p03_early;
mod p04_renewals;
mod p05_owner;
mod p06_order;
mod p06_reads;
mod p06_replay;
mod p06_search;
mod p07_once;
mod p08_replicas;
mod p09_expiry;
mod p10_waiters;
mod p11_election;
mod p12_edits;
mod w01_filter;
mod w02_ordered;
mod w03_unique;
mod w04_atomic;
mod w05_reliable;
mod w06_resumable;
mod w07_bookmarks;
mod w08_previous;
mod w09_future;
mod w10_reconnect;
mod w11_ended;
mod w12_explicit;

use crate::findings::Property;

/// All of them, in the order of the report.
pub const ALL: &[Property] = &[
    p01_belief::PROPERTY,
    p02_fencing::PROPERTY,
    p03_early::PROPERTY,
    p04_renewals::PROPERTY,
    p05_owner::PROPERTY,
    p06_replay::PROPERTY,
    p06_order::PROPERTY,
    p06_reads::PROPERTY,
    p06_search::PROPERTY,
    p07_once::PROPERTY,
    p08_replicas::PROPERTY,
    p09_expiry::PROPERTY,
    p10_waiters::PROPERTY,
    p11_election::PROPERTY,
    p12_edits::PROPERTY,
    w01_filter::PROPERTY,
    w02_ordered::PROPERTY,
    w03_unique::PROPERTY,
    w04_atomic::PROPERTY,
    w05_reliable::PROPERTY,
    w06_resumable::PROPERTY,
    w07_bookmarks::PROPERTY,
    w08_previous::PROPERTY,
    w09_future::PROPERTY,
    w10_reconnect::PROPERTY,
    w11_ended::PROPERTY,
    w12_explicit::PROPERTY,
    l1_progress::PROPERTY,
    l2_expiry::PROPERTY,
    l3_hand_over::PROPERTY,
    l4_mass_expiry::PROPERTY,
    l5_outage::PROPERTY,
    l6_catch_up::PROPERTY,
];
