//! The columns of the table, and which of them a terminal has room for. Pure.
use crate::cli::units::fit;

/// What a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    Name,
    Status,
    Ready,
    Cpu,
    Memory,
    Delay,
    Rate,
    Open,
    Restarts,
    Up,
    /// The addresses of an app, the note of a worker.
    Where,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) kind: Kind,
    pub(super) heading: &'static str,
    pub(super) width: usize,
    right: bool,
    /// Those with the highest number are left out first; 0: none is.
    dispensable: u8,
}

/// Columns before the first, for the mark of a row.
pub(super) const MARK_COLUMNS: usize = 2;
const NAME_MIN: usize = 13;
const NAME_MAX: usize = 40;
const WHERE_MIN: usize = 14;

const fn column(kind: Kind, heading: &'static str, width: usize, right: bool, dispensable: u8) -> Column {
    Column { kind, heading, width, right, dispensable }
}

const ALL: [Column; 12] = [
    column(Kind::Id, "ID", 4, true, 0),
    column(Kind::Name, "APP", NAME_MIN, false, 0),
    column(Kind::Status, "STATUS", 9, false, 0),
    column(Kind::Ready, "READY", 9, true, 1),
    column(Kind::Cpu, "CPU", 5, true, 2),
    column(Kind::Memory, "MEMORY", 6, true, 3),
    column(Kind::Delay, "DELAY", 5, true, 6),
    column(Kind::Rate, "CONN/S", 6, true, 5),
    column(Kind::Open, "OPEN", 5, true, 8),
    column(Kind::Restarts, "RESTARTS", 8, true, 4),
    column(Kind::Up, "UP", 4, true, 7),
    column(Kind::Where, "ADDRESS", WHERE_MIN, false, 9),
];

impl Column {
    /// A text in this column.
    pub(super) fn fill(&self, text: &str) -> String {
        let text = fit(text, self.width, '~');
        let width = self.width;
        if self.right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    }
}

/// The columns for a terminal so wide, where the longest name is so long.
pub(super) fn columns(width: usize, name: usize) -> Vec<Column> {
    let mut columns = ALL.to_vec();
    let total = |columns: &[Column]| {
        MARK_COLUMNS + columns.iter().map(|column| column.width).sum::<usize>() + columns.len().saturating_sub(1)
    };
    while total(&columns) > width {
        let Some(least) = columns.iter().map(|column| column.dispensable).max().filter(|&least| least > 0) else {
            break;
        };
        columns.retain(|column| column.dispensable != least);
    }
    // What is left over is for names, then for addresses.
    let mut left = width.saturating_sub(total(&columns));
    for (kind, wanted) in [(Kind::Name, name.clamp(NAME_MIN, NAME_MAX)), (Kind::Where, usize::MAX)] {
        if let Some(column) = columns.iter_mut().find(|column| column.kind == kind) {
            let more = left.min(wanted.saturating_sub(column.width));
            column.width += more;
            left -= more;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(width: usize, name: usize) -> (Vec<Kind>, usize, usize) {
        let columns = columns(width, name);
        let total = MARK_COLUMNS + columns.iter().map(|c| c.width + 1).sum::<usize>() - 1;
        let name = columns.iter().find(|c| c.kind == Kind::Name).map_or(0, |c| c.width);
        (columns.iter().map(|c| c.kind).collect(), total, name)
    }

    #[test]
    fn eighty_columns_hold_all_that_the_table_is_for() {
        let (kinds, total, name) = laid_out(80, 64);
        assert!(total <= 80 && name >= NAME_MIN);
        for kind in [Kind::Cpu, Kind::Memory, Kind::Delay, Kind::Rate, Kind::Restarts, Kind::Up, Kind::Ready] {
            assert!(kinds.contains(&kind), "{kind:?} in {kinds:?}");
        }
        assert!(!kinds.contains(&Kind::Where));
    }

    #[test]
    fn a_wide_terminal_is_used_and_a_narrow_one_keeps_what_counts_most() {
        let (kinds, total, name) = laid_out(200, 64);
        assert!(kinds.contains(&Kind::Where) && kinds.contains(&Kind::Open));
        assert_eq!((total, name), (200, NAME_MAX));
        assert_eq!(laid_out(39, 4).0, [Kind::Id, Kind::Name, Kind::Status]);
        assert!(laid_out(10, 4).0.contains(&Kind::Status), "cut by the terminal, but there");
    }
}
