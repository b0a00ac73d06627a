//! Exit codes of a command that did not do what it was asked for.

/// Exit code of a failure.
pub(super) const EXIT_FAILED: u8 = 1;
/// Exit code of a command line or configuration that is wrong.
pub(super) const EXIT_USAGE: u8 = 2;

/// The exit code of a command whose files could not be read, or are wrong themselves (`is_usage`).
pub(super) fn load_error_code(is_usage: bool) -> u8 {
    if is_usage { EXIT_USAGE } else { EXIT_FAILED }
}
