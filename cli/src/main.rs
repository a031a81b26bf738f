//! The door `littoral`.

use std::process::ExitCode;

fn main() -> ExitCode {
    littoral_cli::door::main()
}
