//! Which file a path of a request means. Every file is opened below the folder (`os::beneath`), so that neither a path nor a
//! link leads out of it.
use crate::os::{beneath, errno};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The page for a path that is not there.
const NOT_FOUND: &str = "404.html";
/// The one folder with a dot that is meant for others (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// The folder that is served.
pub(super) struct Site {
    /// Opened for each request: a build may have put another folder there.
    folder: PathBuf,
    /// Relative to it.
    homepage: String,
    /// The home page stands for whatever is not there.
    spa: bool,
}

/// A file to send.
pub(super) struct Found {
    pub(super) file: File,
    pub(super) length: u64,
    /// Changes with the file.
    pub(super) tag: String,
    /// For its content type.
    pub(super) name: String,
}

/// What a request means.
pub(super) enum Meant {
    File(Found),
    /// A folder whose links need a slash at the end of its path.
    Folder,
    /// Nothing; with the page that says so, if there is one.
    Nothing(Option<Found>),
}

impl Site {
    /// # Errors
    /// The folder is not there, or is none.
    pub(super) fn new(folder: &Path, homepage: &str, spa: bool) -> io::Result<Site> {
        let folder = std::path::absolute(folder)?;
        std::fs::read_dir(&folder)?;
        Ok(Site { folder, homepage: homepage.trim_start_matches('/').to_owned(), spa })
    }

    /// Finds what a path of a URL means.
    ///
    /// # Errors
    /// There are no free descriptors, or the folder is gone.
    pub(super) fn find(&self, path: &str) -> io::Result<Meant> {
        let folder = File::open(&self.folder)?;
        let found = match decoded(path) {
            None => None,
            Some(path) if path.is_empty() => self.open(&folder, &self.homepage)?,
            Some(path) => match self.open(&folder, path.trim_end_matches('/'))? {
                Some(Opened::Folder) if path.ends_with('/') => self.open(&folder, &format!("{path}index.html"))?,
                Some(Opened::File(_)) if path.ends_with('/') => None,
                found => found,
            },
        };
        match found {
            Some(Opened::File(found)) => return Ok(Meant::File(found)),
            Some(Opened::Folder) => return Ok(Meant::Folder),
            None => {}
        }
        let page = |name: &str| match self.open(&folder, name) {
            Ok(Some(Opened::File(found))) => Some(found),
            Ok(_) | Err(_) => None,
        };
        Ok(match page(&self.homepage).filter(|_| self.spa) {
            Some(home) => Meant::File(home),
            None => Meant::Nothing(page(NOT_FOUND)),
        })
    }

    /// Opens a path below the folder; `None`: there is no such file for clients.
    fn open(&self, folder: &File, path: &str) -> io::Result<Option<Opened>> {
        let file = match beneath::open(folder.as_fd(), Path::new(path)) {
            Ok(file) => file,
            // Those of this process or machine: the next request may find it.
            Err(e) if errno::is_out_of_resources(&e) => return Err(e),
            Err(_) => return Ok(None),
        };
        let about = file.metadata()?;
        if about.is_dir() {
            return Ok(Some(Opened::Folder));
        }
        if !about.is_file() {
            return Ok(None);
        }
        let tag = format!("\"{:x}-{:x}-{:x}\"", about.mtime(), about.mtime_nsec(), about.len());
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Some(Opened::File(Found { length: about.len(), file, tag, name })))
    }
}

enum Opened {
    File(Found),
    Folder,
}

/// The path of a URL as a path below the folder, its escapes resolved; `None`: it names nothing that is served, such as a
/// file whose name begins with a dot.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).ok()?;
    let hidden = |name: &str| name.starts_with('.') && name != WELL_KNOWN;
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
    if text.contains('\0') || names.iter().any(|name| hidden(name)) {
        return None;
    }
    let slash = if text.ends_with('/') && !names.is_empty() { "/" } else { "" };
    Some(format!("{}{slash}", names.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_of_the_folder_or_of_nothing() {
        for (path, file) in [
            ("/", Some("")),
            ("//", Some("")),
            ("/a%20b.html", Some("a b.html")),
            ("//a//b/", Some("a/b/")),
            ("/.well-known/x", Some(".well-known/x")),
            ("/a%2fb", Some("a/b")),
            ("/../secret", None),
            ("/a/..%2f..%2fsecret", None),
            ("/%2e%2e/secret", None),
            ("/.env", None),
            ("/a%00b", None),
            ("/%ff", None),
            ("/%4", None),
            ("/%+1", None),
        ] {
            assert_eq!(decoded(path).as_deref(), file, "{path}");
        }
    }
}
