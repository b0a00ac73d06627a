//! Names of apps: what is allowed, and the default name for a command.
use super::inspect;
use super::parse::nearest;
use crate::limits::NAME_CHARS_MAX;
use std::path::{Component, Path};

/// Why a word is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name is empty: {RULE}")]
    Empty,
    /// Longer than the limit.
    #[error("the name \"{0}\" is longer than {NAME_CHARS_MAX} characters")]
    TooLong(String),
    /// The word for all apps.
    #[error("the name \"all\" is taken: commands use it for every app")]
    All,
    /// Characters that are not allowed.
    #[error("\"{0}\" cannot be a name (\"{like}\" can): {RULE}", like = cleaned(.0))]
    Characters(String),
}

const RULE: &str = "a name has letters, digits, \".\", \"_\" and \"-\", and starts with none of \".-\"";

/// Checks a name. It is used as a file name and as a word on the command line.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(NameError::TooLong(name.to_owned()));
    }
    if name == "all" {
        return Err(NameError::All);
    }
    if name.starts_with(['.', '-']) || !name.chars().all(allowed) {
        return Err(NameError::Characters(name.to_owned()));
    }
    Ok(())
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_".contains(c)
}

/// Programs that run scripts, with those of their options whose value is a word of its own.
const INTERPRETERS: &[(&str, &[&str])] = &[
    ("node", &[]),
    ("tsx", &["--tsconfig"]),
    ("ts-node", &["-P", "--project", "-O", "--compilerOptions", "--cwd", "--dir"]),
    ("bun", &["--preload", "--cwd", "-c", "--config", "--env-file", "--tsconfig-override"]),
    ("deno", &["-c", "--config", "--import-map", "--preload", "--env-file", "--cert", "--lock"]),
    ("python", &["-W", "-X", "-c", "-m", "--check-hash-based-pycs"]),
    ("ruby", &["-I", "-C", "-e", "-E"]),
    ("php", &["-c", "-d", "-S", "-t", "-z"]),
    ("perl", &["-I", "-e"]),
    ("lua", &["-e", "-l"]),
    ("bash", &["-o", "-O", "--rcfile", "--init-file"]),
    ("sh", &["-o"]),
];
/// Interpreters of JavaScript, which take Node's options too.
const LIKE_NODE: &[&str] = &["node", "tsx", "ts-node", "bun"];

/// The interpreter that a program is, by its name without a version: `python3.12` is `python`.
fn interpreter(program: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let file = program.rsplit('/').next().unwrap_or_default();
    let name = file.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.iter().find(|(known, _)| *known == name || *known == file)
}

/// The script in a command. The value of an option is none: `node -r ./tracing.js server.js`. Of a program whose options
/// are not known, every word behind an option may be its value: `gunicorn -c conf.py app:app`.
fn script_of(command: &[String]) -> Option<&String> {
    let at = command.iter().position(|word| interpreter(word).is_some());
    let known = at.and_then(|at| interpreter(&command[at]));
    let takes_value = |option: &str| match known {
        Some((name, with_value)) => {
            with_value.contains(&option) || (LIKE_NODE.contains(name) && inspect::takes_value(option))
        }
        None => !option.contains('=') && option != "--",
    };
    let mut words = command.iter().skip(at.unwrap_or(0) + 1);
    while let Some(word) = words.next() {
        if word.starts_with('-') {
            if takes_value(word) {
                words.next();
            }
        } else if has_script_ending(word) {
            return Some(word);
        }
    }
    None
}

/// The default name for a command: the script's stem, or its folder's name for generic stems (`index`, `main`,
/// `server`, `app`); a program without a script has its own name. Always valid.
pub fn from_command(command: &[String]) -> String {
    let program = command.first().map_or("", String::as_str);
    let script = script_of(command);
    let path = Path::new(script.map_or(program, String::as_str));
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = if script.is_some() { file.rsplit_once('.').map_or(&*file, |(stem, _)| stem) } else { &*file };
    let folder = || {
        path.parent()?.components().rev().find_map(|part| match part {
            Component::Normal(name) => name.to_str().filter(|name| !says_nothing(name)).map(str::to_owned),
            _ => None,
        })
    };
    let name = if says_nothing(stem) { folder().unwrap_or_else(|| stem.to_owned()) } else { stem.to_owned() };
    cleaned(&name)
}

