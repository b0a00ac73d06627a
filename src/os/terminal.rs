//! Properties of a terminal.
use std::os::fd::{AsFd, AsRawFd};

/// The width of the terminal behind `fd` in columns; `None` if it is not a terminal, or does not tell.
pub fn columns(fd: impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the fd is open, and `size` is ours and lives until the call returns.
    let asked = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (asked == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know ioctl")]
    fn what_is_no_terminal_has_no_columns() {
        assert_eq!(std::fs::File::open("/dev/null").ok().and_then(columns), None);
    }
}
