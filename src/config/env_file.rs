//! Environment files: `NAME=value`, on a line each where no quotes say otherwise. Text in, pairs out; expands and runs nothing.

/// Variables that clusterd sets itself and an app may not.
pub const RESERVED: &[&str] = &[
    "CLUSTERD_APP",
    "CLUSTERD_GENERATION",
    "CLUSTERD_SLOT",
    "CLUSTERD_STOP_SIGNAL",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NODE_APP_INSTANCE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "NOTIFY_SOCKET",
];

/// Why a variable cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// Not a name.
    #[error("\"{}\" cannot be the name of a variable", .0.escape_debug())]
    Name(String),
    #[error("{0} is set by clusterd for each worker; leave it out")]
    Reserved(String),
    /// A value that contains a zero byte.
    #[error("the value of {0} holds a zero byte, which no variable can")]
    ZeroByte(String),
}

/// Why a line is not valid in an environment file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No `=`. The line may be a secret, so it is not shown.
    #[error("is not NAME=value")]
    NotAPair,
    /// Text after the closing quote, or no closing quote.
    #[error("the value of {0} has no closing quote, or text after it")]
    Unclosed(String),
    /// A variable that cannot be set.
    #[error(transparent)]
    Variable(#[from] VariableError),
}

pub fn check(name: &str, value: &str) -> Result<(), VariableError> {
    if name.is_empty() || name.contains(['=', '\0']) || name.chars().any(char::is_whitespace) {
        return Err(VariableError::Name(name.to_owned()));
    }
    if RESERVED.contains(&name) {
        return Err(VariableError::Reserved(name.to_owned()));
    }
    if value.contains('\0') {
        return Err(VariableError::ZeroByte(name.to_owned()));
    }
    Ok(())
}

/// Name and value.
pub type Pair = (String, String);
/// Number of a line, from 1, and what is wrong with it.
pub type BadLine = (usize, LineError);

/// The pairs of an environment file, in order; a later one of the same name wins. Empty lines and lines that begin
/// with `#` are skipped, `export ` before a name is. A value in single quotes or backticks is taken literally; in double
/// quotes `\n`, `\"` and `\\` are understood; a value in quotes may have several lines. Without quotes it ends at ` #`.
///
/// # Errors
/// Every bad line, with its number from 1.
pub fn parse(text: &str) -> Result<Vec<Pair>, Vec<BadLine>> {
    let (mut pairs, mut bad) = (Vec::new(), Vec::new());
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let mut rest = text.as_str();
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let line = rest.split('\n').next().unwrap_or_default();
        let after_line = rest.get(line.len() + 1..).unwrap_or_default();
        let from_line = std::mem::replace(&mut rest, after_line);
        if line.trim().is_empty() || line.trim().starts_with('#') {
            continue;
        }
        match pair(line, from_line) {
            Ok((pair, further)) => {
                pairs.push(pair);
                for _ in 0..further {
                    rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
                }
                number += further;
            }
            Err(error) => bad.push((number, error)),
        }
    }
    if bad.is_empty() { Ok(pairs) } else { Err(bad) }
}

/// The pair that begins in this line, and in how many further lines it continues. `from_line`: the text from this line on.
fn pair(line: &str, from_line: &str) -> Result<(Pair, usize), LineError> {
    let (before, typed) = line.split_once('=').ok_or(LineError::NotAPair)?;
    let name = before.trim();
    let name = name.strip_prefix("export ").map_or(name, str::trim);
    let unclosed = || LineError::Unclosed(name.to_owned());
    let quote = typed.trim_start().chars().next().filter(|first| ['\'', '"', '`'].contains(first));
    let (value, further) = match quote {
        Some(quote) => {
            let whole = from_line[before.len() + 1..].trim_start();
            let whole = &whole[1..];
            let (value, after) =
                if quote == '"' { double_quoted(whole) } else { literal(whole, quote) }.ok_or_else(unclosed)?;
            let rest_of_line = after.split('\n').next().unwrap_or_default();
            if !only_a_comment(rest_of_line) {
                return Err(unclosed());
            }
            (value, whole[..whole.len() - after.len()].matches('\n').count())
        }
        // With the space before it: only a comment may follow the sign.
        None => (typed.split(" #").next().unwrap_or_default().trim().to_owned(), 0),
    };
    check(name, &value)?;
    Ok(((name.to_owned(), value), further))
}

/// The text up to the closing quote, and what follows that.
fn literal(rest: &str, quote: char) -> Option<(String, &str)> {
    let (value, after) = rest.split_once(quote)?;
    Some((value.to_owned(), after))
}

fn double_quoted(rest: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

fn only_a_comment(after: &str) -> bool {
    let after = after.trim();
    after.is_empty() || after.starts_with('#')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_usual_forms() {
        let text = "\u{feff}A=1\r\n# no\n\nexport B = two words # comment\nC='a # b'\nD=\"x\\n\\\"y\\\" \\d\" # c\nE=\nA=3\nF=a=b#c\nG= # none\nH=#1\n";
        let pairs = parse(text).unwrap();
        let want = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a # b"),
            ("D", "x\n\"y\" \\d"),
            ("E", ""),
            ("A", "3"),
            ("F", "a=b#c"),
            ("G", ""),
            ("H", "#1"),
        ];
        assert_eq!(pairs, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_value_in_quotes_may_have_several_lines() {
        let text = "KEY=\"-----BEGIN-----\r\nabc\r\n-----END-----\" # a key\nA='one\n# two\n'\nB=`it's\n\"so\"`\nC=3\nD=\"no\nE=5\nF";
        let bad = parse(text).unwrap_err();
        assert_eq!(bad, [(10, LineError::Unclosed("D".to_owned())), (12, LineError::NotAPair)]);
        let pairs = parse(text.split("D=").next().unwrap()).unwrap();
        let want =
            [("KEY", "-----BEGIN-----\nabc\n-----END-----"), ("A", "one\n# two\n"), ("B", "it's\n\"so\""), ("C", "3")];
        assert_eq!(pairs, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn every_bad_line_is_named() {
        let bad = parse("A=1\nsecret\nB='x\nC=\"x\" y\n=5\nLISTEN_FDS=3\nD=a\0b\n").unwrap_err();
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
        assert!(!bad[0].1.to_string().contains("secret"));
        assert!(bad[4].1.to_string().contains("set by clusterd"));
    }
}