fn has_script_ending(word: &str) -> bool {
    let ending = Path::new(word).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ["js", "mjs", "cjs", "ts", "mts", "cts", "jsx", "tsx", "py", "rb", "php", "sh", "pl", "lua"].contains(&ending)
}

fn says_nothing(stem: &str) -> bool {
    ["index", "main", "server", "app", "src", "dist", "build", "bin", "lib"].contains(&stem)
}

/// The valid name that is most similar to `name`.
pub fn cleaned(name: &str) -> String {
    let cleaned: String = name.chars().map(|c| if allowed(c) { c } else { '-' }).take(NAME_CHARS_MAX).collect();
    let cleaned = cleaned.trim_start_matches(['.', '-']);
    if cleaned.is_empty() || cleaned == "all" { "app".to_owned() } else { cleaned.to_owned() }
}

/// `wanted`, `wanted-2`, `wanted-3`: the first that is free.
pub fn unique(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2_u64..).map(|n| {
        let suffix = format!("-{n}");
        // Names are ASCII here, so that bytes are characters.
        let room = NAME_CHARS_MAX.saturating_sub(suffix.len()).min(wanted.len());
        format!("{}{suffix}", &wanted[..room])
    });
    std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

/// "did you mean" for a key or a verb, or an empty text.
pub fn did_you_mean(typed: &str, candidates: &[&str]) -> String {
    nearest(typed, candidates).map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(command: &str) -> String {
        from_command(&command.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn names_must_be_file_names() {
        for good in ["web", "a", "web.2", "Web_api-3", "9"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", ".web", "-web", "a/b", "a b", "ü", "all", "..", "a\n", &long] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_command_gives_a_name() {
        assert_eq!(named("node hello.js"), "hello");
        assert_eq!(named("node app.js"), "app");
        assert_eq!(named("node --inspect api/index.js --port 1"), "api");
        assert_eq!(named("node -r ./tracing.js server.js"), "server");
        assert_eq!(named("node --import ./tracing.mjs --env-file=a.js jobs.js -c other.js"), "jobs");
        assert_eq!(named("nice -n 5 node --require a.js queue.js"), "queue");
        assert_eq!(named("npx tsx --tsconfig t.ts mail.ts"), "mail");
        assert_eq!(named("python3.12 -u -W ignore feed.py"), "feed");
        assert_eq!(named("gunicorn -c conf.py app:app"), "gunicorn");
        assert_eq!(named("./run --config=x --file y.js"), "run");
        assert_eq!(named("node /srv/shop/dist/server.mjs"), "shop");
        assert_eq!(named("python3 ./jobs/mail.worker.py"), "mail.worker");
        assert_eq!(named("./bin/server"), "server");
        assert_eq!(named("/opt/shop/bin/server"), "shop");
        assert_eq!(named("sleep 5"), "sleep");
        assert_eq!(named("my prog"), "my");
        assert_eq!(named("./.hidden"), "hidden");
        assert_eq!(named("node ünï.js"), "n-");
        assert_eq!(named("all"), "app");
        assert_eq!(from_command(&[]), "app");
    }

    #[test]
    fn given_names_are_always_valid() {
        for command in ["node ü.js", "node ....js", "/", "..", "node /", "-x", "a\nb"] {
            assert_eq!(check(&named(command)), Ok(()), "{command:?} gave {:?}", named(command));
        }
    }

    #[test]
    fn names_are_made_unique_within_the_bound() {
        assert_eq!(unique("web", |_| false), "web");
        assert_eq!(unique("web", |name| name == "web" || name == "web-2"), "web-3");
        let long = "x".repeat(NAME_CHARS_MAX);
        let second = unique(&long, |name| name == long);
        assert_eq!(second, format!("{}-2", "x".repeat(NAME_CHARS_MAX - 2)));
    }
}
