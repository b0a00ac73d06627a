//! Log files from outside: every line once whatever dies, rotation, full disks, and what a line looks like.
use super::apps::{hello, misbehave};
use super::client::get;
use super::cluster::{Cluster, Folder, kill, run, wait_until};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A deployment of one app with this command and these keys.
pub(crate) fn deployment(folder: &Folder, command: &str, workers: u32, keys: &str) {
    let text = format!(
        "[[app]]\nname = \"web\"\ncommand = {command}\nworkers = {workers}\nprotocol = \"none\"\nready = \"1ms\"\n{keys}\n"
    );
    folder.write("c.toml", &text);
}

/// The same, running.
pub(crate) fn running(command: &str, workers: u32, keys: &str) -> Cluster {
    let folder = Folder::new();
    deployment(&folder, command, workers, keys);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(workers);
    cluster
}

/// A command for a configuration that runs this shell script.
pub(crate) fn shell(script: &str) -> String {
    format!("[\"sh\", \"-c\", '''{script}''']")
}

pub(crate) fn read(cluster: &Cluster, name: &str) -> String {
    fs::read_to_string(cluster.folder.path().join(name)).unwrap_or_default()
}

/// A log file with everything that was moved aside of it, oldest first.
fn with_rotated(path: &Path) -> String {
    let mut files: Vec<PathBuf> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    let packed = |file: &Path| PathBuf::from(format!("{}.gz", file.display()));
    // A compression that the end broke off leaves what it began with, and perhaps its result.
    files.retain(|file| file != path && file.extension().is_none_or(|e| e != "tmp") && !packed(file).exists());
    files.sort();
    files.push(path.to_owned());
    let mut text = String::new();
    for file in files {
        let read = match file.extension() {
            Some(ending) if ending == "gz" => {
                flate2::read::GzDecoder::new(File::open(&file).unwrap()).read_to_string(&mut text)
            }
            _ => File::open(&file).unwrap().read_to_string(&mut text),
        };
        read.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    }
    text
}

/// Numbered lines of `lines.py`: each worker's are there from the first to the last that it knows to have printed,
/// once, whole, in order. How many lines in all.
fn check_lines(text: &str, progress: &Path, lines: usize) -> usize {
    let mut by_pid: BTreeMap<&str, usize> = BTreeMap::new();
    let mut bytes: BTreeMap<&str, usize> = BTreeMap::new();
    // A worker that was killed in the middle of a line leaves a piece, which must be its last word. It may be a piece of
    // the pid.
    let mut over: Vec<&str> = Vec::new();
    let mut pieces: Vec<&str> = Vec::new();
    for line in text.lines() {
        let Some((pid, _)) = line.split_once(' ') else {
            pieces.push(line);
            continue;
        };
        assert!(!over.contains(&pid), "{pid} continues after a piece of a line");
        let next = by_pid.entry(pid).or_default();
        let wanted = format!("{pid} {next} {}", "x".repeat(*next % 60));
        if line == wanted {
            *next += 1;
            *bytes.entry(pid).or_default() += line.len() + 1;
        } else {
            assert!(wanted.starts_with(line), "{line:?} instead of {wanted:?}");
            over.push(pid);
            *bytes.entry(pid).or_default() += line.len();
        }
    }
    let entries = fs::read_dir(progress).unwrap().map(|entry| entry.unwrap().path());
    let mut missing: Vec<(usize, String)> = entries
        .map(|path| {
            let pid = path.file_name().unwrap().to_str().unwrap().to_owned();
            let printed: usize = fs::read_to_string(&path).unwrap().parse().unwrap_or(0);
            (printed.saturating_sub(bytes.get(&*pid).copied().unwrap_or(0)), pid)
        })
        .collect();
    // Pids begin alike, so a short piece of a pid may be anybody's: who misses most takes the longest piece that fits.
    missing.sort_by(|a, b| b.cmp(a));
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    for (missing, pid) in missing {
        if missing > 0 {
            let piece = pieces.iter().position(|piece| pid.starts_with(piece)).map_or("", |n| pieces.remove(n));
            assert!(piece.len() >= missing, "{pid} printed {missing} bytes more than are there, beside {piece:?}");
        }
        assert!(by_pid.get(&*pid).is_none_or(|n| *n <= lines));
    }
    // A piece that was printed just before the kill may not have been counted.
    pieces.retain(|piece| piece.is_empty() || !by_pid.keys().any(|pid| pid.starts_with(piece)));
    assert!(pieces.is_empty(), "{pieces:?}");
    by_pid.values().sum()
}

