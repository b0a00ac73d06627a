//! Node's inspector ports: incremented per slot, as in Node's own cluster, because every worker needs its own. Text
//! only.

/// The port of a bare `--inspect`.
const PORT_DEFAULT: u16 = 9229;
/// After the last port Node continues here.
const PORT_AFTER_LAST: u64 = 1024;

/// Flags that open the inspector or set its address.
const FLAGS: &[&str] = &["--inspect", "--inspect-brk", "--inspect-wait", "--inspect-port", "--debug-port"];
/// Those that open it.
const OPENING: &[&str] = &["--inspect", "--inspect-brk", "--inspect-wait"];
/// Those that wait for a debugger.
const WAITING: &[&str] = &["--inspect-brk", "--inspect-wait"];
/// Node flags whose value may be the next word, which then is not the script.
const FLAGS_WITH_VALUE: &[&str] = &[
    "--inspect-port",
    "--debug-port",
    "--inspect-publish-uid",
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--env-file-if-exists",
    "--icu-data-dir",
    "--input-type",
    "--openssl-config",
    "--title",
    "--max-http-header-size",
    "--stack-trace-limit",
    "--unhandled-rejections",
    "--dns-result-order",
    "--diagnostic-dir",
    "--report-dir",
    "--report-directory",
    "--tls-cipher-list",
    "--tls-keylog",
    "--trace-event-categories",
    "--experimental-default-type",
    "--es-module-specifier-resolution",
];

/// The command of the worker in `slot`: as in Node's cluster, a flag after the last one that opens the inspector
/// increments its port. Slot 0 is unchanged. `args` is the whole argv.
pub fn inspect_args(args: &[String], slot: u32) -> Vec<String> {
    let flags = flags_end(args);
    let mut out = args.to_vec();
    if let Some((end, port)) = last_address(&args[..flags])
        && let Some(flag) = port_flag(port, slot)
    {
        out.insert(end, flag);
    }
    out
}

/// The flag to insert after argv\[0\] if `NODE_OPTIONS` opens the inspector: it changes this slot's port, and opens
/// nothing by itself. `None`: nothing to do.
pub fn inspect_flag_for_node_options(node_options: &str, slot: u32) -> Option<String> {
    let words: Vec<String> = node_options.split_whitespace().map(str::to_owned).collect();
    let (_, port) = last_address(&words)?;
    port_flag(port, slot)
}

/// A flag that opens nothing; an inspector opened by a signal then gets a free port.
const ANY_PORT: &str = "--inspect-port=0";
/// Where Node says how its inspector is reached: on stderr alone, so that who connects to the port does not learn it.
const PUBLISH: &str = "--inspect-publish-uid";
const PUBLISH_ON_STDERR: &str = "--inspect-publish-uid=stderr";

/// The flags to add to `NODE_OPTIONS` for an inspector that is opened by a signal. What the user says stays as it is.
pub fn flags_for_reports(command: &[String], node_options: &str) -> Vec<&'static str> {
    let is_one_of = |flags: &[&str]| has_flag(command, node_options, flags);
    if is_open(command, node_options) {
        return Vec::new();
    }
    let port = (!is_one_of(FLAGS)).then_some(ANY_PORT);
    let publish = (!is_one_of(&[PUBLISH])).then_some(PUBLISH_ON_STDERR);
    port.into_iter().chain(publish).collect()
}

/// Whether the command or `NODE_OPTIONS` opens the inspector at the start, or has it tell everybody how it is reached.
pub fn is_open(command: &[String], node_options: &str) -> bool {
    let said = [&command[..flags_end(command).min(command.len())].join(" "), node_options].join(" ");
    let words: Vec<&str> = said.split_whitespace().collect();
    let http = words.iter().enumerate().any(|(n, word)| {
        let value = match word.strip_prefix(PUBLISH) {
            Some("") => words.get(n + 1).copied(),
            Some(value) => value.strip_prefix('='),
            None => None,
        };
        value.is_some_and(|value| value.contains("http"))
    });
    http || has_flag(command, node_options, OPENING)
}

