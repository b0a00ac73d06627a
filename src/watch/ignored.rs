//! Which files do not count: what the user's patterns say, what any `.gitignore` says, hidden ones, what editors leave.
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Folders that nobody edits.
const NOBODY_EDITS: &[&str] = &["node_modules", "__pycache__"];

/// The rules below one folder.
pub(super) struct Ignored {
    /// A folder that never counts.
    apart: Option<PathBuf>,
    /// What the user said.
    typed: Gitignore,
    /// The outermost folder whose `.gitignore` counts.
    top: PathBuf,
    /// Those that were read, by folder.
    read: HashMap<PathBuf, Gitignore>,
}

impl Ignored {
    /// `around`: what the repository around the folder ignores counts too.
    pub(super) fn new(folder: &Path, around: bool, patterns: &[String], apart: Option<PathBuf>) -> Ignored {
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

    /// A `.gitignore` has changed.
    pub(super) fn forget(&mut self) {
        self.read.clear();
    }

    /// Whether this path, of a folder that counts, does not.
    pub(super) fn is(&mut self, path: &Path, is_folder: bool) -> bool {
        if self.apart.as_deref() == Some(path) {
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

/// What a folder's own file says; the repository's private list comes behind that of its outermost folder.
fn rules_of(folder: &Path, is_top: bool) -> Gitignore {
    let mut rules = GitignoreBuilder::new(folder);
    if is_top {
        // A file that is not there says nothing.
        let _ = rules.add(folder.join(".git/info/exclude"));
    }
    let _ = rules.add(folder.join(".gitignore"));
    rules.build().unwrap_or_else(|_| Gitignore::empty())
}
