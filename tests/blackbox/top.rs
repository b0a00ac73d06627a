//! `clusterd top` in a real terminal (tmux, on a socket of its own): what stands on its screen, what its keys do, and that
//! the terminal is left as it was found, whatever ends it.
use super::apps::misbehave;
use super::background::{Home, address};
use super::client::get;
use super::cluster::{PATIENCE, alive, kill, wait_until};
use std::fs;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Says with its output that it answered, under a name that only this app has.
const TALKER: &str = "let n = 0; require('http').createServer((q, a) => { console.log('answered ' + ++n); a.end('hi') })\
                      .listen(process.env.PORT)";
/// Between two looks at a screen.
const PAUSE: Duration = Duration::from_millis(50);

/// A terminal in which a shell runs `clusterd top`, and says what came of it.
struct Terminal<'a> {
    home: &'a Home,
    /// The socket of its tmux.
    socket: String,
}

impl Terminal<'_> {
    /// `before`: what the shell does first.
    fn open<'a>(home: &'a Home, size: (u16, u16), before: &str) -> Terminal<'a> {
        let script = format!(
            "{before}; stty -a >stty.before; '{}' top; echo \"it ended with $?\"; stty -a >stty.after; exec sleep 1000",
            env!("CARGO_BIN_EXE_clusterd")
        );
        let (columns, lines) = (size.0.to_string(), size.1.to_string());
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let terminal = Terminal { home, socket: format!("tmux-{}", COUNT.fetch_add(1, Ordering::Relaxed)) };
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines, "sh", "-c", &script]);
        terminal
    }

    fn command(&self, args: &[&str]) -> Output {
        let folder = self.home.folder.path();
        let mut tmux = Command::new("tmux");
        tmux.arg("-u").arg("-S").arg(&self.socket).args(args).current_dir(folder).stdin(Stdio::null());
        tmux.env("CLUSTERD_HOME", folder.join("home")).env("LC_ALL", "C.UTF-8").env("SHELL", "/bin/sh");
        tmux.env_remove("TMUX").env_remove("NO_COLOR").output().expect("tmux (an apt package)")
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"][..], keys].concat());
    }

    /// Waits until the screen is as wanted; what it shows then.
    fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what} is not on the screen:\n{screen}");
            std::thread::sleep(PAUSE);
        }
    }

    fn wait_word(&self, word: &str) -> String {
        self.wait(word, |screen| screen.contains(word))
    }

    /// The process that is `top`.
    fn pid(&self) -> i32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        children.split_whitespace().next().expect("a child of the shell").parse().unwrap()
    }

    /// It has ended so, and the terminal is as before.
    fn wait_end(&self, code: u32) {
        self.wait_word(&format!("it ended with {code}\n"));
        let stty = |name: &str| fs::read_to_string(self.home.folder.path().join(name)).unwrap();
        wait_until("the shell's look at the terminal", || !stty("stty.after").is_empty());
        assert_eq!(stty("stty.before"), stty("stty.after"));
        let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(state.trim(), "0 1", "the screen of before, and a cursor");
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let screen = self.command(&["capture-pane", "-p"]).stdout;
            eprintln!("--- the terminal\n{}---", String::from_utf8_lossy(&screen));
        }
        self.command(&["kill-server"]);
    }
}

/// The words of the row that begins so.
fn row(screen: &str, first: &str) -> Vec<String> {
    let is_it = |words: &Vec<String>| words.iter().take(3).any(|word| word == first);
    let rows = screen.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    rows.into_iter().find(is_it).unwrap_or_default()
}

#[test]
fn the_screen_shows_apps_workers_figures_and_the_log_in_eighty_columns() {
    let home = Home::new();
    let app = home.folder.write("talker.js", TALKER);
    home.ok(&["start", &app, "-n", "talker", "-i", "2", "-b", "round-robin", "--host", "127.0.0.1", "-p", "0"]);
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    let at = address(&home.app("talker"));
    let terminal = Terminal::open(&home, (80, 24), "true");
    let screen = terminal.wait("both apps with figures", |screen| {
        row(screen, "talker").iter().any(|word| word.ends_with('%'))
            && row(screen, "job").iter().any(|word| word.ends_with('%'))
    });
    for word in ["2 apps", "3/3 ready", "CPU", "MEMORY", "DELAY", "CONN/S", "RESTARTS", "reload", "scale", "quit"] {
        assert!(screen.contains(word), "{word}:\n{screen}");
    }
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    let talker = row(&screen, "talker");
    assert!(talker.contains(&"running".to_owned()) && talker.contains(&"2/2".to_owned()), "{talker:?}");
    for worker in home.app("talker").workers {
        assert!(screen.contains(&format!("pid {}", worker.pid.unwrap())), "{screen}");
    }
    assert!(screen.contains(&at.to_string()), "{screen}");
    // Connections are counted per second, and what the app prints comes by itself.
    let deadline = Instant::now() + PATIENCE;
    let counts = |screen: &str| {
        let rate = row(screen, "talker").get(8).and_then(|word| word.parse::<f64>().ok());
        rate.is_some_and(|rate| rate > 0.0) && screen.contains("answered ")
    };
    while !counts(&terminal.screen()) {
        assert!(Instant::now() < deadline, "no connections, or no log:\n{}", terminal.screen());
        get(at, "/").unwrap();
    }
    assert_eq!(row(&terminal.screen(), "job").get(8).map(String::as_str), Some("-"), "{}", terminal.screen());
    terminal.keys(&["q"]);
    terminal.wait_end(0);
    assert_eq!(home.app("talker").workers_ready, 2, "apps run on");
}

