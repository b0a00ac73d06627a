//! What Node makes of its command line. Text only.

/// Flags that are followed by a program.
const CODE: &[&str] = &["-e", "--eval", "-p", "--print", "-pe", "-ep"];

/// Whether Node runs a program without an argument: code on the command line, or from its standard input. Node makes no
/// cluster worker of such a process.
pub fn has_no_argument(command: &[String]) -> bool {
    let mut words = command.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        if word == "--" {
            return words.next().is_none();
        }
        if word == "-" || !word.starts_with('-') {
            return false;
        }
        // `-p` may stand alone, behind `-e CODE`: then the next word is a flag, or none.
        if CODE.contains(&word) || super::inspect::takes_value(word) {
            words.next();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_alone_has_no_argument_and_a_script_is_one() {
        let none = |line: &str| has_no_argument(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for line in ["node", "node -e 1", "node --eval=1", "node -p 1", "node -r ./x --eval 1", "node -e 1 --"] {
            assert!(none(line), "{line}");
        }
        for line in ["node app.js", "node -e 1 x", "node -", "node -r ./x app.js", "node --inspect a", "node -e 1 -- x"]
        {
            assert!(!none(line), "{line}");
        }
    }
}
