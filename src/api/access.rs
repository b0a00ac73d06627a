//! Who may do what over TCP: tokens from files, and the names by which the address may be called. (On the control socket
//! the kernel says who asks.)
use super::reply::{Reply, failure};
use crate::config::control::Control;
use crate::os::{read, user};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Length of a token that clusterd makes, in bytes; written in hexadecimal digits.
const TOKEN_BYTES: usize = 32;

/// A token must not be shorter, in characters: nobody may guess it.
const TOKEN_CHARS_MIN: usize = 16;

/// Size of a token's file, in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Whether something serves, which its port tells anyone: nothing on any address. Probes of a kubelet cannot have a secret.
    Probe,
    /// State and figures: nothing on a loopback address, else a token.
    Look,
    /// What may hold private things: a token.
    Read,
    /// The token for everything.
    Change,
}

/// Why a token's file cannot be used.
#[derive(Debug, Error)]
pub enum AccessError {
    #[error("cannot read the token in {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot make {path} for a new token: {source}", path = .path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("{path} is not a regular file", path = .0.display())]
    NoFile(PathBuf),
    #[error("{path} belongs to user {owner}; whoever owns it knows the token", path = .path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("other users can read or write the token in {path}; run: chmod 600 {path}", path = .0.display())]
    Open(PathBuf),
    #[error("the token in {path} is shorter than {TOKEN_CHARS_MIN} characters", path = .0.display())]
    Short(PathBuf),
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("the Host header {0:?} is not allowed; add the name to hosts in [control], or use an IP address")]
    Host(String),
    #[error("a request over TCP needs a Host header")]
    NoHost,
    #[error("this needs a token: Authorization: Bearer TOKEN")]
    NoToken,
    #[error("the token is not valid for this")]
    WrongToken,
    #[error("nothing can be changed over TCP: there is no token_file in [control]")]
    ReadOnly,
    #[error("the token cannot be checked: {0}")]
    Unreadable(String),
}

