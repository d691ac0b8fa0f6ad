//! The program under test.

fn main() -> std::process::ExitCode {
    cairn::main()
}
