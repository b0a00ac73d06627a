//! A screen into cells: where each part stands, and which colour a tone has on this terminal. Pure.
use super::columns::MARK_COLUMNS;
use super::view::{Mark, Row, Screen, Tone};
use crate::cli::units::fit;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Means {
    pub(super) colours: bool,
    /// Characters outside ASCII.
    pub(super) unicode: bool,
}

impl Means {
    fn style(self, tone: Tone) -> Style {
        let coloured = |colour, plain| if self.colours { Style::new().fg(colour) } else { plain };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => coloured(Color::Green, Style::new()),
            Tone::Busy => coloured(Color::Yellow, Style::new()),
            Tone::Bad => coloured(Color::Red, Style::new()).add_modifier(Modifier::BOLD),
        }
    }

    fn heading(self) -> Style {
        let plain = Style::new().add_modifier(Modifier::BOLD);
        if self.colours { plain.fg(Color::Cyan) } else { plain }
    }

    /// The title, the selected row, the keys: what has to be found at once.
    fn bar(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

/// The lines of a buffer from the top; what lies below it is not drawn.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    y: u16,
    means: Means,
}

impl Pen<'_> {
    fn is_inside(&self) -> bool {
        self.y < self.area.bottom()
    }

    /// Writes from this column on; the column behind the text.
    fn put(&mut self, x: u16, text: &str, style: Style) -> u16 {
        if !self.is_inside() || x >= self.area.right() {
            return x;
        }
        self.buffer.set_stringn(x, self.y, text, usize::from(self.area.right() - x), style).0
    }

    /// A text at the right end.
    fn put_right(&mut self, text: &str, style: Style) {
        let width = text.chars().count() as u16;
        self.put(self.area.right().saturating_sub(width), text, style);
    }

    /// The whole line in this style.
    fn shade(&mut self, style: Style) {
        if self.is_inside() {
            self.buffer.set_style(Rect { y: self.y, height: 1, ..self.area }, style);
        }
    }

    /// A line with a text in it.
    fn rule(&mut self, left: &str, right: &str) {
        let dash = if self.means.unicode { "─" } else { "-" };
        let style = self.means.style(Tone::Dim);
        let text = dash.repeat(usize::from(self.area.width));
        self.put(self.area.x, &text, style);
        self.put(self.area.x + 2, &format!(" {left} "), self.means.heading());
        if !right.is_empty() {
            let width = right.chars().count() as u16 + 4;
            self.put(self.area.right().saturating_sub(width), &format!(" {right} "), style);
        }
        self.y += 1;
    }

    fn lines(&mut self, lines: &[(Tone, String)], height: usize) {
        for at in 0..height {
            if let Some((tone, text)) = lines.get(at) {
                self.put(self.area.x + 1, text, self.means.style(*tone));
            }
            self.y += 1;
        }
    }
}

/// Draws it all.
pub(super) fn draw(screen: &Screen, means: Means, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    let mut pen = Pen { buffer, area, y: area.y, means };
    title(&mut pen, screen);
    headings(&mut pen, screen);
    table(&mut pen, screen);
    if screen.heights.detail > 0 {
        pen.rule(&screen.detail_title[0], &screen.detail_title[1]);
        pen.lines(&screen.detail, screen.heights.detail - 1);
    }
    if screen.heights.log > 0 {
        pen.rule(&screen.log_title, "");
        pen.lines(&screen.log, screen.heights.log - 1);
    }
    pen.lines(&screen.status, screen.heights.status);
    pen.y = pen.y.min(area.bottom().saturating_sub(1));
    keys(&mut pen, screen);
    if screen.help {
        help(&mut pen);
    }
}

fn title(pen: &mut Pen<'_>, screen: &Screen) {
    let bar = pen.means.bar();
    pen.shade(bar);
    // Where both do not fit, the totals count more than the rest of the name.
    let totals = &screen.title[1];
    let room = usize::from(pen.area.width).saturating_sub(totals.chars().count() + 3);
    pen.put(pen.area.x + 1, &fit(&screen.title[0], room, '~'), bar.add_modifier(Modifier::BOLD));
    pen.put_right(&format!("{totals} "), bar);
    pen.y += 1;
}