impl Refusal {
    pub(super) fn reply(&self) -> Reply {
        let status = match self {
            Refusal::Host(_) => StatusCode::MISDIRECTED_REQUEST,
            Refusal::NoHost => StatusCode::BAD_REQUEST,
            Refusal::NoToken => StatusCode::UNAUTHORIZED,
            Refusal::WrongToken | Refusal::ReadOnly => StatusCode::FORBIDDEN,
            Refusal::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut reply = failure(status, self);
        if status == StatusCode::UNAUTHORIZED {
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        reply
    }
}

/// The rules of one address.
#[derive(Clone, Debug)]
pub struct Access {
    control: Control,
}

impl Access {
    /// Checks the files of the tokens; a missing one gets a new token.
    ///
    /// # Errors
    /// A file that cannot be used: others can read it, or it holds no token.
    pub fn prepare(control: &Control) -> Result<Access, AccessError> {
        for path in control.token_file.iter().chain(&control.read_token_file) {
            if !path.exists() {
                make_token(path).map_err(|source| AccessError::Make { path: path.clone(), source })?;
                log::info!("wrote a new API token to {}", path.display());
            }
            token(path)?;
        }
        Ok(Access { control: control.clone() })
    }

    pub(super) fn has_page(&self) -> bool {
        self.control.page
    }

    /// Whether a request with these headers may have the page: it holds nothing of the deployment.
    pub(super) fn check_page(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.check_host(headers)
    }

    /// Whether a request with these headers may have what needs these rights.
    pub(super) fn check(&self, headers: &HeaderMap, rights: Rights) -> Result<(), Refusal> {
        self.check_host(headers)?;
        let Some(given) = bearer(headers).filter(|_| rights != Rights::Probe) else {
            return match rights {
                Rights::Probe => Ok(()),
                Rights::Look if self.control.is_loopback() => Ok(()),
                Rights::Change if self.control.token_file.is_none() => Err(Refusal::ReadOnly),
                Rights::Look | Rights::Read | Rights::Change => Err(Refusal::NoToken),
            };
        };
        // The files are read each time, so that a token can be replaced.
        if self.is_token(given, self.control.token_file.as_deref())? {
            return Ok(());
        }
        let may_read = self.is_token(given, self.control.read_token_file.as_deref())?;
        if may_read && rights != Rights::Change { Ok(()) } else { Err(Refusal::WrongToken) }
    }

    fn is_token(&self, given: &[u8], path: Option<&Path>) -> Result<bool, Refusal> {
        let Some(path) = path else { return Ok(false) };
        let token = token(path).map_err(|error| Refusal::Unreadable(error.to_string()))?;
        Ok(is_same(given, token.as_bytes()))
    }

    /// A web page of somebody else can have its own name mean this address, but not an IP address or localhost.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = headers.get(HOST).ok_or(Refusal::NoHost)?;
        let host = String::from_utf8_lossy(host.as_bytes());
        let bad = || Refusal::Host(host.chars().take(100).collect());
        if headers.get_all(HOST).iter().count() != 1 {
            return Err(bad());
        }
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(bad)?.0,
            None => host.split_once(':').map_or(&*host, |(name, _)| name),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let known = name == "localhost" || name.parse::<IpAddr>().is_ok() || self.control.hosts.contains(&name);
        if known { Ok(()) } else { Err(bad()) }
    }
}

/// The token of a request.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Compares without telling by the time how much was right.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len() && given.iter().zip(token).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// The token in a file that nobody else can read.
fn token(path: &Path) -> Result<String, AccessError> {
    let read_error = |source| AccessError::Read { path: path.to_owned(), source };
    let file = read::open(path).map_err(read_error)?;
    let found = file.metadata().map_err(read_error)?;
    if !found.is_file() {
        return Err(AccessError::NoFile(path.to_owned()));
    }
    if found.uid() != 0 && found.uid() != user::own_uid() {
        return Err(AccessError::Foreign { path: path.to_owned(), owner: found.uid() });
    }
    if !is_private(found.uid() == user::own_uid(), found.mode()) {
        return Err(AccessError::Open(path.to_owned()));
    }
    let mut text = String::new();
    file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text).map_err(read_error)?;
    let token = text.trim();
    if token.len() < TOKEN_CHARS_MIN { Err(AccessError::Short(path.to_owned())) } else { Ok(token.to_owned()) }
}

/// Whether the rights of a file keep its content to those who shall have it. Of a file of root, root may let a group read, as
/// Kubernetes does for the containers that get a secret.
fn is_private(is_own: bool, mode: u32) -> bool {
    mode & if is_own { 0o077 } else { 0o037 } == 0
}