/// Whether the next word may be the value of this flag of Node.
pub fn takes_value(flag: &str) -> bool {
    FLAGS_WITH_VALUE.contains(&flag)
}

/// Whether Node waits for a debugger before it runs the program.
pub fn waits(command: &[String], node_options: &str) -> bool {
    has_flag(command, node_options, WAITING)
}

fn has_flag(command: &[String], node_options: &str, flags: &[&str]) -> bool {
    let names = |word: &str| flags.contains(&word.split_once('=').map_or(word, |(flag, _)| flag));
    let typed = &command[..flags_end(command).min(command.len())];
    typed.iter().any(|word| names(word)) || node_options.split_whitespace().any(names)
}

/// Node's own flags in a command.
pub fn node_flags(command: &[String]) -> &[String] {
    command.get(1..flags_end(command).min(command.len())).unwrap_or(&[])
}

/// The end of Node's own flags: at the script, or at `--`.
fn flags_end(args: &[String]) -> usize {
    let mut index = 1;
    while let Some(word) = args.get(index) {
        if !word.starts_with('-') || word == "--" || word == "-" {
            return index;
        }
        index += if FLAGS_WITH_VALUE.contains(&word.as_str()) { 2 } else { 1 };
    }
    args.len()
}

/// Index after the last inspector flag, and the port that the flags set. `None`: there is no such flag, or one has an
/// invalid address (Node reports it).
fn last_address(words: &[String]) -> Option<(usize, u16)> {
    let mut last = None;
    let mut port = PORT_DEFAULT;
    for (index, word) in words.iter().enumerate() {
        let (flag, value) = word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
        if !FLAGS.contains(&flag) {
            continue;
        }
        let next = FLAGS_WITH_VALUE.contains(&word.as_str()).then(|| words.get(index + 1)).flatten();
        if let Some(typed) = value.or(next.map(String::as_str)).filter(|typed| !typed.is_empty()) {
            // A later flag without a port keeps the earlier one's, as in Node.
            port = typed_port(typed)?.unwrap_or(port);
        }
        last = Some(index + 1 + usize::from(next.is_some()));
    }
    last.map(|end| (end, port))
}

/// The port in `PORT`, `HOST:PORT` or `HOST`; `Some(None)`: only a host; `None`: not a valid port.
fn typed_port(address: &str) -> Option<Option<u16>> {
    if address.bytes().all(|b| b.is_ascii_digit()) {
        return address.parse().ok().map(Some);
    }
    match address.rsplit_once(':') {
        // The last colon of a bare "[::1]" is inside the brackets.
        Some((_, port)) if !port.ends_with(']') => port.parse().ok().map(Some),
        _ => Some(None),
    }
}

fn port_flag(port: u16, slot: u32) -> Option<String> {
    // Port 0 means any free one, for every slot.
    (slot > 0 && port > 0).then(|| format!("--inspect-port={}", count_up(port, slot)))
}

