//! The saved list: written by `save`, started by `resurrect`. One file in the home, replaced as a whole; the previous
//! one is kept in case the new one cannot be read.
use super::file::{self, Durability, FileProblem};
use super::{Entry, Home, HomeError};
use crate::limits;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The format that this version writes.
const VERSION: u32 = 1;

/// The saved list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// Version of the format.
    pub version: u32,
    /// The deployments in the background, each with its sources.
    pub deployments: Vec<Entry>,
}

impl Home {
    fn dump_path(&self) -> PathBuf {
        self.path().join("saved.json")
    }

    fn previous_dump_path(&self) -> PathBuf {
        self.path().join("saved.before.json")
    }

    /// Saves these deployments for `resurrect`; keeps the previous list beside it.
    ///
    /// # Errors
    /// The home cannot be written; the previous list is still there.
    pub fn save(&self, deployments: Vec<Entry>) -> Result<PathBuf, HomeError> {
        // Creates the home where missing, and checks that others cannot write to it.
        let _held = self.registry()?;
        let path = self.dump_path();
        let fresh = self.path().join("saved.new.json");
        let failed = |e: io::Error| HomeError::Entry { path: path.clone(), problem: FileProblem::Unwritable(e) };
        file::write(&fresh, &Dump { version: VERSION, deployments }, Durability::PowerCut).map_err(failed)?;
        match fs::rename(&path, self.previous_dump_path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            Ok(()) | Err(_) => {}
        }
        fs::rename(&fresh, &path).map_err(failed)?;
        File::open(self.path()).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(path)
    }

    /// The last saved list, and the problem with it if an earlier file had to take its place.
    ///
    /// # Errors
    /// Nothing was saved, or nothing can be read.
    pub fn saved(&self) -> Result<(Dump, Option<String>), HomeError> {
        self.check_trust()?;
        let path = self.dump_path();
        let problem = match read(&path) {
            Ok(dump) => return Ok((dump, None)),
            Err(problem) => problem,
        };
        let previous = self.previous_dump_path();
        match read(&previous) {
            Ok(dump) => {
                let text = format!("{} {problem}; {} is used instead", path.display(), previous.display());
                Ok((dump, Some(text)))
            }
            Err(_) => Err(HomeError::NotSaved { path, problem }),
        }
    }
}

fn read(path: &Path) -> Result<Dump, FileProblem> {
    file::read(path, limits::SAVED_BYTES_MAX, VERSION, |dump: &Dump| dump.version)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry(name: &str) -> Entry {
        Entry { version: 1, name: name.to_owned(), background: true, apps: Vec::new(), sources: None }
    }

    #[test]
    fn the_previous_list_takes_the_place_of_a_damaged_one() {
        let path = std::env::temp_dir().join(format!("clusterd-saved-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let home = Home::find(Some(&path)).unwrap();
        assert!(home.saved().unwrap_err().to_string().contains("clusterd save writes it"));
        let file = home.save(vec![entry("one")]).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        home.save(vec![entry("one"), entry("two")]).unwrap();
        let (dump, wrong) = home.saved().unwrap();
        assert_eq!((dump.deployments.len(), wrong), (2, None));
        for damage in ["{", "", "{\"version\": 9, \"deployments\": []}"] {
            fs::write(&file, damage).unwrap();
            let (dump, wrong) = home.saved().unwrap();
            assert_eq!(dump.deployments.len(), 1, "{damage}");
            assert!(wrong.is_some_and(|why| why.contains("saved.json") && why.contains("used instead")));
        }
        // A save that was interrupted between the two renames.
        fs::remove_file(&file).unwrap();
        assert_eq!(home.saved().unwrap().0.deployments.len(), 1);
        fs::remove_dir_all(path).unwrap();
    }
}