/// How many bytes all workers together say they have printed.
fn printed(progress: &Path) -> usize {
    let Ok(entries) = fs::read_dir(progress) else { return 0 };
    let number = |path: PathBuf| fs::read_to_string(path).ok().and_then(|text| text.parse::<usize>().ok());
    entries.flatten().filter_map(|entry| number(entry.path())).sum()
}

/// Four workers print a million lines while workers and masters are killed; the text of the log.
fn a_million_lines(log: &str, kills: u32) -> (Cluster, PathBuf) {
    let folder = Folder::new();
    let progress = folder.path().join("progress");
    let env = format!("env = {{ LINES = \"250000\", PROGRESS = \"{}\" }}\n", progress.display());
    let command = format!("[\"python3\", \"{}\"]", misbehave("lines.py"));
    deployment(&folder, &command, 4, &format!("{env}{log}"));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let mut seen = 0;
    for n in 0..kills {
        // Some more was printed: what is killed now is in the middle of it.
        wait_until("more lines", || printed(&progress) > seen + 200_000);
        let view = cluster.wait_view("the app", |_| true);
        kill(view.master_pid, "KILL");
        if n % 2 == 1 {
            let pids: Vec<i32> = view.apps[0].workers.iter().filter_map(|worker| worker.pid).collect();
            // It may have been replaced since.
            let _ =
                std::process::Command::new("kill").args(["-KILL", &pids[n as usize % pids.len()].to_string()]).status();
        }
        cluster.wait_view("the next master", |view| view.master_restarts > n);
        seen = printed(&progress);
    }
    // Whoever has printed everything waits then, and so do we.
    let size = |pid: i32| (0..250_000).map(|n| pid.to_string().len() + n.to_string().len() + 3 + n % 60).sum::<usize>();
    cluster.wait_view("all lines printed", |view| {
        let pids: Vec<i32> = view.apps[0].workers.iter().filter_map(|worker| worker.pid).collect();
        let done = |pid: &i32| {
            fs::read_to_string(progress.join(pid.to_string())).is_ok_and(|text| text.parse() == Ok(size(*pid)))
        };
        pids.len() == 4 && pids.iter().all(done)
    });
    (cluster, progress)
}

#[test]
#[ignore = "a long load"]
fn a_million_lines_are_there_once_though_workers_and_masters_are_killed() {
    let _turn = super::common::turns::turn();
    let (cluster, progress) = a_million_lines("log.file = \"logs/all.log\"", 6);
    let path = cluster.folder.path().join("logs/all.log");
    let folder = fs::canonicalize(cluster.folder.path()).unwrap();
    cluster.signal("TERM");
    let mut cluster = cluster;
    assert_eq!(cluster.wait_exit(), 0);
    assert!(folder.exists());
    let lines = check_lines(&fs::read_to_string(path).unwrap(), &progress, 250_000);
    assert!(lines >= 1_000_000, "{lines} lines");
}

#[test]
#[ignore = "a long load"]
fn rotation_with_gzip_under_load_and_kills_loses_no_line() {
    let _turn = super::common::turns::turn();
    let log = "log = { file = \"logs/all.log\", max_size = \"1M\", keep = 1000, compress = true }";
    let (mut cluster, progress) = a_million_lines(log, 3);
    let path = cluster.folder.path().join("logs/all.log");
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    let lines = check_lines(&with_rotated(&path), &progress, 250_000);
    assert!(lines >= 1_000_000, "{lines} lines");
    let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert!(files > 40, "{files} files");
    assert!(fs::metadata(&path).unwrap().len() <= 1 << 20);
}

#[test]
fn a_worker_that_crashes_in_the_middle_of_a_line_leaves_it_whole_for_others() {
    let script = shell("echo whole $CLUSTERD_SLOT; printf 'half of %s' $CLUSTERD_SLOT; sleep 1.1; kill -9 $$");
    let mut cluster = running(&script, 2, "log = { out = \"out.log\", err = \"NULL\", time = \"[at] YYYY\" }");
    cluster.wait_view("two replacements", |view| view.apps[0].restarts >= 2);
    cluster.signal("QUIT");
    assert_eq!(cluster.wait_exit(), 0);
    let text = read(&cluster, "out.log");
    for slot in 0..2 {
        for word in ["whole", "half of"] {
            let line = format!(": {word} {slot}");
            assert!(
                text.lines().any(|l| l.starts_with("at 20") && l.ends_with(&line) && l.len() == 7 + line.len()),
                "{text}"
            );
        }
    }
    assert!(text.ends_with('\n'));
}

