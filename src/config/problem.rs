//! A problem in the configuration: one place, one sentence. [`super::resolve`] collects them.
use crate::limits::{PROBLEM_CHARS_MAX, PROBLEMS_MAX};
use std::fmt::{self, Display};

/// The place of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file; line and column count from 1, the column in characters.
    File {
        /// Relative to the start folder if the file is below it.
        path: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// As this option, for example `--workers`.
    Option(&'static str),
    /// No particular place.
    Whole,
}

/// One problem, with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// One line.
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, line, column } => write!(f, "{path}:{line}:{column}: ")?,
            Place::Option(option) => write!(f, "{option}: ")?,
            Place::Whole => (),
        }
        // One line each, whatever the file contains.
        f.write_str(&self.message.replace(['\n', '\r'], " "))
    }
}

impl std::error::Error for Problem {}

/// Every problem of a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// A place while the text is available: an offset is cheap, line and column are computed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Spot {
    /// Byte offset in the configuration file.
    File(usize),
    /// An option's name.
    Option(&'static str),
    /// No particular place.
    Whole,
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    /// Its place.
    pub(crate) spot: Spot,
}

/// The problems found so far, at most [`PROBLEMS_MAX`]: finding the line of each costs a pass over the file.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<(Spot, String)>);

impl Found {
    /// Adds a problem.
    pub(crate) fn add(&mut self, spot: Spot, message: impl Into<String>) {
        if !self.is_full() {
            let mut message = message.into();
            if let Some((end, _)) = message.char_indices().nth(PROBLEM_CHARS_MAX) {
                message.truncate(end);
                message.push_str(" ...");
            }
            self.0.push((spot, message));
        }
    }

    /// Whether no more are added.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= PROBLEMS_MAX
    }

    /// The value; an error is added as a problem.
    pub(crate) fn keep<T, E: Display>(&mut self, spot: Spot, result: Result<T, E>) -> Option<At<T>> {
        match result {
            Ok(value) => Some(At { value, spot }),
            Err(error) => {
                self.add(spot, error.to_string());
                None
            }
        }
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All problems in the order of their places, with line and column in `text`.
    pub(crate) fn into_problems(mut self, path: &str, text: &str) -> Vec<Problem> {
        let full = self.is_full();
        self.0.sort();
        self.0.dedup();
        let place = |spot| match spot {
            Spot::File(offset) => {
                let (line, column) = line_column(text, offset);
                Place::File { path: path.to_owned(), line, column }
            }
            Spot::Option(option) => Place::Option(option),
            Spot::Whole => Place::Whole,
        };
        // Fewer than the bound where one was noted twice.
        let shown = self.0.len();
        let more = Problem { place: Place::Whole, message: format!("more problems than these {shown} are not shown") };
        let problems = self.0.into_iter().map(|(spot, message)| Problem { place: place(spot), message });
        problems.chain(full.then_some(more)).collect()
    }
}

/// Line and column of a byte offset, both from 1. An offset inside a character or past the end is moved back.
pub(crate) fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        assert_eq!(line_column("", 0), (1, 1));
        assert_eq!(line_column("a\nüb", 2), (2, 1));
        assert_eq!(line_column("a\nüb", 3), (2, 1), "inside a character");
        assert_eq!(line_column("a\nüb", 4), (2, 2));
        assert_eq!(line_column("a\n", 99), (2, 1));
    }

    #[test]
    fn a_problem_is_one_line() {
        let problem = Problem { place: Place::Option("--name"), message: "bad\nname".into() };
        assert_eq!(problem.to_string(), "--name: bad name");
    }
}
