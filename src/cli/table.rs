//! Tables for people: aligned columns, cut to fit a terminal, one of them coloured.
use super::units::fit;
use crate::api::types::{AgentState, AppStatus, BeforeState, ReleaseState, WorkerState};
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

/// Between two columns.
const GAP: usize = 2;
/// Minimum width of a cut column.
const ELASTIC_MIN: usize = 4;

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// As a terminal shows them.
    Colours,
    /// Text alone.
    Plain,
}

impl Paint {
    /// Colours if stdout is a terminal.
    pub(super) fn of_stdout() -> Paint {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && io::stdout().is_terminal() { Paint::Colours } else { Paint::Plain }
    }

    /// The text in the colour of its tone.
    pub(super) fn apply(self, text: &str, tone: Tone) -> String {
        match (self, tone) {
            (Paint::Colours, Tone::Good) => format!("\x1b[32m{text}\x1b[0m"),
            (Paint::Colours, Tone::Busy) => format!("\x1b[33m{text}\x1b[0m"),
            (Paint::Colours, Tone::Bad) => format!("\x1b[31m{text}\x1b[0m"),
            (Paint::Colours, Tone::Neutral) | (Paint::Plain, _) => text.to_owned(),
        }
    }
}

/// The meaning of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    /// Changing to another state.
    Busy,
    Bad,
    Neutral,
}

impl From<AppStatus> for Tone {
    fn from(status: AppStatus) -> Tone {
        match status {
            AppStatus::Running => Tone::Good,
            AppStatus::Errored | AppStatus::Gone => Tone::Bad,
            AppStatus::Starting | AppStatus::Reloading | AppStatus::Stopping => Tone::Busy,
            AppStatus::Stopped | AppStatus::Unknown => Tone::Neutral,
        }
    }
}

impl From<WorkerState> for Tone {
    fn from(state: WorkerState) -> Tone {
        match state {
            WorkerState::Ready | WorkerState::Spare => Tone::Good,
            WorkerState::Errored => Tone::Bad,
            WorkerState::Starting
            | WorkerState::Online
            | WorkerState::Waiting
            | WorkerState::Draining
            | WorkerState::Stopping => Tone::Busy,
            WorkerState::Stopped | WorkerState::Unknown => Tone::Neutral,
        }
    }
}

impl From<BeforeState> for Tone {
    fn from(state: BeforeState) -> Tone {
        match state {
            BeforeState::Done => Tone::Good,
            BeforeState::Running | BeforeState::Stopping | BeforeState::Waiting => Tone::Busy,
            BeforeState::Failed => Tone::Bad,
            BeforeState::Stopped | BeforeState::Unknown => Tone::Neutral,
        }
    }
}

impl From<ReleaseState> for Tone {
    fn from(state: ReleaseState) -> Tone {
        match state {
            ReleaseState::Serving => Tone::Good,
            ReleaseState::Starting => Tone::Busy,
            ReleaseState::Failed => Tone::Bad,
            ReleaseState::Served | ReleaseState::RolledBack | ReleaseState::Unknown => Tone::Neutral,
        }
    }
}

impl From<AgentState> for Tone {
    fn from(state: AgentState) -> Tone {
        match state {
            AgentState::Ready => Tone::Good,
            AgentState::Starting | AgentState::Waiting | AgentState::Stopping => Tone::Busy,
            AgentState::Stopped | AgentState::Unknown => Tone::Neutral,
        }
    }
}

/// The columns of a table.
pub(super) struct Table<const N: usize> {
    pub(super) headings: [&'static str; N],
    /// Columns of words, aligned left; numbers are aligned right.
    pub(super) words: &'static [usize],
    /// Columns that may be cut.
    pub(super) elastic: &'static [usize],
    /// The column that is coloured.
    pub(super) state: usize,
    /// Spaces before each line.
    pub(super) indent: usize,
}

/// One line of a table.
pub(super) struct Row<const N: usize> {
    pub(super) cells: [String; N],
    pub(super) tone: Tone,
}

impl<const N: usize> Table<N> {
    /// The table; with `columns`, cut to this width.
    pub(super) fn text(&self, rows: &[Row<N>], columns: Option<usize>, paint: Paint) -> String {
        let mut widths = self.headings.map(str::len);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if let Some(columns) = columns {
            self.narrow(&mut widths, columns);
        }
        let mut text = String::new();
        let headings = Row { cells: self.headings.map(str::to_owned), tone: Tone::Neutral };
        for row in std::iter::once(&headings).chain(rows) {
            self.line(&mut text, row, &widths, paint);
        }
        text
    }

    /// Cuts the widest text until the rows fit, or no text can be cut further.
    fn narrow(&self, widths: &mut [usize; N], columns: usize) {
        let total = |widths: &[usize; N]| self.indent + widths.iter().sum::<usize>() + GAP * (N - 1);
        while total(widths) > columns {
            let Some(widest) = self.elastic.iter().copied().max_by_key(|&n| widths[n]) else { return };
            if widths[widest] <= ELASTIC_MIN {
                return;
            }
            widths[widest] -= 1;
        }
    }

    fn line(&self, text: &mut String, row: &Row<N>, widths: &[usize; N], paint: Paint) {
        for (n, (cell, &width)) in row.cells.iter().zip(widths).enumerate() {
            let cell = fit(cell, width, '~');
            let padded = if self.words.contains(&n) { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            let padded = if n == self.state { paint.apply(&padded, row.tone) } else { padded };
            let gap = if n == 0 { self.indent } else { GAP };
            // Writing to a String cannot fail.
            let _ = write!(text, "{:gap$}{padded}", "");
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}
