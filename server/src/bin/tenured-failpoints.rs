//! `tenured` that can be made to die at named places: for the storage tests only. A program of its own, so that building it never replaces
//! the one that everything else runs.

#[path = "../main.rs"]
mod tenured;

fn main() -> std::process::ExitCode {
    tenured::main()
}
