//! The one binary: parses the command line and hands over to the role.

use std::process::ExitCode;

fn main() -> ExitCode {
    dsn::cli::main()
}
