//! Everything that a [`super::Config`] is made from, as plain data: the same sources always resolve to the same
//! configuration. The master keeps them as JSON, so that a restarted one resolves them again. No file is read here.
use super::import::Format;
use super::options::Options;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// What was typed, files included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sources {
    /// Absolute path of the folder in which clusterd was started. Relative paths in the file and on the command line
    /// start here.
    pub start_folder: String,
    /// The configuration file, where one was given.
    pub file: Option<FileSource>,
    /// Every environment file that the file or the command line names.
    pub env_files: Vec<EnvFileSource>,
    /// What the command line said.
    pub overrides: Overrides,
    /// The environment that apps add to, as it was at the start; `None`: that of clusterd itself.
    pub base_env: Option<BTreeMap<String, String>>,
    /// It runs in the background: what it prints goes to files in `log_folder` where nothing else is said.
    pub background: bool,
    /// Absolute path of the folder of those files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_folder: Option<String>,
    /// Apps that were rolled back, by name: what they run from instead.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rolled_back: BTreeMap<String, RolledBack>,
}

/// What an app runs from after a roll-back, until its configuration is read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolledBack {
    /// The generation that it went back to.
    pub generation: u32,
    /// Its folder, links resolved.
    pub folder: String,
    /// Its configuration, without further roll-backs.
    pub sources: Box<Sources>,
}

/// A configuration file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// Absolute.
    pub path: String,
    /// The whole text; for a file of PM2, its conversion to TOML.
    pub text: String,
    /// What that could not take over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl FileSource {
    /// How the file itself is written.
    pub fn format(&self) -> Format {
        Format::of(&self.path)
    }
}

/// An environment file that was read, or could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvFileSource {
    /// Absolute.
    pub path: String,
    /// Whose rights it was read with: the user and the group of the app that names it, as they are written. Empty for one
    /// that the command line names.
    #[serde(default, skip_serializing_if = "FileUser::is_own")]
    pub user: FileUser,
    /// The whole text, or why there is none: the complaint needs the line that named the file.
    pub text: Result<String, String>,
}

/// The user and the group with whose rights a file is read, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct FileUser {
    pub user: Option<String>,
    pub group: Option<String>,
}

impl FileUser {
    /// Neither: clusterd's own rights.
    #[must_use]
    pub fn is_own(&self) -> bool {
        *self == FileUser::default()
    }
}

/// What the command line said. Values are as typed; [`super::resolve::resolve`] checks them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// Program and arguments after `--`.
    pub command: Vec<String>,
    /// Every `--only`, in order: of a file, these apps alone.
    pub only: Vec<String>,
    /// Every `--env NAME=VALUE`, in order.
    pub env: Vec<(String, String)>,
    /// Every `--env NAME`, in order: the `env.NAME` tables that are laid over `env`.
    pub env_names: Vec<String>,
    /// Every `--env-file`, in order; absolute once the loader has read them.
    pub env_files: Vec<String>,
    /// Every other flag. (Unknown fields are refused there.)
    #[serde(flatten)]
    pub options: Options,
}

/// `path` as an absolute one, starting at `folder`; `.` and doubled slashes are dropped, `..` and links are left alone.
pub fn absolute(folder: &str, path: &str) -> PathBuf {
    Path::new(folder).join(path).components().filter(|part| *part != Component::CurDir).collect()
}

/// `path` as typed by a user: without the start folder where it lies below it.
pub fn shown(start_folder: &str, path: &str) -> String {
    let below = Path::new(path).strip_prefix(start_folder).ok().filter(|rest| !rest.as_os_str().is_empty());
    below.map_or_else(|| path.to_owned(), |rest| rest.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_json() {
        let sources = Sources {
            start_folder: "/srv".into(),
            file: Some(FileSource { path: "/srv/c.toml".into(), text: "[[app]]\n".into(), notes: Vec::new() }),
            env_files: vec![
                EnvFileSource { path: "/srv/.env".into(), user: FileUser::default(), text: Ok("A=1".into()) },
                EnvFileSource {
                    path: "/srv/none".into(),
                    user: FileUser { user: Some("www-data".into()), group: None },
                    text: Err("no such file".into()),
                },
            ],
            overrides: Overrides {
                options: [("port", "80")].into(),
                env: vec![("A".into(), "ü\u{2028}".into())],
                ..Overrides::default()
            },
            base_env: Some(BTreeMap::from([("HOME".into(), "/root".into())])),
            background: true,
            log_folder: Some("/home/logs".into()),
            rolled_back: BTreeMap::from([(
                "web".into(),
                RolledBack { generation: 3, folder: "/srv/3".into(), sources: Box::default() },
            )]),
        };
        let json = serde_json::to_string(&sources).unwrap();
        assert_eq!(serde_json::from_str::<Sources>(&json).unwrap(), sources);
    }

    #[test]
    fn paths_are_made_absolute_and_shown_short() {
        assert_eq!(absolute("/srv", "./a//b"), PathBuf::from("/srv/a/b"));
        assert_eq!(absolute("/srv", "/x/../y"), PathBuf::from("/x/../y"));
        assert_eq!(shown("/srv", "/srv/config/c.toml"), "config/c.toml");
        assert_eq!(shown("/srv", "/etc/c.toml"), "/etc/c.toml");
        assert_eq!(shown("/srv", "/srv"), "/srv");
    }
}
