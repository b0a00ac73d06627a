//! The last warnings of this process: the answer to a command contains those that its apps got meanwhile.
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Warnings that are kept.
const KEPT_MAX: usize = 256;

/// Warnings in one answer; the log has the others.
pub const ANSWERED_MAX: usize = 20;

struct Kept {
    /// How many there were.
    count: u64,
    /// The last ones, oldest first.
    last: VecDeque<String>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { count: 0, last: VecDeque::new() });

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a warning that was logged.
pub fn keep(text: &str) {
    let mut kept = kept();
    kept.count += 1;
    if kept.last.len() == KEPT_MAX {
        kept.last.pop_front();
    }
    kept.last.push_back(text.to_owned());
}

/// The number of warnings so far.
pub fn count() -> u64 {
    kept().count
}

/// Whether a warning is about this app: `web: ...`, `web/0: ...`.
pub fn is_about(text: &str, app: &str) -> bool {
    text.strip_prefix(app).is_some_and(|rest| rest.starts_with(": ") || rest.starts_with('/'))
}

/// The last one about an app, of those that are kept.
pub fn last_about(app: &str) -> Option<String> {
    kept().last.iter().rev().find(|text| is_about(text, app)).cloned()
}

/// Those that came after the first `count` and that are `meant`: as many as an answer may have.
pub fn since(count: u64, meant: impl Fn(&str) -> bool) -> Vec<String> {
    let kept = kept();
    let new = usize::try_from(kept.count.saturating_sub(count)).unwrap_or(usize::MAX).min(kept.last.len());
    let new = kept.last.iter().skip(kept.last.len() - new).filter(|text| meant(text));
    let mut found: Vec<String> = new.cloned().collect();
    if found.len() > ANSWERED_MAX {
        let more = found.len() - ANSWERED_MAX;
        found.truncate(ANSWERED_MAX);
        found.push(format!("... and {more} more warnings; the log has them"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_warnings_since_its_command_and_not_too_many() {
        keep("web: earlier");
        let before = count();
        keep("web: one");
        keep("api: other");
        keep("web/0: two");
        let of_web = |text: &str| text.starts_with("web");
        assert_eq!(since(before, of_web), ["web: one", "web/0: two"]);
        assert_eq!(since(count(), of_web), Vec::<String>::new());
        assert_eq!(last_about("web").as_deref(), Some("web/0: two"));
        assert_eq!((last_about("api").as_deref(), last_about("we")), (Some("api: other"), None));
        for n in 0..2 * KEPT_MAX {
            keep(&format!("web: {n}"));
        }
        let many = since(before, of_web);
        assert_eq!(many.len(), ANSWERED_MAX + 1);
        assert!(many[ANSWERED_MAX].contains("more warnings"), "{many:?}");
        // This process has had more than it kept.
        assert_eq!(since(0, |_| true).len(), ANSWERED_MAX + 1);
    }
}
