//! The binary; everything is in the library, so that tests can carry the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cairn::main()
}
