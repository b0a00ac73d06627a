//! Which files are ignored: by the user's patterns, by any `.gitignore`, hidden files, editors' temporary files.
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Folders that are generated, never edited.
const NOBODY_EDITS: &[&str] = &["node_modules", "__pycache__"];

/// The rules below one folder.
pub(super) struct Ignored {
    /// A folder that is always ignored.
    apart: Vec<PathBuf>,
    /// The user's patterns.
    typed: Gitignore,
    /// The outermost folder whose `.gitignore` applies.
    top: PathBuf,
    /// The `.gitignore` files read so far, by folder.
    read: HashMap<PathBuf, Gitignore>,
}

impl Ignored {
    /// `around`: the rules of the repository around the folder apply too.
    pub(super) fn new(folder: &Path, around: bool, patterns: &[String], apart: Vec<PathBuf>) -> Ignored {
        let mut typed = GitignoreBuilder::new(folder);
        for pattern in patterns {
            if let Err(e) = typed.add_line(None, pattern) {
                log::warn!("watch_ignore: {e}");
            }
        }
        let repository = folder.ancestors().find(|folder| folder.join(".git").exists());
        let top = repository.filter(|_| around).unwrap_or(folder).to_owned();
        let typed = typed.build().unwrap_or_else(|e| {
            log::warn!("watch_ignore: {e}");
            Gitignore::empty()
        });
        Ignored { apart, typed, top, read: HashMap::new() }
    }

    /// A `.gitignore` has changed: reads all again.
    pub(super) fn forget(&mut self) {
        self.read.clear();
    }

    /// Whether this path, in a folder that is not ignored, is ignored.
    pub(super) fn is(&mut self, path: &Path, is_folder: bool) -> bool {
        if self.apart.iter().any(|apart| path == apart || is_moved_aside(path, apart)) {
            return true;
        }
        match self.typed.matched(path, is_folder) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name.ends_with('~') || (is_folder && NOBODY_EDITS.contains(&&*name)) {
            return true;
        }
        let top = self.top.clone();
        let folders = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&top));
        for folder in folders.map(Path::to_owned).collect::<Vec<_>>() {
            let rules = self.read.entry(folder).or_insert_with_key(|folder| rules_of(folder, *folder == top));
            match rules.matched(path, is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

/// Whether a file is a log file that was moved aside: `web-20260131T120000.000Z.log`, perhaps compressed, of `web.log`.
fn is_moved_aside(path: &Path, log: &Path) -> bool {
    let (Some(name), Some(stem), Some(_)) = (path.file_name(), log.file_stem(), log.extension()) else { return false };
    let (name, stem) = (name.to_string_lossy(), stem.to_string_lossy());
    let time = name.strip_prefix(&*stem).and_then(|rest| rest.strip_prefix('-'));
    time.is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit())) && path.parent() == log.parent()
}

/// The rules of a folder's own file; for the outermost folder followed by the repository's private list.
fn rules_of(folder: &Path, is_top: bool) -> Gitignore {
    let mut rules = GitignoreBuilder::new(folder);
    if is_top {
        // A missing file has no rules.
        let _ = rules.add(folder.join(".git/info/exclude"));
    }
    let _ = rules.add(folder.join(".gitignore"));
    rules.build().unwrap_or_else(|_| Gitignore::empty())
}