fn headings(pen: &mut Pen<'_>, screen: &Screen) {
    let mut x = pen.area.x + MARK_COLUMNS as u16;
    let style = pen.means.heading();
    for column in &screen.columns {
        x = pen.put(x, &column.fill(column.heading), style) + 1;
    }
    pen.y += 1;
}

fn table(pen: &mut Pen<'_>, screen: &Screen) {
    let top = pen.y;
    if let Some(text) = screen.empty {
        pen.put(pen.area.x + 2, text, pen.means.style(Tone::Dim));
    }
    for (at, row) in screen.rows.iter().enumerate() {
        pen.y = top + at as u16;
        table_row(pen, row, screen.selected == Some(at));
    }
    pen.y = top + screen.heights.table as u16;
}

fn table_row(pen: &mut Pen<'_>, row: &Row, selected: bool) {
    let mark = match (row.mark, pen.means.unicode) {
        (Mark::Open, true) => "▾",
        (Mark::Folded, true) => "▸",
        (Mark::Open, false) => "-",
        (Mark::Folded, false) => "+",
        (Mark::None, _) => " ",
    };
    let style = |pen: &Pen<'_>, tone| {
        let style = pen.means.style(tone);
        // A dim text on a bright bar cannot be read on every terminal.
        if selected { style.remove_modifier(Modifier::DIM).patch(pen.means.bar()) } else { style }
    };
    if selected {
        pen.shade(pen.means.bar());
    }
    let mut x = pen.area.x;
    pen.put(x, mark, style(pen, Tone::Plain));
    x += MARK_COLUMNS as u16;
    for (text, tone) in &row.cells {
        x = pen.put(x, text, style(pen, *tone)) + 1;
    }
}

fn keys(pen: &mut Pen<'_>, screen: &Screen) {
    let mut x = pen.area.x;
    for (key, word) in &screen.keys {
        x = pen.put(x + 1, key, pen.means.heading());
        x = pen.put(x + 1, word, Style::new());
    }
}

const HELP: [&str; 20] = [
    "j k, arrows, PgUp PgDn, g G   select a row",
    "Enter, Space                  show the workers of the app, or no more",
    "r   reload: new workers one by one, no connection is lost",
    "R   restart: all workers stop, then start again (asks)",
    "+ - one worker more, one less",
    "s   stop, with a drain (asks); start what is stopped or gone",
    "l   show the log, or no more",
    "Esc takes away an error; q, Esc, Ctrl-C: the end (apps run on)",
    "",
    "READY     workers that serve, of those wanted; a worker's generation",
    "CPU       percent of one CPU, over the last second",
    "MEMORY    resident",
    "DELAY     of the event loop (the slowest worker's); Node only",
    "CONN/S    connections that the master handed over per second;",
    "          \"-\" where workers accept them by themselves",
    "OPEN      handed over, and not answered yet (wide terminals)",
    "RESTARTS  ends that nobody asked for",
    "UP        of the oldest worker",
    "",
    "any key continues",
];

fn help(pen: &mut Pen<'_>) {
    let width = HELP.iter().map(|line| line.chars().count()).max().unwrap_or_default() as u16 + 4;
    let height = HELP.len() as u16;
    let area = pen.area;
    let place = Rect {
        x: area.x + area.width.saturating_sub(width) / 2,
        y: area.y + 1 + area.height.saturating_sub(height + 2) / 2,
        width: width.min(area.width),
        height: height.min(area.height.saturating_sub(2)),
    };
    let bar = pen.means.bar();
    for (at, line) in HELP.iter().enumerate().take(usize::from(place.height)) {
        pen.y = place.y + at as u16;
        let padded = format!("  {line:<0$}", usize::from(width).saturating_sub(2));
        pen.put(place.x, &padded, bar);
    }
}
