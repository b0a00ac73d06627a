//! The `clusterd` program. Everything lives in the library; this only starts it.
fn main() -> std::process::ExitCode {
    clusterd::cli::main()
}
