//! The door `littoral`, exactly as its own crate opens it: for tests that need it as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    littoral_cli::door::main()
}
