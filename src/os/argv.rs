//! The program's own command line, as `ps` and everybody else on the machine sees it: values that may be secret do not stay
//! there.
use std::ops::Range;

/// Overwrites the values of `-e NAME=VALUE` in the command line that the system shows of this process. What was not read
/// before is lost. Nothing happens where the system does not say where it is.
pub fn hide_values() {
    let Some(at) = own_command_line() else { return };
    // SAFETY: the kernel says that the strings of argv lie there, in one piece, in writable memory that lives as long as the
    // process. It is called before other threads exist, and nobody holds a reference into it: std copies what it gives out.
    let bytes = unsafe { std::slice::from_raw_parts_mut(at.start as *mut u8, at.len()) };
    let mut from = 0;
    let mut before: Vec<u8> = Vec::new();
    while let Some(length) = bytes[from..].iter().position(|byte| *byte == 0) {
        let arg = &mut bytes[from..from + length];
        if arg == b"--" {
            return;
        }
        if let Some(value) = value_in(&before, arg) {
            arg[value].fill(b'*');
        }
        before = arg.to_vec();
        from += length + 1;
    }
}

/// Overwrites the command line that the system shows of this process, which lies there ([`own_command_line`]). Allocates nothing.
pub(super) fn show_as(at: Range<usize>, name: &str) {
    // SAFETY: as in `hide_values`. In a copy of a process it is the copy's own memory.
    let bytes = unsafe { std::slice::from_raw_parts_mut(at.start as *mut u8, at.len()) };
    let shown = name.len().min(bytes.len());
    bytes[..shown].copy_from_slice(&name.as_bytes()[..shown]);
    bytes[shown..].fill(0);
}

/// The same arguments without the values.
#[must_use]
pub fn without_values(args: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut shown = args.to_vec();
    for n in 0..shown.len() {
        if shown[n] == b"--" {
            break;
        }
        let before = if n == 0 { Vec::new() } else { shown[n - 1].clone() };
        if let Some(value) = value_in(&before, &shown[n]) {
            shown[n][value].fill(b'*');
        }
    }
    shown
}

/// Where the value of a variable stands in this argument: `NAME=VALUE` behind `-e` or `--env`, `-eNAME=VALUE`,
/// `--env=NAME=VALUE`.
fn value_in(before: &[u8], arg: &[u8]) -> Option<Range<usize>> {
    let name_at = match (before, arg) {
        (b"-e" | b"--env", _) => 0,
        (_, [b'-', b'-', b'e', b'n', b'v', b'=', ..]) => 6,
        (_, [b'-', b'e', _, ..]) => 2,
        _ => return None,
    };
    let equals = arg[name_at..].iter().position(|byte| *byte == b'=')?;
    Some(name_at + equals + 1..arg.len())
}

/// Where the strings of argv lie (`arg_start` and `arg_end` of proc_pid_stat(5)).
pub(super) fn own_command_line() -> Option<Range<usize>> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in front may hold spaces; behind it comes field 3.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(48 - 3);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (start != 0 && start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_and_the_rest_stays() {
        let args =
            ["clusterd", "-e", "TOKEN=secret", "--env=A=b=c", "-eX=1", "-e", "prod", "-w", "2", "--", "-e", "B=2"];
        let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
        let shown: Vec<String> =
            without_values(&args).iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
        let wanted =
            ["clusterd", "-e", "TOKEN=******", "--env=A=***", "-eX=*", "-e", "prod", "-w", "2", "--", "-e", "B=2"];
        assert_eq!(shown, wanted);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know its own command line")]
    fn the_command_line_is_where_the_system_says() {
        let at = own_command_line().expect("/proc/self/stat");
        let shown = std::fs::read("/proc/self/cmdline").unwrap_or_default();
        assert_eq!(at.len(), shown.len());
    }
}
