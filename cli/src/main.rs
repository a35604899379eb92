//! `tenure`: the command line, which is a library so that its readers can be fuzzed.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure_cli::main()
}
