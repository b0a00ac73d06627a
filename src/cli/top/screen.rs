//! The terminal itself: taking it over, giving it back however the program ends, and what it can show.
use super::draw::{Means, draw};
use super::model::Key;
use super::view::Screen;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::layout::{Position, Rect};
use std::io::{self, IsTerminal, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours.
pub(super) struct Tty {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    means: Means,
}

/// Why there can be no screen here, if there cannot.
pub(super) fn refusal() -> Option<String> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Some("top wants a terminal; clusterd ls --json is for scripts".to_owned());
    }
    match std::env::var("TERM") {
        Ok(term) if !term.is_empty() && term != "dumb" => None,
        Ok(term) => Some(format!("top wants a terminal that can place its cursor, not TERM={term:?}; see clusterd ls")),
        Err(_) => Some("top wants to know what the terminal is: set TERM, or see clusterd ls".to_owned()),
    }
}

impl Tty {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be set up.
    pub(super) fn take() -> io::Result<Tty> {
        restore_on_panic();
        take()?;
        Ok(Tty {
            terminal: Terminal::new(CrosstermBackend::new(io::stdout()))?,
            means: means(|name| std::env::var(name).ok()),
        })
    }

    /// Its columns and lines.
    pub(super) fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|size| (size.width, size.height))
    }

    pub(super) fn show(&mut self, screen: &Screen) -> io::Result<()> {
        let means = self.means;
        self.terminal.draw(|frame| draw(screen, means, frame.area(), frame.buffer_mut())).map(drop)
    }

    /// Draws everything the next time: something else has written to the terminal.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        // `clear` would ask the terminal where its cursor is, and wait for an answer that the thread of keys reads.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    /// Takes it again after it was given back.
    pub(super) fn take_again(&mut self) -> io::Result<()> {
        take()?;
        self.redraw()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        restore();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// Gives the terminal back as it was; once, whoever is first.
pub(super) fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Of a terminal that is gone nothing has to be restored.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Whichever thread panics: its message is for a terminal that shows it, and the screen is never left half restored.
fn restore_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        before(info);
        std::process::exit(i32::from(super::EXIT_PANIC));
    }));
}

/// What this terminal can show, from what the environment says.
fn means(variable: impl Fn(&str) -> Option<String>) -> Means {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let term = set("TERM").unwrap_or_default();
    let old = term.strip_prefix("vt").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let monochrome = old || term.ends_with("-m") || term.ends_with("-mono");
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
    Means {
        colours: set("NO_COLOR").is_none() && !monochrome,
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}

/// What is to be done about something that the terminal sent.
pub(super) fn key(event: &Event) -> Option<Key> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) = event else {
        return None;
    };
    if modifiers.contains(KeyModifiers::CONTROL) {
        return match code {
            KeyCode::Char('c') => Some(Key::Interrupt),
            KeyCode::Char('l') => Some(Key::Redraw),
            KeyCode::Char('z') => Some(Key::Suspend),
            _ => None,
        };
    }
    match code {
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        KeyCode::PageUp => Some(Key::PageUp),
        KeyCode::PageDown => Some(Key::PageDown),
        KeyCode::Home => Some(Key::First),
        KeyCode::End => Some(Key::Last),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        KeyCode::Char(c) => Some(Key::Char(*c)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits;
    use std::fs;
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// Set for the run of this test that is to panic.
    const PANICS: &str = "CLUSTERD_TEST_TOP_PANICS";

    /// Runs itself once more, in a terminal (tmux), where a thread of it panics while the terminal is taken.
    #[test]
    fn a_panic_gives_the_terminal_back_and_can_be_read() {
        if std::env::var_os(PANICS).is_some() {
            let _tty = Tty::take().unwrap();
            // The hook ends it all; joining is the wait for that.
            let _ = std::thread::spawn(|| panic!("on purpose")).join();
            return;
        }
        let folder = std::env::temp_dir().join(format!("clusterd-top-panic-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "stty -a >before; {PANICS}=1 '{}' --exact {}::a_panic_gives_the_terminal_back_and_can_be_read --nocapture; \
             echo \"it ended with $?\"; stty -a >after; exec sleep 1000",
            own.display(),
            module_path!().split_once("::").unwrap().1,
        );
        let tmux = |args: &[&str]| {
            let output = Command::new("tmux").arg("-S").arg("socket").args(args).current_dir(&folder).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh", "-c", &script]);
        let deadline = Instant::now() + Duration::from_millis(limits::START_WAIT_MS);
        let stty = |name| fs::read_to_string(folder.join(name)).unwrap_or_default();
        while stty("after").is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let (screen, state) = (tmux(&["capture-pane", "-p"]), tmux(&["display-message", "-p", "#{alternate_on}"]));
        tmux(&["kill-server"]);
        assert!(screen.contains("on purpose") && screen.contains("it ended with 101"), "{screen}");
        assert_eq!((stty("before"), state.trim()), (stty("after"), "0"));
        fs::remove_dir_all(folder).unwrap();
    }

    fn with(set: &[(&str, &str)]) -> (bool, bool) {
        let means = means(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()));
        (means.colours, means.unicode)
    }

    #[test]
    fn colours_and_lines_are_for_terminals_that_have_them() {
        assert_eq!(with(&[("TERM", "xterm-256color"), ("LANG", "de_DE.UTF-8")]), (true, true));
        assert_eq!(with(&[("TERM", "linux"), ("LANG", "C.utf8")]), (true, true));
        assert_eq!(with(&[("TERM", "screen"), ("LANG", "C")]), (true, false));
        assert_eq!(with(&[("TERM", "screen"), ("LANG", "en_US.UTF-8"), ("LC_ALL", "C")]), (true, false));
        assert_eq!(with(&[("TERM", "xterm"), ("NO_COLOR", "1")]), (false, false));
        assert_eq!(with(&[("TERM", "xterm"), ("NO_COLOR", "")]), (true, false));
        for term in ["vt100", "vt220", "xterm-mono", "linux-m"] {
            assert_eq!(with(&[("TERM", term)]), (false, false), "{term}");
        }
        assert!(with(&[("TERM", "vte-256color")]).0);
    }
}
