//! As much of the shell as commands in pages use: words, quotes, and what ends a command.

/// The commands of a line, each as its words, with quotes removed. Redirections and comments are left out; what is substituted
/// (`$(...)`) stays as it is written.
pub(crate) fn commands(line: &str) -> Vec<Vec<String>> {
    let mut reader = Reader { rest: line.chars().peekable(), commands: vec![Vec::new()], word: None };
    reader.read();
    reader.commands.into_iter().filter(|words| !words.is_empty()).collect()
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    commands: Vec<Vec<String>>,
    word: Option<String>,
}

impl Reader<'_> {
    fn read(&mut self) {
        while let Some(c) = self.rest.next() {
            match c {
                '\'' => self.take_until('\''),
                '"' => self.take_until('"'),
                '\\' => {
                    let next = self.rest.next();
                    self.word.get_or_insert_default().extend(next);
                }
                '$' if self.rest.peek() == Some(&'(') => self.take_substitution(),
                '#' if self.word.is_none() => break,
                ' ' => self.end_word(),
                '&' | '|' | ';' | '(' | ')' => {
                    self.end_word();
                    self.commands.push(Vec::new());
                }
                '<' | '>' => self.skip_redirection(),
                c => self.word.get_or_insert_default().push(c),
            }
        }
        self.end_word();
    }

    fn take_until(&mut self, end: char) {
        let word = self.word.get_or_insert_default();
        word.extend(self.rest.by_ref().take_while(|c| *c != end));
    }

    fn take_substitution(&mut self) {
        let word = self.word.get_or_insert_default();
        word.push('$');
        let mut depth = 0;
        for c in self.rest.by_ref() {
            word.push(c);
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            if depth == 0 {
                break;
            }
        }
    }

    /// `2>>error.log`, `> /dev/null`, `2>&1`: with the number before it, and the word behind it.
    fn skip_redirection(&mut self) {
        if self.word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
            self.word = None;
        }
        self.end_word();
        while self.rest.next_if(|c| matches!(c, '<' | '>' | '&' | ' ')).is_some() {}
        while self.rest.next_if(|c| !matches!(c, ' ' | '&' | '|' | ';' | ')')).is_some() {}
    }

    fn end_word(&mut self) {
        if let (Some(word), Some(command)) = (self.word.take(), self.commands.last_mut()) {
            command.push(word);
        }
    }
}

#[test]
fn a_line_is_its_commands() {
    let read = |line: &str| commands(line).into_iter().map(|words| words.join("|")).collect::<Vec<_>>();
    assert_eq!(read("a 'b c' \"d e\" f\\ g # not this"), ["a|b c|d e|f g"]);
    assert_eq!(read("a && b || (c d; e) | f &"), ["a", "b", "c|d", "e", "f"]);
    assert_eq!(read("a b 2>>x.log >/dev/null 2>&1 c"), ["a|b|c"]);
    assert_eq!(read("kill $(clusterd pid web | head -1) now"), ["kill|$(clusterd pid web | head -1)|now"]);
    assert_eq!(read("a#b ''"), ["a#b|"]);
}
