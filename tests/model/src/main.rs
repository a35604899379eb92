//! `tenure-model`: walks through the protocol completely, then shows that each mistake would be noticed.

use std::process::ExitCode;

use stateright::{Checker as _, DiscoveryClassification::Counterexample, HasDiscoveries, Model as _, report::WriteReporter};
use tenure_model::{Bounds, Bug, Protocol};

fn main() -> ExitCode {
    let (mut states, mut violations, mut unseen) = (0, 0, 0);
    for bounds in [Bounds::CLOCKS, Bounds::ANSWERS] {
        println!("exploring {bounds:?}");
        let protocol = Protocol { bounds, bug: None };
        let checker = protocol.checker().threads(2).spawn_bfs().report(&mut WriteReporter::new(&mut std::io::stderr()));
        states += checker.unique_state_count();
        let discoveries = checker.discoveries();
        for property in protocol.properties() {
            match discoveries.get(property.name) {
                Some(path) if matches!(checker.discovery_classification(property.name), Counterexample) => {
                    violations += 1;
                    println!("VIOLATED: {}\n{path}", property.name);
                }
                None if property.expectation == stateright::Expectation::Sometimes => {
                    unseen += 1;
                    println!("NEVER HAPPENED: {}", property.name);
                }
                _ => {}
            }
        }
    }
    let mut missed = 0;
    for bug in Bug::ALL {
        let checker = Protocol { bounds: Bounds::CLOCKS, bug: Some(bug) }.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found = checker.discoveries().into_keys().find(|name| matches!(checker.discovery_classification(name), Counterexample));
        println!("bug {bug:?}: {} after {} states", found.unwrap_or("NOT FOUND"), checker.unique_state_count());
        missed += usize::from(found.is_none());
    }
    println!("{states} states, {violations} violations, {unseen} situations that never came up; {} bugs, {missed} not found", Bug::ALL.len());
    if violations + unseen + missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