fn make_token(path: &Path) -> io::Result<()> {
    let mut random = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A folder for files of tokens, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("clusterd-access-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn control(listen: &str, folder: &Folder) -> Control {
        Control {
            listen: listen.parse().unwrap(),
            token_file: Some(folder.0.join("all")),
            read_token_file: Some(folder.0.join("read")),
            tls: None,
            hosts: vec!["metrics.internal".to_owned()],
            page: false,
        }
    }

    fn headers(host: &str, token: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        }
        headers
    }

    #[test]
    fn each_token_allows_what_it_is_for_and_reading_is_free_on_loopback_alone() {
        let folder = Folder::new("rights");
        let near = Access::prepare(&control("127.0.0.1:1", &folder)).unwrap();
        let far = Access::prepare(&control("0.0.0.0:1", &folder)).unwrap();
        let text = |name| fs::read_to_string(folder.0.join(name)).unwrap().trim().to_owned();
        let (all, read) = (text("all"), text("read"));
        assert_eq!(all.len(), 2 * TOKEN_BYTES);
        assert_ne!(all, read);
        let check = |access: &Access, token: Option<&str>, rights| access.check(&headers("127.0.0.1:1", token), rights);
        for access in [&near, &far] {
            for rights in [Rights::Look, Rights::Read, Rights::Change] {
                assert_eq!(check(access, Some(&all), rights), Ok(()));
                let wrong = format!("{}x", &all[1..]);
                assert_eq!(check(access, Some(&wrong), rights), Err(Refusal::WrongToken));
                assert_eq!(check(access, Some(""), rights), Err(Refusal::WrongToken));
            }
            assert_eq!(check(access, Some(&read), Rights::Read), Ok(()));
            assert_eq!(check(access, Some(&read), Rights::Change), Err(Refusal::WrongToken));
            assert_eq!(check(access, None, Rights::Read), Err(Refusal::NoToken));
            assert_eq!(check(access, None, Rights::Change), Err(Refusal::NoToken));
        }
        for token in [None, Some("wrong")] {
            assert_eq!(check(&far, token, Rights::Probe), Ok(()));
        }
        assert!(far.check(&headers("evil.example", None), Rights::Probe).is_err());
        assert_eq!(check(&near, None, Rights::Look), Ok(()));
        assert_eq!(check(&far, None, Rights::Look), Err(Refusal::NoToken));
        let none = Control { token_file: None, read_token_file: None, ..control("127.0.0.1:1", &folder) };
        let none = Access::prepare(&none).unwrap();
        assert_eq!(check(&none, None, Rights::Change), Err(Refusal::ReadOnly));
        assert_eq!(check(&none, Some(&all), Rights::Change), Err(Refusal::WrongToken));
        // Another token in the file is valid from then on.
        fs::write(folder.0.join("all"), "another-token-of-somebody\n").unwrap();
        assert_eq!(check(&near, Some(&all), Rights::Change), Err(Refusal::WrongToken));
        assert_eq!(check(&near, Some("another-token-of-somebody"), Rights::Change), Ok(()));
    }

    #[test]
    fn only_names_that_cannot_be_rebound_are_answered() {
        let folder = Folder::new("hosts");
        let access = Access::prepare(&control("127.0.0.1:1", &folder)).unwrap();
        for good in ["127.0.0.1:9615", "[::1]:9615", "localhost", "LOCALHOST:1", "10.1.2.3", "Metrics.Internal:80"] {
            assert_eq!(access.check(&headers(good, None), Rights::Look), Ok(()), "{good}");
        }
        for bad in ["evil.example:9615", "localhost.evil.example", "127.0.0.1.nip.io:1", "", "[::1", "metrics", "@"] {
            assert!(matches!(access.check(&headers(bad, None), Rights::Look), Err(Refusal::Host(_))), "{bad}");
        }
        assert_eq!(access.check(&HeaderMap::new(), Rights::Look), Err(Refusal::NoHost));
        let mut twice = headers("127.0.0.1", None);
        twice.append(HOST, HeaderValue::from_static("localhost"));
        assert!(access.check(&twice, Rights::Look).is_err());
    }

    #[test]
    fn root_may_let_a_group_read_a_token_and_nobody_else_may() {
        for (is_own, mode, private) in [
            (true, 0o100_600, true),
            (true, 0o100_400, true),
            (true, 0o100_640, false),
            (false, 0o100_440, true),
            (false, 0o100_640, true),
            (false, 0o100_660, false),
            (false, 0o100_444, false),
        ] {
            assert_eq!(is_private(is_own, mode), private, "{is_own} {mode:o}");
        }
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let folder = Folder::new("files");
        let control = control("127.0.0.1:1", &folder);
        Access::prepare(&control).unwrap();
        let file = folder.0.join("all");
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        mode(0o640);
        assert!(matches!(Access::prepare(&control), Err(AccessError::Open(_))));
        mode(0o600);
        fs::write(&file, "short").unwrap();
        assert!(matches!(Access::prepare(&control), Err(AccessError::Short(_))));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(matches!(Access::prepare(&control), Err(AccessError::NoFile(_))));
        // A pipe that nobody writes to makes nobody wait.
        fs::remove_dir(&file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
        assert!(matches!(Access::prepare(&control), Err(AccessError::NoFile(_))));
    }
}
