//! Exit codes of failed commands.

/// Exit code of a failure.
pub(super) const EXIT_FAILED: u8 = 1;
/// Exit code for an invalid command line or configuration.
pub(super) const EXIT_USAGE: u8 = 2;

/// The exit code for files that could not be read, or are invalid themselves (`is_usage`).
pub(super) fn load_error_code(is_usage: bool) -> u8 {
    if is_usage { EXIT_USAGE } else { EXIT_FAILED }
}