#[test]
#[ignore = "long: a session on a terminal"]
fn keys_reload_scale_restart_and_stop_what_is_selected() {
    let home = Home::new();
    home.web("web", "1");
    home.web("other", "1");
    let other = home.app("other").workers[0].pid;
    let terminal = Terminal::open(&home, (80, 24), "true");
    terminal
        .wait("both", |screen| ["web", "other"].iter().all(|name| row(screen, name).contains(&"running".to_owned())));
    terminal.keys(&["r"]);
    terminal.wait_word("reloaded web");
    assert_eq!(home.app("web").generation, 2);
    terminal.keys(&["+"]);
    terminal.wait("two workers", |screen| row(screen, "web").contains(&"2/2".to_owned()));
    terminal.keys(&["-"]);
    terminal.wait("one worker", |screen| row(screen, "web").contains(&"1/1".to_owned()));
    // What is refused is said.
    terminal.keys(&["-"]);
    terminal.wait_word("at least 1");
    terminal.keys(&["Escape"]);
    terminal.wait("no error any more", |screen| !screen.contains("at least 1"));
    // What costs connections is asked first.
    let before = home.app("web").workers[0].pid;
    terminal.keys(&["R"]);
    terminal.wait_word("(y/n)");
    terminal.keys(&["n"]);
    terminal.wait("no question", |screen| !screen.contains("(y/n)"));
    assert_eq!(home.app("web").workers[0].pid, before);
    terminal.keys(&["R", "y"]);
    terminal.wait("the restart", |_| {
        let web = home.app("web");
        web.workers_ready == 1 && web.workers[0].pid != before
    });
    terminal.keys(&["s", "y"]);
    terminal.wait("the stop", |screen| row(screen, "web").contains(&"stopped".to_owned()));
    terminal.keys(&["s"]);
    terminal.wait("the start", |screen| row(screen, "web").contains(&"running".to_owned()));
    assert_eq!(home.app("other").workers[0].pid, other, "nothing happens to what is not selected");
    terminal.keys(&["?"]);
    terminal.wait_word("any key continues");
    terminal.keys(&["x"]);
    terminal.wait("the table", |screen| !screen.contains("any key continues") && screen.contains("web"));
    // Ctrl-C ends it too, with exit code 0.
    terminal.keys(&["C-c"]);
    terminal.wait_end(0);
}

#[test]
fn a_reload_that_fails_is_said_with_the_last_words_of_the_worker() {
    let home = Home::new();
    let app = home.folder.write("app.js", TALKER);
    home.ok(&["start", &app, "-n", "web", "-i", "1", "--host", "127.0.0.1", "-p", "0"]);
    let terminal = Terminal::open(&home, (80, 24), "true");
    terminal.wait_word("running");
    home.folder.write("app.js", "throw new Error('of this release')");
    terminal.keys(&["r"]);
    let screen = terminal.wait_word("Its last words:");
    for word in ["web: the new worker exited with code 1", "| Error: of this release"] {
        assert!(screen.contains(word), "{word}:\n{screen}");
    }
    assert!(get(address(&home.app("web")), "/").is_ok());
    terminal.keys(&["q"]);
    terminal.wait_end(0);
}

#[test]
#[ignore = "long: a session on a terminal"]
fn apps_that_come_end_or_lose_their_keeper_are_seen() {
    let home = Home::new();
    let terminal = Terminal::open(&home, (80, 24), "true");
    terminal.wait_word("nothing runs here");
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    terminal.wait("the job", |screen| row(screen, "job").contains(&"running".to_owned()));
    kill(home.deployments()[0].keeper_pid, "KILL");
    terminal.wait("its end", |screen| row(screen, "job").contains(&"gone".to_owned()));
    terminal.keys(&["r"]);
    terminal.wait_word("s starts it again");
    terminal.keys(&["s"]);
    terminal.wait("the job again", |screen| row(screen, "job").contains(&"running".to_owned()));
    home.ok(&["delete", "job"]);
    terminal.wait_word("nothing runs here");
    terminal.keys(&["q"]);
    terminal.wait_end(0);
}

