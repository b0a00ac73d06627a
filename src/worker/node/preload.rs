//! The preload: a script that a worker loads before its app, and that lets go of connections between two requests
//! (`preload.cjs`). Here is its text, and how a worker is made to load it; the master puts it in a file.
use crate::config::inspect;

/// The script.
pub const SCRIPT: &str = include_str!("preload.cjs");

/// Flags with which Node runs no script before the app, or none that is not in the snapshot.
const WITHOUT: [&str; 2] = ["--build-snapshot", "--snapshot-blob"];

/// Flags with which Node reads only files that it is told of.
const PERMISSION: [&str; 2] = ["--permission", "--experimental-permission"];

/// `NODE_OPTIONS` with which a worker of this command loads the script at `path`, before anything else. The script takes
/// its words out again, and expects them exactly in this form. `None`: the worker runs without it.
pub fn options(path: &str, command: &[String], options: &str) -> Option<String> {
    let named = |flags: &[&str]| {
        let is_one = |word: &str| flags.contains(&word.split_once('=').map_or(word, |(flag, _)| flag));
        inspect::node_flags(command).iter().any(|word| is_one(word)) || options.split_whitespace().any(is_one)
    };
    if named(&WITHOUT) || path.chars().any(char::is_control) {
        return None;
    }
    let path = path.replace('\\', "\\\\").replace('"', "\\\"");
    let mut all = format!("--require=\"{path}\"");
    if named(&PERMISSION) {
        all.push_str(&format!(" --allow-fs-read=\"{path}\""));
    }
    if !options.is_empty() {
        all.push(' ');
        all.push_str(options);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    fn of(command: &[&str], options: &str) -> Option<String> {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        super::options("/run/a b.cjs", &command, options)
    }

    #[test]
    fn the_script_comes_first_and_the_users_options_stay() {
        assert_eq!(of(&["node", "app.js"], "").as_deref(), Some("--require=\"/run/a b.cjs\""));
        assert_eq!(
            of(&["node", "app.js"], "--inspect -r ./x").as_deref(),
            Some("--require=\"/run/a b.cjs\" --inspect -r ./x")
        );
    }

    #[test]
    fn a_worker_that_may_read_few_files_may_read_the_script() {
        let wanted = Some("--require=\"/run/a b.cjs\" --allow-fs-read=\"/run/a b.cjs\"");
        assert_eq!(of(&["node", "--permission", "app.js"], "").as_deref(), wanted);
        assert_eq!(of(&["node", "app.js", "--permission"], "").as_deref(), Some("--require=\"/run/a b.cjs\""));
        assert!(of(&["node", "app.js"], "--permission").is_some_and(|all| all.ends_with(" --permission")));
    }

    #[test]
    fn a_snapshot_loads_no_script() {
        assert_eq!(of(&["node", "--snapshot-blob", "a.blob", "app.js"], ""), None);
        assert_eq!(of(&["node", "--build-snapshot", "app.js"], ""), None);
        assert_eq!(super::options("/run/\n.cjs", &[], ""), None);
    }
}