#[test]
fn each_worker_has_its_file_json_says_what_a_line_is_and_null_is_nothing() {
    let script = shell("echo out \\\\\"$CLUSTERD_SLOT\\\\\"; echo err >&2; sleep 1000");
    let cluster =
        running(&script, 2, "log = { out = \"l/web.log\", err = \"NULL\", per_worker = true, format = \"json\" }");
    wait_until("two lines", || (0..2).all(|slot| !read(&cluster, &format!("l/web-{slot}.log")).is_empty()));
    let workers = cluster.wait_ready(2);
    for slot in 0..2_u32 {
        let text = read(&cluster, &format!("l/web-{slot}.log"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(line["message"].as_str().unwrap().starts_with("out "), "{text}");
        assert_eq!((&line["type"], &line["app_name"]), (&"out".into(), &"web".into()));
        assert_eq!((&line["process_id"], &line["slot"], &line["generation"]), (&slot.into(), &slot.into(), &1.into()));
        assert_eq!(line["pid"], workers[slot as usize].pid.unwrap());
        assert!(line["timestamp"].as_str().unwrap().starts_with("20"), "{text}");
    }
    assert_eq!(fs::read_dir(cluster.folder.path().join("l")).unwrap().count(), 2);
    let log = cluster.app().log;
    assert!(log.per_worker && log.format == "json" && log.err.as_deref() == Some("NULL"), "{log:?}");
    assert!(!cluster.stderr().iter().any(|line| line == "err"), "NULL is not our own stderr");
    cluster.stop();
}

#[test]
fn a_file_that_was_moved_away_is_made_again_at_sigusr1_and_flush_empties_it() {
    let script = shell("while read line; do echo $line; done < go; sleep 1000");
    let folder = Folder::new();
    let go = folder.path().join("go");
    assert!(std::process::Command::new("mkfifo").arg(&go).status().unwrap().success());
    deployment(&folder, &script, 1, "log.file = \"logs/web.log\"");
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let mut say = File::options().write(true).open(go).unwrap();
    let mut say = |word: &str| std::io::Write::write_all(&mut say, format!("{word}\n").as_bytes()).unwrap();
    say("one");
    wait_until("one", || read(&cluster, "logs/web.log") == "one\n");
    let path = |name: &str| cluster.folder.path().join(name);
    fs::rename(path("logs/web.log"), path("logs/moved")).unwrap();
    say("two");
    wait_until("two, in the file that was moved", || read(&cluster, "logs/moved") == "one\ntwo\n");
    cluster.signal("USR1");
    cluster.wait_line("1 log file open again");
    say("three");
    wait_until("three, in a new file", || read(&cluster, "logs/web.log") == "three\n");
    fs::rename(path("logs/web.log"), path("logs/moved-2")).unwrap();
    let opened = cluster.cli(&["reloadLogs"]);
    assert!(opened.status.success(), "{opened:?}");
    say("four");
    wait_until("four", || read(&cluster, "logs/web.log") == "four\n");
    let emptied = cluster.cli(&["flush", "web"]);
    assert!(emptied.status.success(), "{emptied:?}");
    assert_eq!(read(&cluster, "logs/web.log"), "");
    // A master that takes over continues where the file ends.
    say("five");
    wait_until("five", || read(&cluster, "logs/web.log") == "five\n");
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    say("six");
    wait_until("six", || read(&cluster, "logs/web.log") == "five\nsix\n");
    cluster.stop();
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_never_service() {
    let folder = Folder::new();
    let web =
        format!("name = \"web\"\ncommand = [\"node\", \"{}\"]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n", hello());
    let loud = "name = \"loud\"\nworkers = 1\nprotocol = \"none\"\nready = \"1ms\"\n\
                command = [\"sh\", \"-c\", \"while :; do echo a line; sleep 0.001; done\"]\n";
    let text = "console.log('x'.repeat(1000)); require('./web.js')";
    folder.write("loud.js", &text.replace("./web.js", &hello()));
    let web = web.replace(&hello(), "loud.js");
    folder.write("c.toml", &format!("[[app]]\n{web}log.file = \"/dev/full\"\n[[app]]\n{loud}log.file = \"full\"\n"));
    // A pipe that nobody reads is a disk that is full, and not any more once it is read.
    let path = folder.path().join("full");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut disk = File::options().read(true).write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut disk, &[b'\n'; 65_536]).unwrap();
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let told = cluster.wait_line("cannot write ");
    assert!(told.contains("lines are dropped and counted"), "{told}");
    cluster.wait_line("cannot write /dev/full: No space left on device");
    let view = cluster.wait_view("service and counted lines", |view| {
        view.apps[0].workers_ready == 1 && view.apps[1].log_lines_dropped > 20
    });
    let before = view.apps[1].log_lines_dropped;
    kill(view.master_pid, "KILL");
    let view = cluster.wait_view("the next master, counting on", |view| {
        view.master_restarts == 1 && view.apps[1].log_lines_dropped > before && view.apps[0].workers_ready == 1
    });
    assert_eq!(view.apps[0].log_lines_dropped, 1);
    // What the first master lost in its last moment is counted too: the next one has lost some when it says so.
    let full = |line: &&String| line.contains("/full: Resource");
    wait_until("the next master at the full disk", || cluster.stderr().iter().filter(full).count() == 2);
    let address = view.apps[0].listen[0].parse().unwrap();
    assert!(get(address, "/").unwrap().contains("hello"));
    disk.read_exact(&mut [0; 65_536]).unwrap();
    cluster.wait_line("lost meanwhile");
    let mut line = [0; 14];
    disk.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"a line\na line\n");
    cluster.stop();
}

#[test]
fn a_log_file_that_cannot_be_opened_is_one_clear_error_before_anything_starts() {
    let folder = Folder::new();
    folder.write("taken", "no folder");
    deployment(&folder, &shell("touch started; sleep 1000"), 1, "log.out = \"taken/web.log\"");
    let (code, _, err) = run(&folder, &["-c", "c.toml"]);
    assert_eq!(code, 1);
    assert!(err.contains("web: cannot open the log file") && err.contains("taken/web.log: Not a directory"), "{err}");
    assert!(err.contains("choose another in [app.log]"), "{err}");
    assert!(!folder.path().join("started").exists());

    deployment(&folder, &shell("sleep 1000"), 1, "log.out = \"web.log\"");
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(1);
    deployment(&cluster.folder, &shell("sleep 1001"), 1, "log.out = \"taken/web.log\"");
    let reload = cluster.cli(&["reload", "web"]);
    let text = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(!reload.status.success() && text.contains("cannot open the log file"), "{text}");
    assert_eq!(cluster.app().generation, 1);
    cluster.stop();
}

#[test]
fn a_path_that_is_a_folder_or_may_not_be_written_is_told_with_its_reason() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("logs")).unwrap();
    deployment(&folder, &shell("sleep 1000"), 1, "log.file = \"logs\"");
    let (code, _, err) = run(&folder, &["-c", "c.toml"]);
    assert!(code == 1 && err.contains("web: cannot open the log file") && err.contains("Is a directory"), "{err}");
    deployment(&folder, &shell("sleep 1000"), 1, "log.file = \"logs/\"");
    let (code, _, err) = run(&folder, &["-c", "c.toml"]);
    assert!(code == 2 && err.contains("names a folder; add the name of the file"), "{err}");
    // Nobody, root neither, can make a file there.
    deployment(&folder, &shell("sleep 1000"), 1, "log.file = \"/proc/none/web.log\"");
    let (code, _, err) = run(&folder, &["-c", "c.toml"]);
    assert!(code == 1 && err.contains("cannot open the log file /proc/none/web.log"), "{err}");
}