#[test]
fn another_size_is_drawn_at_once_and_the_smallest_breaks_nothing() {
    let home = Home::new();
    home.web("web", "3");
    let terminal = Terminal::open(&home, (80, 24), "true");
    terminal.wait_word("running");
    let sizes: [(&str, &str, &[&str], &[&str]); 4] = [
        ("160", "50", &["ADDRESS", "OPEN", "pid ", "help"], &[]),
        ("40", "10", &["web", "running", "quit"], &["CONN/S", "ADDRESS"]),
        ("8", "3", &["web"], &["running"]),
        ("80", "24", &["web", "running", "CONN/S", "log"], &["ADDRESS"]),
    ];
    for (columns, lines, there, absent) in sizes {
        terminal.tmux(&["resize-window", "-x", columns, "-y", lines]);
        if columns == "8" {
            // Too small for anything: that it lives is enough.
            terminal.wait("something", |screen| !screen.trim().is_empty());
            assert!(alive(terminal.pid()));
            continue;
        }
        terminal.wait(&format!("{columns}x{lines}"), |screen| {
            there.iter().all(|word| screen.contains(word)) && !absent.iter().any(|word| screen.contains(word))
        });
    }
    terminal.keys(&["q"]);
    terminal.wait_end(0);
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let home = Home::new();
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("QUIT", 131), ("INT", 130)] {
        let terminal = Terminal::open(&home, (80, 24), "rm -f stty.after");
        terminal.wait_word("running");
        kill(terminal.pid(), signal);
        terminal.wait_end(code);
    }
    assert_eq!(home.app("job").status, "running");
}

#[test]
fn a_stop_from_the_keyboard_gives_the_terminal_back_and_takes_it_again() {
    let home = Home::new();
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    let terminal = Terminal::open(&home, (80, 24), "true");
    terminal.wait_word("running");
    let pid = terminal.pid();
    let is_stopped = || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
    terminal.keys(&["C-z"]);
    wait_until("the stop", is_stopped);
    assert_eq!(terminal.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "0 1");
    kill(pid, "CONT");
    terminal.wait("the screen again", |screen| row(screen, "job").contains(&"running".to_owned()));
    terminal.keys(&["q"]);
    terminal.wait_end(0);
}

#[test]
fn what_others_write_on_the_terminal_is_wiped_by_a_key() {
    let home = Home::new();
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    let terminal = Terminal::open(&home, (80, 24), "true");
    terminal.wait_word("running");
    // Where nothing stands that changes by itself.
    let message = "\x1b[18;5Ha message of the system";
    fs::write(terminal.tmux(&["display-message", "-p", "#{pane_tty}"]).trim(), message).unwrap();
    terminal.wait_word("a message of the system");
    terminal.keys(&["C-l"]);
    terminal.wait("a clean screen", |screen| !screen.contains("of the system") && screen.contains("running"));
    // Colours, where there are some.
    assert!(terminal.tmux(&["capture-pane", "-p", "-e"]).contains("38;5;"));
    terminal.keys(&["q"]);
    terminal.wait_end(0);
}

#[test]
fn a_terminal_of_little_means_gets_plain_characters() {
    let home = Home::new();
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    let terminal = Terminal::open(&home, (80, 24), "export TERM=vt100 LC_ALL=C");
    let screen = terminal.wait_word("running");
    assert!(screen.is_ascii(), "{screen}");
    assert!(!terminal.tmux(&["capture-pane", "-p", "-e"]).contains("38;5;"), "no colours");
    terminal.keys(&["q"]);
    terminal.wait_end(0);
}

#[test]
#[ignore = "long: a session on a terminal"]
fn a_master_that_hangs_delays_nobody_and_is_named() {
    let home = Home::new();
    home.ok(&["start", &misbehave("slow.js"), "-n", "hung", "-i", "1", "--host", "127.0.0.1", "-p", "0"]);
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    let keeper = home.deployments().iter().find(|d| d.name == "hung").unwrap().keeper_pid;
    let master = home.deployments().iter().find(|d| d.name == "hung").unwrap().master_pid;
    let terminal = Terminal::open(&home, (80, 24), "true");
    terminal.wait("both", |screen| row(screen, "hung").len() > 5 && row(screen, "job").len() > 5);
    // Its keeper would notice, and start another master.
    kill(keeper, "STOP");
    kill(master, "STOP");
    let screen = terminal.wait_word("no answer");
    assert!(row(&screen, "job").contains(&"running".to_owned()), "{screen}");
    kill(master, "CONT");
    kill(keeper, "CONT");
    terminal.wait("its answer", |screen| row(screen, "hung").contains(&"running".to_owned()));
    terminal.keys(&["q"]);
    terminal.wait_end(0);
}

#[test]
fn what_is_no_terminal_is_told_what_to_use_instead() {
    let home = Home::new();
    for verb in ["top", "monit"] {
        let (code, out, err) = home.run(&[verb]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("wants a terminal") && err.contains("clusterd ls --json"), "{err}");
    }
    let terminal = Terminal::open(&home, (80, 24), "export TERM=dumb");
    terminal.wait_word("TERM=\"dumb\"");
    terminal.wait_end(1);
    let terminal = Terminal::open(&home, (80, 24), "unset CLUSTERD_HOME HOME; rm -f stty.after");
    terminal.wait_word("set CLUSTERD_HOME");
    terminal.wait_end(1);
}