/// Counting continues at 1024 after 65535.
fn count_up(port: u16, slot: u32) -> u64 {
    let past_last = u64::from(u16::MAX) + 1;
    let wanted = u64::from(port) + u64::from(slot);
    if wanted < past_last {
        return wanted;
    }
    PORT_AFTER_LAST + (wanted - past_last) % (past_last - PORT_AFTER_LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(command: &str, slot: u32) -> String {
        inspect_args(&command.split(' ').map(str::to_owned).collect::<Vec<_>>(), slot).join(" ")
    }

    #[test]
    fn ports_are_counted_up_from_slot_zero() {
        assert_eq!(args("node --inspect app.js", 0), "node --inspect app.js");
        assert_eq!(args("node --inspect app.js", 1), "node --inspect --inspect-port=9230 app.js");
        assert_eq!(args("node --inspect=7000 app.js", 2), "node --inspect=7000 --inspect-port=7002 app.js");
        assert_eq!(
            args("node --inspect-brk=0.0.0.0:7000 -r ./x.js app.js", 3),
            "node --inspect-brk=0.0.0.0:7000 --inspect-port=7003 -r ./x.js app.js"
        );
        assert_eq!(args("node --inspect=[::1]:7000 a", 1), "node --inspect=[::1]:7000 --inspect-port=7001 a");
        assert_eq!(args("node --inspect=[::1] a", 1), "node --inspect=[::1] --inspect-port=9230 a");
        assert_eq!(args("node --inspect=localhost a", 1), "node --inspect=localhost --inspect-port=9230 a");
    }

    #[test]
    fn a_port_named_apart_counts() {
        assert_eq!(
            args("node --inspect-port=8000 --inspect app.js", 1),
            "node --inspect-port=8000 --inspect --inspect-port=8001 app.js"
        );
        assert_eq!(
            args("node --inspect --debug-port 8000 app.js", 2),
            "node --inspect --debug-port 8000 --inspect-port=8002 app.js"
        );
    }

    #[test]
    fn nothing_else_is_touched() {
        for command in [
            "node app.js --inspect",
            "node -r x.js app.js --inspect=1",
            "node --inspect=0 app.js",
            "node --inspect=99999 app.js",
            "node --inspect=localhost:x app.js",
            "node --inspect-publish-uid=http app.js",
            "node -- --inspect",
            "node",
        ] {
            assert_eq!(args(command, 5), command);
        }
        assert_eq!(inspect_args(&[], 1), Vec::<String>::new());
        assert_eq!(args("node -r x.js --inspect -e code", 1), "node -r x.js --inspect --inspect-port=9230 -e code");
        assert_eq!(args("node --inspect-port", 1), "node --inspect-port --inspect-port=9230");
    }

    #[test]
    fn counting_past_the_last_port_goes_on_at_1024() {
        assert_eq!(args("node --inspect=65535 a", 1), "node --inspect=65535 --inspect-port=1024 a");
        assert_eq!(args("node --inspect=65535 a", 3), "node --inspect=65535 --inspect-port=1026 a");
        assert_eq!(count_up(65535, u32::MAX), 1024 + (u64::from(u32::MAX) - 1) % 64512);
    }

    #[test]
    fn whoever_says_something_about_the_inspector_is_left_alone() {
        let flags = |command: &str, options: &str| {
            flags_for_reports(&command.split(' ').map(str::to_owned).collect::<Vec<_>>(), options)
        };
        assert_eq!(flags("node app.js --inspect", ""), [ANY_PORT, PUBLISH_ON_STDERR]);
        assert_eq!(flags("node --inspect-port=0 app.js", ""), [PUBLISH_ON_STDERR]);
        assert_eq!(flags("node app.js", "--inspect-port=40007"), [PUBLISH_ON_STDERR]);
        assert_eq!(flags("node --inspect-publish-uid stderr app.js", ""), [ANY_PORT]);
        // Open to all, at the user's word.
        for (command, options) in [
            ("node --inspect app.js", ""),
            ("node app.js", "--max-old-space-size=9 --inspect=7000"),
            ("node app.js", "--inspect-publish-uid=stderr,http"),
            ("node --inspect-publish-uid http app.js", ""),
        ] {
            assert!(flags(command, options).is_empty(), "{command} {options}");
        }
        assert_eq!(inspect_flag_for_node_options(ANY_PORT, 3), None);
    }

    #[test]
    fn node_options_open_it_too() {
        assert_eq!(inspect_flag_for_node_options("", 1), None);
        assert_eq!(inspect_flag_for_node_options("--max-old-space-size=4096", 1), None);
        assert_eq!(inspect_flag_for_node_options("--inspect", 0), None);
        assert_eq!(inspect_flag_for_node_options("--inspect", 2), Some("--inspect-port=9231".into()));
        assert_eq!(
            inspect_flag_for_node_options(" --x --inspect=0.0.0.0:9500  --y", 1),
            Some("--inspect-port=9501".into())
        );
        assert_eq!(inspect_flag_for_node_options("--inspect=0", 1), None);
    }
}
