//! The variables that the processes of an app start from: those of clusterd (or of the start in the background), as far as
//! they are the app's user's to have, and what the configuration adds.
use crate::config;
use crate::os::user::Account;
use crate::worker;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The service manager's word to clusterd itself.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// The PATH where nothing is left of the one that there was.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// What `clean_env` leaves: the language, the time zone, the terminal.
const KEPT: [&str; 4] = ["LANG", "PATH", "TERM", "TZ"];
/// By which Node (22.1 and later) keeps compiled code, and where in a home that is.
const COMPILE_CACHE_VARIABLE: &str = "NODE_COMPILE_CACHE";
const COMPILE_CACHE: &str = ".cache/clusterd/node";
/// What belongs to the session of whoever started clusterd.
const OF_A_SESSION: [&str; 9] =
    ["BASH_ENV", "DBUS_SESSION_BUS_ADDRESS", "ENV", "GNUPGHOME", "KRB5CCNAME", "MAIL", "OLDPWD", "PWD", "XAUTHORITY"];
const OF_A_SESSION_FROM: [&str; 3] = ["SSH_", "SUDO_", "XDG_"];

/// The variables of an app's processes. `account`: whose processes they are, where that is not who we are.
pub(super) fn base_environment(app: &config::App, account: Option<&Account>) -> BTreeMap<OsString, OsString> {
    let all: BTreeMap<OsString, OsString> = match &app.base_env {
        Some(base) => base.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        None => std::env::vars_os().collect(),
    };
    let mut env = inherited(all, app.clean_env, account);
    env.retain(|name, _| !app.leaves_out(&name.to_string_lossy()));
    env.extend(app.env.iter().map(|(name, value)| (name.into(), value.into())));
    if app.compile_cache {
        cache_compiled_code(&mut env);
    }
    env
}

/// Names the folder of compiled code, which Node makes: in the home of the workers' user, since nobody else may write what they run.
fn cache_compiled_code(env: &mut BTreeMap<OsString, OsString>) {
    let home = env.get(OsStr::new("HOME")).map(Path::new).filter(|home| home.is_absolute());
    if let Some(folder) = home.map(|home| home.join(COMPILE_CACHE)) {
        env.entry(COMPILE_CACHE_VARIABLE.into()).or_insert(folder.into());
    }
}

/// What is left of ours.
fn inherited(
    mut env: BTreeMap<OsString, OsString>,
    clean: bool,
    account: Option<&Account>,
) -> BTreeMap<OsString, OsString> {
    env.retain(|name, _| name != WATCHDOG && !worker::is_variable(name));
    let home = env.get(OsStr::new("HOME")).cloned();
    if clean {
        env.retain(|name, _| KEPT.iter().any(|kept| name == kept) || name.to_string_lossy().starts_with("LC_"));
    }
    let Some(account) = account else { return env };
    env.retain(|name, _| {
        let name = name.to_string_lossy();
        !OF_A_SESSION.contains(&name.as_ref()) && !OF_A_SESSION_FROM.iter().any(|first| name.starts_with(first))
    });
    if let Some(path) = env.get_mut(OsStr::new("PATH")) {
        *path = path_for_others(path, home.as_deref());
    }
    let name = account.name.as_deref();
    for (variable, value) in [
        ("HOME", Some(account.home.as_os_str())),
        ("USER", name.map(OsStr::new)),
        ("LOGNAME", name.map(OsStr::new)),
        ("SHELL", account.shell.as_deref().map(Path::as_os_str)),
    ] {
        match value {
            Some(value) => env.insert(variable.into(), value.into()),
            None => env.remove(OsStr::new(variable)),
        };
    }
    env
}

/// A PATH without what is in our own home, and without what depends on a folder.
fn path_for_others(path: &OsStr, home: Option<&OsStr>) -> OsString {
    let home = home.map(Path::new).filter(|home| home.is_absolute() && home.parent().is_some());
    let shared = std::env::split_paths(path)
        .filter(|folder| folder.is_absolute() && !home.is_some_and(|home| folder.starts_with(home)));
    match std::env::join_paths(shared) {
        Ok(path) if !path.is_empty() => path,
        Ok(_) | Err(_) => PATH.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn of_root() -> BTreeMap<OsString, OsString> {
        env(&[
            ("HOME", "/root"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("SHELL", "/bin/zsh"),
            ("PATH", "/root/.local/bin:bin:/usr/bin::/bin"),
            ("SUDO_COMMAND", "x"),
            ("SSH_AUTH_SOCK", "/tmp/x"),
            ("LANG", "C.UTF-8"),
            ("LC_TIME", "de_DE"),
            ("DATABASE_URL", "x"),
            ("WATCHDOG_USEC", "1"),
            ("LISTEN_FDS", "1"),
        ])
    }

    #[test]
    fn another_user_gets_nothing_of_our_session() {
        let account = Account { name: Some("web".into()), home: "/srv/web".into(), shell: Some("/bin/sh".into()) };
        let wanted = env(&[
            ("HOME", "/srv/web"),
            ("USER", "web"),
            ("LOGNAME", "web"),
            ("SHELL", "/bin/sh"),
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("LC_TIME", "de_DE"),
            ("DATABASE_URL", "x"),
        ]);
        assert_eq!(inherited(of_root(), false, Some(&account)), wanted);
        let nobody = Account { name: None, home: "/".into(), shell: None };
        let clean = env(&[("HOME", "/"), ("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("LC_TIME", "de_DE")]);
        assert_eq!(inherited(of_root(), true, Some(&nobody)), clean);
    }

    #[test]
    fn who_we_are_gets_everything_unless_it_is_to_be_clean() {
        let mut all = of_root();
        all.remove(OsStr::new("WATCHDOG_USEC"));
        all.remove(OsStr::new("LISTEN_FDS"));
        assert_eq!(inherited(of_root(), false, None), all);
        let kept = ["LANG", "LC_TIME", "PATH"].map(OsString::from);
        assert!(inherited(of_root(), true, None).keys().eq(&kept));
    }

    #[test]
    fn compiled_code_is_kept_in_the_home_of_the_workers_user() {
        let of = |pairs: &[(&str, &str)]| {
            let mut env = env(pairs);
            cache_compiled_code(&mut env);
            env.get(OsStr::new("NODE_COMPILE_CACHE")).cloned()
        };
        assert_eq!(of(&[("HOME", "/srv/web")]), Some("/srv/web/.cache/clusterd/node".into()));
        assert_eq!(of(&[("HOME", "/srv/web"), ("NODE_COMPILE_CACHE", "/tmp/x")]), Some("/tmp/x".into()));
        assert_eq!((of(&[]), of(&[("HOME", "relative")])), (None, None));
    }

    #[test]
    fn a_path_of_which_nothing_is_left_is_the_systems() {
        assert_eq!(path_for_others(OsStr::new("/root/bin:."), Some(OsStr::new("/root"))), PATH);
        assert_eq!(path_for_others(OsStr::new("/usr/bin:/opt/x"), Some(OsStr::new("/"))), "/usr/bin:/opt/x");
    }
}