#[test]
fn a_folder_that_vanishes_under_it_is_made_again_when_the_file_is_opened() {
    let cluster = running(&shell("while :; do echo a line; sleep 0.01; done"), 1, "log.file = \"logs/web.log\"");
    wait_until("lines", || !read(&cluster, "logs/web.log").is_empty());
    fs::remove_dir_all(cluster.folder.path().join("logs")).unwrap();
    // A file in place of the folder: the log cannot be opened, which is reported, and the previous one is kept.
    cluster.folder.write("logs", "");
    let opened = cluster.cli(&["reloadLogs"]);
    let said = String::from_utf8_lossy(&opened.stderr).into_owned();
    assert!(!opened.status.success() && said.contains("logs/web.log: Not a directory"), "{said}");
    fs::remove_file(cluster.folder.path().join("logs")).unwrap();
    assert!(cluster.cli(&["reloadLogs"]).status.success());
    wait_until("lines again", || read(&cluster, "logs/web.log").contains("a line\n"));
    assert_eq!(cluster.app().log_lines_dropped, 0);
    cluster.stop();
}

#[test]
fn two_apps_share_a_file_and_no_line_of_theirs_is_mixed() {
    let folder = Folder::new();
    let app = |name: &str| {
        format!(
            "[[app]]\nname = \"{name}\"\nworkers = 2\nprotocol = \"none\"\nready = \"1ms\"\ncommand = {}\nlog.file = \
             \"all.log\"\n",
            shell(
                "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); printf '%s ' $CLUSTERD_APP/$CLUSTERD_SLOT; echo $i; done; sleep 1000"
            )
        )
    };
    folder.write("c.toml", &[app("web"), app("api")].concat());
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    wait_until("every line", || read(&cluster, "all.log").lines().count() == 8000);
    let text = read(&cluster, "all.log");
    for who in ["web/0", "web/1", "api/0", "api/1"] {
        let numbers = text.lines().filter_map(|line| line.strip_prefix(who)).map(|n| n.trim().parse::<u32>().unwrap());
        assert!(numbers.eq(1..=2000), "{who}");
    }
    let shown = cluster.cli(&["logs", "--nostream", "--lines", "1"]);
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("web+api | "), "{shown:?}");
    cluster.stop();
}

