//! JSON as people write it for PM2: comments, trailing commas, keys without quotes, strings in single quotes. Read as data;
//! no JavaScript is run.
use serde_json::Value;

/// The value of the text; `None` if it contains more than data.
pub(super) fn value(text: &str) -> Option<Value> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    // Without comments and with strings in double quotes it is YAML in one piece.
    let value: Value = serde_saphyr::from_str_with_options(&as_flow(text)?, options).ok()?;
    (value.is_object() || value.is_array()).then_some(value)
}

/// Comments become spaces, single quotes become double quotes, and a space follows each colon, as YAML needs it. `None`
/// for expressions: calls, operators, templates.
fn as_flow(text: &str) -> Option<String> {
    let mut flow = String::with_capacity(text.len() + text.len() / 8);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('/', Some('/')) => {
                rest.by_ref().find(|c| *c == '\n');
                flow.push('\n');
            }
            ('/', Some('*')) => {
                rest.next();
                let mut last = ' ';
                rest.by_ref().find(|c| std::mem::replace(&mut last, *c) == '*' && *c == '/')?;
                flow.push(' ');
            }
            ('"' | '\'', _) => string(c, &mut rest, &mut flow)?,
            (':', _) => flow.push_str(": "),
            ('\t' | '\r', _) => flow.push(' '),
            // YAML would read a missing value as null.
            ('}' | ']' | ',', _) if flow.trim_end().ends_with(':') => return None,
            ('{' | '}' | '[' | ']' | ',' | '-' | '+' | '.' | '_' | '$' | ' ' | '\n', _) => flow.push(c),
            (c, _) if c.is_alphanumeric() => flow.push(c),
            _ => return None,
        }
    }
    Some(flow)
}

/// One string, after its opening quote.
fn string(quote: char, rest: &mut impl Iterator<Item = char>, flow: &mut String) -> Option<()> {
    flow.push('"');
    loop {
        match rest.next()? {
            c if c == quote => break,
            '\n' => return None,
            '"' => flow.push_str("\\\""),
            '\\' => match rest.next()? {
                '\'' => flow.push('\''),
                // The text continues on the next line.
                '\n' => {}
                escaped => flow.extend(['\\', escaped]),
            },
            c => flow.push(c),
        }
    }
    flow.push('"');
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_people_write_is_understood() {
        let text = "// ours\n{ apps: [{ script: 'a.js', args: \"b 'c d' // no comment\", /* two\n lines */\n\
                    \tinstances:2,\"watch\":true, env: {A:'it\\'s \"x\"', B: -1.5, C: null}, }] }";
        let wanted = json!({ "apps": [{ "script": "a.js", "args": "b 'c d' // no comment", "instances": 2, "watch": true,
            "env": { "A": "it's \"x\"", "B": -1.5, "C": null } }] });
        assert_eq!(value(text), Some(wanted));
        assert_eq!(value("[1,2,]"), Some(json!([1, 2])));
    }

    #[test]
    fn what_would_have_to_run_is_refused() {
        for text in [
            "{ a: process.exit() }",
            "{ a: require('fs') }",
            "(() => ({}))()",
            "{ a: `x` }",
            "{ a: 1 * 2 }",
            "{ a: 'open",
            "{ a: 'two\nlines' }",
            "/* open",
            "{ a: &x 1, b: *x }",
            "{ a: !t 1 }",
            "word",
            "",
            "{ script: }",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
