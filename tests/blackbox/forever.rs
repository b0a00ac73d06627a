//! The table of forever's options in `docs/migrating.md`, row by row.
use super::apps::project;
use super::background::Home;
use super::cluster::{Cluster, Folder, alive, wait_end, wait_until};
use std::fs;

/// Runs a shell line with these options until it is given up; the exit code, the number of runs, and what was said.
fn given_up(options: &[&str], line: &str) -> (i32, usize, String) {
    let mut args = vec!["-w", "1", "--protocol", "none"];
    args.extend(options);
    args.extend(["--", "sh", "-c", line]);
    let mut cluster = Cluster::start_in(Folder::new(), &args, |_| {});
    let code = cluster.wait_exit();
    (code, cluster.stdout().iter().filter(|line| *line == "run").count(), cluster.stderr().join("\n"))
}

#[test]
fn max_is_a_number_of_runs_however_they_end() {
    let (code, runs, said) = given_up(&["--max-runs", "3"], "echo run; exit 0");
    assert_eq!((code, runs), (0, 3), "{said}");
    assert!(said.contains("not restarted: max_runs is 3"), "{said}");
    let (code, runs, said) = given_up(&["--max-runs", "2"], "echo run; exit 7");
    assert_eq!((code, runs), (7, 2), "{said}");
}

#[test]
fn min_uptime_alone_gives_up_at_the_first_early_end() {
    let (code, runs, said) = given_up(&["--min-uptime", "1h", "--max-restarts", "1"], "echo run; exit 0");
    assert_eq!((code, runs), (1, 1), "{said}");
    // One that lived long enough is started again at once.
    let long = ["--ready", "1ms", "--min-uptime", "1ms", "--max-restarts", "1", "--max-runs", "4"];
    let (code, runs, said) = given_up(&long, "echo run; sleep 0.2");
    assert_eq!((code, runs), (0, 4), "{said}");
    assert_eq!(said.matches("replaced in").count(), 3, "{said}");
}

#[test]
fn spin_sleep_time_is_the_same_wait_each_time_and_no_end() {
    let options = ["--min-uptime", "1h", "--spin-sleep", "30ms", "--max-restarts", "never", "--max-runs", "20"];
    let (code, runs, said) = given_up(&options, "echo run; exit 1");
    assert_eq!((code, runs), (1, 20), "{said}");
    assert_eq!(said.matches("; next try in 30 ms").count(), 19, "{said}");
}

#[test]
fn the_keys_of_the_file_say_the_same() {
    let folder = Folder::new();
    folder.write(
        "c.toml",
        "[[app]]\ncommand = [\"sh\", \"-c\", \"echo run; exit 1\"]\nworkers = 1\n[app.restart]\nmin_uptime = \"1h\"\n\
         backoff_first = \"30ms\"\nbackoff_min = \"30ms\"\nbackoff_max = \"30ms\"\nmax_restarts = \"never\"\nmax_runs = 5\n",
    );
    let mut cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    assert_eq!(cluster.wait_exit(), 1);
    assert_eq!((cluster.stdout().len(), cluster.stderr().join("\n").matches("next try in 30 ms").count()), (5, 4));
}

#[test]
fn a_shell_loop_with_its_sleep_and_its_errors_apart() {
    let line = "echo run; echo oops >&2; sleep 0.1; exit 1";
    let args = ["-w", "1", "--ready", "1ms", "--min-uptime", "1ms", "--restart-delay", "1s", "--", "sh", "-c", line];
    let cluster = Cluster::start(&args);
    wait_until("a second run", || cluster.stdout().len() == 2);
    // What goes into the file by 2>>.
    wait_until("its words", || cluster.stderr().iter().filter(|line| *line == "oops").count() >= 2);
    assert!(cluster.wait_line("exited with code 1").ends_with("; next try in 1.0 s"));
    assert!(cluster.stdout().iter().all(|line| line == "run"));
    cluster.stop();
}

#[test]
fn command_source_folder_working_folder_and_name() {
    let home = Home::new();
    let script = home.folder.write("src/work.txt", "pwd > \"$OUT\"; echo $0 >> \"$OUT\"; sleep 1000");
    fs::create_dir_all(home.folder.path().join("there")).unwrap();
    let out = home.folder.path().join("out");
    let env = format!("OUT={}", out.display());
    let args = ["start", &script, "--interpreter", "sh", "--cwd", "there", "-n", "mine", "-i", "1", "-e", &env];
    home.ok(&[&args[..], &["--ready", "1ms"]].concat());
    let there = fs::canonicalize(home.folder.path().join("there")).unwrap();
    let wanted = format!("{}\n{script}\n", there.display());
    wait_until("its words", || fs::read_to_string(&out).is_ok_and(|said| said == wanted));
    // list, restart, stop, stopall, by name or number.
    let id = home.app("mine").id.unwrap().to_string();
    let pid = home.app("mine").workers[0].pid.unwrap();
    home.ok(&["restart", &id]);
    assert!(!alive(pid));
    home.ok(&["stop", "mine"]);
    home.ok(&["restart", "all"]);
    assert_eq!(home.app("mine").status, "running");
    home.ok(&["stop", "all"]);
    assert_eq!(home.app("mine").status, "stopped");
}

#[test]
fn kill_tree_what_a_worker_has_started_ends_with_it() {
    let home = Home::new();
    let file = home.folder.path().join("child");
    let line = format!("sleep 1000 & echo $! > {}; wait", file.display());
    home.ok(&["start", "-w", "1", "-n", "tree", "--ready", "1ms", "--", "sh", "-c", &line]);
    let child = || fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    wait_until("the child", || child().is_some());
    home.ok(&["stop", "tree"]);
    wait_end(child().unwrap());
}

#[test]
fn pids_are_in_the_list() {
    let home = Home::new();
    home.ok(&["start", "-w", "1", "-n", "job", "--ready", "1ms", "--", "sleep", "1000"]);
    assert!(alive(home.app("job").workers[0].pid.unwrap()));
}

#[test]
fn every_row_of_the_table_names_something_that_is_there() {
    let text = fs::read_to_string(project("docs/migrating.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("From forever")).unwrap();
    let help = super::cluster::run(&Folder::new(), &["start", "--help"]).1;
    let options =
        section.split('`').skip(1).step_by(2).filter(|code| code.starts_with("clusterd") || code.starts_with("--"));
    let ours = |word: &&str| word.starts_with("--") && word.len() > 2;
    let rows = section.lines().filter(|line| line.starts_with('|')).count();
    assert!(rows > 15, "{rows}");
    let right = section.lines().filter_map(|line| line.strip_prefix('|')?.split('|').nth(1));
    for row in right {
        for word in row.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).filter(ours) {
            let word = word.trim_end_matches([',', ';']);
            assert!(help.contains(word) || ["--json", "--lines", "--now"].contains(&word), "{word}: {row}");
        }
    }
    assert!(options.count() > 5);
}