#[test]
fn without_a_file_the_other_keys_are_told_to_do_nothing_in_the_foreground() {
    let cluster = running(&shell("echo on the terminal; sleep 1000"), 1, "log = { time = true, max_size = \"1M\" }");
    cluster.wait_line("web: time, max_size in [app.log] has no effect");
    cluster.stop();
}

#[test]
fn a_reload_that_fails_shows_the_last_words_that_went_to_a_file() {
    let cluster = running(&shell("sleep 1000"), 1, "log.file = \"web.log\"");
    let keys = "log.file = \"web.log\"";
    deployment(&cluster.folder, &shell("echo no such database >&2; exit 7"), 1, keys);
    // Ready after a while, so that its end comes first.
    let text = fs::read_to_string(cluster.folder.path().join("c.toml")).unwrap();
    cluster.folder.write("c.toml", &text.replace("1ms", "20s"));
    let reload = cluster.cli(&["reload", "web"]);
    let text = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(!reload.status.success() && text.contains("| no such database"), "{text}");
    assert!(read(&cluster, "web.log").contains("no such database"));
    cluster.stop();
}

/// The middle one of many round trips, in the order of their time.
fn median_round_trip(address: std::net::SocketAddr) -> Duration {
    let mut took: Vec<Duration> = (0..200)
        .map(|_| {
            let start = Instant::now();
            get(address, "/").unwrap();
            start.elapsed()
        })
        .collect();
    took.sort();
    took[took.len() / 2]
}

#[test]
fn a_worker_that_prints_as_fast_as_it_can_slows_itself_and_no_neighbour() {
    let folder = Folder::new();
    let web =
        format!("name = \"web\"\ncommand = [\"node\", \"{}\"]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n", hello());
    let loud = "name = \"loud\"\nworkers = 1\nprotocol = \"none\"\nready = \"1ms\"\ncommand = [\"yes\", \"a line of some length\"]\n";
    let apps = |file: &str| format!("[[app]]\n{web}log.file = \"web.log\"\n[[app]]\n{loud}{file}\n");
    // Where it prints to nowhere it takes as much of the processor as where it is written.
    folder.write("c.toml", &apps("log.file = \"NULL\""));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let view = cluster.wait_view("both", |view| view.apps.iter().all(|app| app.workers_ready == 1));
    let address = view.apps[0].listen[0].parse().unwrap();
    let alone = median_round_trip(address);
    cluster.folder.write("c.toml", &apps("log = { file = \"loud.log\", max_size = \"4M\", keep = 1 }"));
    assert!(cluster.cli(&["reload", "loud"]).status.success());
    wait_until("a rotated file", || fs::read_dir(cluster.folder.path()).unwrap().count() >= 4);
    let beside = median_round_trip(address);
    assert!(beside < alone * 5 + Duration::from_millis(20), "{beside:?} beside it, {alone:?} before");
    assert_eq!(cluster.app().log_lines_dropped, 0);
    cluster.stop();
}
