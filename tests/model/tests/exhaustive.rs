//! Within bounds that take seconds; `cargo run --release -p tenure-model` goes further.

use stateright::{Checker as _, DiscoveryClassification::Counterexample, HasDiscoveries, Model as _};
use tenure_model::{Bounds, Bug, Protocol};

const CLOCKS: Bounds = Bounds { horizon: 4, ..Bounds::CLOCKS };
const ANSWERS: Bounds = Bounds { horizon: 3, ..Bounds::ANSWERS };

#[test]
fn no_two_holders_believe_at_once_whatever_the_clocks_and_the_raft_leaders_do() {
    let checker = Protocol { bounds: CLOCKS, bug: None }.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
}

#[test]
fn renewals_releases_and_repeats_end_no_hold_but_their_own() {
    let checker = Protocol { bounds: ANSWERS, bug: None }.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
}

#[test]
fn each_mistake_is_noticed() {
    for bug in Bug::ALL {
        let checker = Protocol { bounds: CLOCKS, bug: Some(bug) }.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = checker.discoveries().into_keys().any(|name| matches!(checker.discovery_classification(name), Counterexample));
        assert!(found, "{bug:?} goes unnoticed within {} states", checker.unique_state_count());
    }
}
