//! From what was typed to a [`Config`]: the command line is laid over the file, defaults are filled in, settings are
//! judged together. Pure and deterministic: a restarted master resolves the same [`Sources`] to the same `Config`.
use super::import::Format;
use super::problem::{At, Found, Problem, Spot};
use super::raw::{self, RawApp, RawLimits, RawRestart, RawWatch};
use super::sources::{EnvFileSource, FileSource, Habits, Overrides, Sources, absolute, shown};
use super::{
    App, Balance, Config, Limits, Listen, Protocol, Reload, Restart, Watch, address, agent, cron, defaults, env_file,
    name, parse, rules,
};
use crate::limits::{LISTENERS_PER_APP_MAX, UNIX_PATH_BYTES_MAX};
use std::collections::BTreeMap;
use std::time::Duration;

/// The configuration that these sources stand for.
///
/// # Errors
/// Everything that is wrong, in the order of its place; never empty.
pub fn resolve(sources: &Sources) -> Result<Config, Vec<Problem>> {
    let mut found = Found::default();
    let (path, text) = match &sources.file {
        Some(file) => (place_of(file, &sources.start_folder), file.text.as_str()),
        None => (String::new(), ""),
    };
    let mut raws = match sources.file {
        Some(_) => raw::parse_file(text, &mut found),
        None => vec![RawApp::default()],
    };
    check_overrides(sources, &raws, &mut found);
    let several = raws.len() > 1;
    for (index, raw) in raws.iter_mut().enumerate() {
        // One complaint about an option is enough, however many apps it is meant for.
        let mut unheard = Found::default();
        overlay(raw, &sources.overrides, several, if index == 0 { &mut found } else { &mut unheard });
    }
    let names = names(&raws, text, &mut found);
    let (mut raws, names) = only(raws, names, &sources.overrides.only, &mut found);
    check_addresses(&mut raws, &names, sources, &mut found);
    let apps: Vec<App> =
        raws.into_iter().zip(names).filter_map(|(raw, name)| decide(raw, name, sources, &mut found)).collect();
    if !found.is_empty() {
        return Err(found.into_problems(&path, text));
    }
    Ok(Config { apps })
}

/// How problems name a file: what they count lines in is the text that it was converted to, where it was.
fn place_of(file: &FileSource, start_folder: &str) -> String {
    let shown = shown(start_folder, &file.path);
    match file.format() {
        Format::Toml => shown,
        Format::Script | Format::Json | Format::Yaml => format!("{shown}, as clusterd import writes it"),
    }
}

/// Absolute paths of the environment files that a configuration file names. Nothing is complained of here:
/// [`resolve`] does that.
pub fn env_files_wanted(file_text: &str, start_folder: &str) -> Vec<String> {
    let raws = raw::parse_file(file_text, &mut Found::default());
    let files = raws.iter().flat_map(|raw| &raw.env_files);
    files.map(|file| absolute(start_folder, &file.value).display().to_string()).collect()
}

/// What the command line says that fits neither alone nor with this file.
fn check_overrides(sources: &Sources, raws: &[RawApp], found: &mut Found) {
    let typed = &sources.overrides;
    if sources.file.is_some() && !typed.command.is_empty() {
        found.add(Spot::Whole, "a command and a configuration file were given: give one of them");
    }
    if sources.file.is_none() && typed.command.is_empty() {
        found.add(Spot::Whole, "nothing to run: give a command (clusterd -- node app.js) or a file (-c cluster.toml)");
    }
    if raws.len() > 1 {
        let for_one = [
            ("--name", typed.name.is_some()),
            ("--port", typed.port.is_some()),
            ("--host", typed.host.is_some()),
            ("--listen", !typed.listen.is_empty()),
            ("--cwd", typed.cwd.is_some()),
        ];
        for (option, _) in for_one.iter().filter(|(_, given)| *given) {
            found.add(
                Spot::Option(option),
                format!("the file has {} apps and this fits only one: write it into the file", raws.len()),
            );
        }
    }
    for wanted in &typed.env_names {
        let known: Vec<&str> = raws.iter().flat_map(|raw| raw.env_named.keys().map(String::as_str)).collect();
        if known.contains(&wanted.as_str()) {
            continue;
        }
        let hint = match known.as_slice() {
            [] if sources.file.is_some() => "the file has no env.NAME table".to_owned(),
            [] => format!("env.NAME tables come from a configuration file; for a variable write {wanted}=VALUE"),
            _ => format!("the file has {}{}", known.join(", "), name::did_you_mean(wanted, &known)),
        };
        found.add(Spot::Option("--env"), format!("there is no table env.{}: {hint}", wanted.escape_debug()));
    }
}

/// Lays the command line over one app.
fn overlay(raw: &mut RawApp, typed: &Overrides, several: bool, found: &mut Found) {
    fn put<T>(
        place: &mut Option<At<T>>,
        option: &'static str,
        typed: Option<&String>,
        read: impl Fn(&str) -> Result<T, String>,
        found: &mut Found,
    ) {
        if let Some(text) = typed {
            *place = found.keep(Spot::Option(option), read(text));
        }
    }
    if raw.command.is_none() && !raw.command_bad && !typed.command.is_empty() {
        raw.command = found.keep(Spot::Whole, parse::command(&typed.command).map(|()| typed.command.clone()));
        raw.command_bad = raw.command.is_none();
    }
    let named = |text: &str| name::check(text).map(|()| text.to_owned());
    put(&mut raw.namespace, "--namespace", typed.namespace.as_ref(), named, found);
    put(&mut raw.workers, "--workers", typed.workers.as_ref(), parse::workers, found);
    put(&mut raw.balance, "--balance", typed.balance.as_ref(), parse::balance, found);
    put(&mut raw.protocol, "--protocol", typed.protocol.as_ref(), parse::protocol, found);
    put(&mut raw.ready, "--ready", typed.ready.as_ref(), parse::ready, found);
    put(&mut raw.ready_timeout, "--ready-timeout", typed.ready_timeout.as_ref(), parse::duration_not_zero, found);
    put(&mut raw.drain_timeout, "--drain-timeout", typed.drain_timeout.as_ref(), parse::duration, found);
    put(&mut raw.kill_timeout, "--kill-timeout", typed.kill_timeout.as_ref(), parse::duration, found);
    put(&mut raw.user, "--user", typed.user.as_ref(), raw::identity_text, found);
    put(&mut raw.group, "--group", typed.group.as_ref(), raw::identity_text, found);
    overlay_habits(raw, &typed.habits, found);
    if let Some(value) = typed.prefix {
        raw.prefix = Some(At { value, spot: Spot::Option("--prefix") });
    }
    if !several {
        put(&mut raw.cwd, "--cwd", typed.cwd.as_ref(), raw::path_text, found);
        put(&mut raw.name, "--name", typed.name.as_ref(), named, found);
        overlay_listen(raw, typed, found);
    }
    for (name, value) in &typed.env {
        if let Err(message) = env_file::check(name, value) {
            found.add(Spot::Option("--env"), message);
        }
    }
}

/// When and how often an app is started again.
fn overlay_habits(raw: &mut RawApp, typed: &Habits, found: &mut Found) {
    let mut time = |place: &mut Option<At<Duration>>, option, text: &Option<String>| {
        if let Some(text) = text {
            *place = found.keep(Spot::Option(option), parse::duration(text));
        }
    };
    time(&mut raw.restart.min_uptime, "--min-uptime", &typed.min_uptime);
    time(&mut raw.restart.delay, "--restart-delay", &typed.restart_delay);
    time(&mut raw.watch.delay, "--watch-delay", &typed.watch_delay);
    for place in [&mut raw.restart.backoff_first, &mut raw.restart.backoff_min, &mut raw.restart.backoff_max] {
        time(place, "--spin-sleep", &typed.spin_sleep);
    }
    if let Some(text) = &typed.max_restarts {
        raw.restart.max_restarts = found.keep(Spot::Option("--max-restarts"), parse::max_restarts(text));
    }
    if let Some(text) = &typed.max_runs {
        raw.restart.max_runs = found.keep(Spot::Option("--max-runs"), parse::max_runs(text));
    }
    if let Some(text) = &typed.max_memory {
        raw.limits.memory = found.keep(Spot::Option("--max-memory"), parse::size(text));
    }
    if let Some(text) = &typed.cron_restart {
        raw.cron_restart = found.keep(Spot::Option("--cron-restart"), cron::read(text));
    }
    if !typed.stop_exit_codes.is_empty() {
        raw.restart.stop_exit_codes = Some(typed.stop_exit_codes.iter().map(|code| i32::from(*code)).collect());
    }
    if typed.watch {
        raw.watch.on = Some(true);
    }
    if !typed.watch_ignore.is_empty() {
        let option = Spot::Option("--watch-ignore");
        let patterns = typed.watch_ignore.iter().filter_map(|text| found.keep(option, parse::pattern(text)));
        raw.watch.ignore = Some(patterns.collect());
    }
}

/// `--port`, `--host` and `--listen` together replace what the file says.
fn overlay_listen(raw: &mut RawApp, typed: &Overrides, found: &mut Found) {
    if typed.host.is_some() && typed.port.is_none() {
        found.add(Spot::Option("--host"), "--host goes with --port; or write --listen HOST:PORT");
    }
    if typed.port.is_none() && typed.listen.is_empty() {
        return;
    }
    raw.port = None;
    raw.listen.clear();
    if let Some(port) = typed.port {
        let (option, listen) = match &typed.host {
            Some(host) => ("--host", parse::host_and_port(host, port)),
            None => ("--port", Ok(Listen::Any(port))),
        };
        raw.listen.extend(found.keep(Spot::Option(option), listen));
    }
    for text in &typed.listen {
        raw.listen.extend(found.keep(Spot::Option("--listen"), parse::listen(text)));
    }
}

/// The name of every app: typed ones must differ, the others get one that is free.
fn names(raws: &[RawApp], text: &str, found: &mut Found) -> Vec<String> {
    let mut first: BTreeMap<&str, Spot> = BTreeMap::new();
    for name in raws.iter().filter_map(|raw| raw.name.as_ref()) {
        match first.get(name.value.as_str()) {
            Some(at) => found.add(name.spot, format!("the name \"{}\" is taken{}", name.value, on_line(*at, text))),
            None => drop(first.insert(&name.value, name.spot)),
        }
    }
    let mut taken: Vec<String> = first.into_keys().map(str::to_owned).collect();
    let mut named = |raw: &RawApp| match &raw.name {
        Some(name) => name.value.clone(),
        None => {
            let command = raw.command.as_ref().map_or(&[][..], |command| &command.value);
            let name = name::unique(&name::from_command(command), |name| taken.iter().any(|other| other == name));
            taken.push(name.clone());
            name
        }
    };
    raws.iter().map(&mut named).collect()
}

/// The apps that `--only` names.
fn only(raws: Vec<RawApp>, names: Vec<String>, wanted: &[String], found: &mut Found) -> (Vec<RawApp>, Vec<String>) {
    for word in wanted.iter().filter(|word| !names.contains(word)) {
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let hint = name::did_you_mean(word, &known);
        let text = format!("there is no app \"{}\": there is {}{hint}", word.escape_debug(), known.join(", "));
        found.add(Spot::Option("--only"), text);
    }
    let chosen = |name: &String| wanted.is_empty() || wanted.contains(name);
    raws.into_iter().zip(names).filter(|(_, name)| chosen(name)).unzip()
}

fn on_line(spot: Spot, text: &str) -> String {
    match spot {
        Spot::File(offset) => format!(" (line {})", super::problem::line_column(text, offset).0),
        Spot::Option(option) => format!(" ({option})"),
        Spot::Whole => String::new(),
    }
}

/// Makes paths of sockets absolute and finds addresses that stand in each other's way, over all apps.
fn check_addresses(raws: &mut [RawApp], names: &[String], sources: &Sources, found: &mut Found) {
    let text = sources.file.as_ref().map_or("", |file| &file.text);
    let mut before: Vec<(At<Listen>, usize)> = Vec::new();
    for (index, raw) in raws.iter_mut().enumerate() {
        if let Some(port) = raw.port.take() {
            raw.listen.insert(0, At { value: Listen::Any(port.value), spot: port.spot });
        }
        if let Some(extra) = raw.listen.get(LISTENERS_PER_APP_MAX) {
            let most = LISTENERS_PER_APP_MAX;
            found.add(extra.spot, format!("too many addresses to listen on: {most} is the most for one app"));
            raw.listen.truncate(most);
        }
        for listen in &mut raw.listen {
            if found.is_full() {
                return;
            }
            if let Listen::Unix(path) = &mut listen.value {
                *path = absolute(&sources.start_folder, &path.to_string_lossy());
                let length = path.as_os_str().len();
                if length > UNIX_PATH_BYTES_MAX {
                    found.add(
                        listen.spot,
                        format!(
                            "{} has {length} bytes; the path of a socket may have {UNIX_PATH_BYTES_MAX}",
                            path.display()
                        ),
                    );
                }
            }
            if let Some((other, owner)) = before.iter().find(|(other, _)| address::overlap(&other.value, &listen.value))
            {
                let whose = if *owner == index {
                    "the same app".to_owned()
                } else {
                    format!("app \"{}\"", names.get(*owner).map_or("", String::as_str))
                };
                found.add(
                    listen.spot,
                    format!("{} is taken by {} of {whose}{}", listen.value, other.value, on_line(other.spot, text)),
                );
            }
            before.push((listen.clone(), index));
        }
    }
}

/// One app with every default decided, or `None` where problems were noted that leave no app.
fn decide(raw: RawApp, name: String, sources: &Sources, found: &mut Found) -> Option<App> {
    let env = environment(&raw, sources, found);
    check_slot_variables(&raw, &env, found);
    let restart = decide_restart(raw.restart, found);
    let protocol = raw.protocol.as_ref().map_or(defaults::PROTOCOL, |at| at.value);
    let balance = raw.balance.as_ref().map_or(defaults::BALANCE, |at| at.value);
    if protocol != Protocol::Auto {
        if let Some(ready) = &raw.ready
            && let Err(message) = rules::ready(protocol, Some(&ready.value))
        {
            found.add(ready.spot, message);
        }
        if let Some(typed) = &raw.balance
            && let Err(message) = rules::balance(protocol, balance)
        {
            found.add(typed.spot, message);
        }
        if let Some(listen) = raw.listen.first()
            && let Err(message) = rules::listen(protocol, true)
        {
            found.add(listen.spot, message);
        }
    }
    let limits = decide_limits(raw.limits, protocol, balance, found);
    let agent = agent::decide(raw.agent, found);
    let folder = raw.cwd.as_ref().map(|at| absolute(&sources.start_folder, &at.value));
    let log_folder = folder.as_ref().map_or(sources.start_folder.clone(), |folder| folder.display().to_string());
    let log = super::log::decide(raw.log, &name, &log_folder, sources, found);
    let Some(command) = raw.command else {
        if !raw.command_bad
            && let Some(spot) = raw.spot
        {
            found.add(spot, "command is missing: say what to run, for example command = [\"node\", \"app.js\"]");
        }
        return None;
    };
    Some(App {
        name,
        namespace: value_or(raw.namespace, defaults::NAMESPACE.to_owned()),
        command: command.value,
        workers: value_or(raw.workers, defaults::WORKERS),
        listen: raw.listen.into_iter().map(|at| at.value).collect(),
        balance,
        protocol,
        ready: raw.ready.map(|at| at.value),
        ready_timeout: value_or(raw.ready_timeout, defaults::READY_TIMEOUT),
        drain_timeout: value_or(raw.drain_timeout, defaults::DRAIN_TIMEOUT),
        kill_timeout: value_or(raw.kill_timeout, defaults::KILL_TIMEOUT),
        env,
        base_env: sources.base_env.clone(),
        cwd: folder,
        instance_var: value_or(raw.instance_var, defaults::INSTANCE_VAR.to_owned()),
        increment_var: raw.increment_var.map(|at| at.value),
        user: raw.user.map(|at| at.value),
        group: raw.group.map(|at| at.value),
        umask: raw.umask.map(|at| at.value),
        cron_restart: raw.cron_restart.map(|at| at.value),
        watch: decide_watch(raw.watch, sources),
        restart,
        reload: Reload {
            surge: value_or(raw.reload.surge, defaults::reload().surge),
            canary: value_or(raw.reload.canary, defaults::reload().canary),
            settle: value_or(raw.reload.settle, defaults::reload().settle),
            drain_spread: value_or(raw.reload.drain_spread, defaults::reload().drain_spread),
        },
        hooks: raw.hooks,
        limits,
        agent,
        log,
        prefix: value_or(raw.prefix, false),
    })
}

fn value_or<T>(at: Option<At<T>>, default: T) -> T {
    at.map_or(default, |at| at.value)
}

/// What is to be watched. Ignoring alone watches nothing.
fn decide_watch(raw: RawWatch, sources: &Sources) -> Option<Watch> {
    raw.on.filter(|on| *on)?;
    Some(Watch {
        paths: raw.paths.iter().map(|path| absolute(&sources.start_folder, path)).collect(),
        ignore: raw.ignore.unwrap_or_default().into_iter().map(|at| at.value).collect(),
        delay: value_or(raw.delay, defaults::WATCH_DELAY),
    })
}

fn decide_restart(raw: RawRestart, found: &mut Found) -> Restart {
    let default = defaults::restart();
    let min = raw.backoff_min.as_ref().map_or(default.backoff_min, |at| at.value);
    let max = raw.backoff_max.as_ref().map_or(default.backoff_max, |at| at.value);
    if min > max
        && let Some(spot) = raw.backoff_min.as_ref().or(raw.backoff_max.as_ref()).map(|at| at.spot)
    {
        found.add(spot, format!("backoff_min ({min:?}) is longer than backoff_max ({max:?})"));
    }
    Restart {
        min_uptime: value_or(raw.min_uptime, default.min_uptime),
        max_restarts: value_or(raw.max_restarts, default.max_restarts),
        window: value_or(raw.window, default.window),
        backoff_first: value_or(raw.backoff_first, default.backoff_first),
        backoff_min: min,
        backoff_max: max,
        delay: value_or(raw.delay, default.delay),
        max_runs: value_or(raw.max_runs, default.max_runs),
        stop_exit_codes: raw.stop_exit_codes.unwrap_or(default.stop_exit_codes),
    }
}

fn decide_limits(raw: RawLimits, protocol: Protocol, balance: Balance, found: &mut Found) -> Limits {
    let spots = [raw.hang.as_ref().map(|at| at.spot), raw.max_connections.as_ref().map(|at| at.spot)];
    let report = raw.hang_report.as_ref().filter(|at| at.value).map(|at| at.spot);
    let limits = Limits {
        memory: raw.memory.map(|at| at.value),
        lifetime: raw.lifetime.map(|at| at.value),
        max_connections: raw.max_connections.map(|at| at.value),
        hang: raw.hang.map(|at| at.value),
        hang_report: value_or(raw.hang_report, false),
        hang_report_dir: raw.hang_report_dir.map(|at| at.value),
    };
    if let Some(spot) = report.filter(|_| limits.hang.is_none()) {
        found.add(spot, "hang_report does nothing without hang");
    }
    if protocol != Protocol::Auto
        && let Err(message) = rules::limits(protocol, balance, &limits)
        && let Some(spot) = spots.into_iter().flatten().next()
    {
        found.add(spot, message);
    }
    limits
}

/// The variables of one app. Later ones win: `env_file`, `env`, the chosen `env.NAME`, `--env-file`, `--env`.
fn environment(raw: &RawApp, sources: &Sources, found: &mut Found) -> BTreeMap<String, String> {
    let typed = &sources.overrides;
    let mut env = BTreeMap::new();
    for file in &raw.env_files {
        let path = absolute(&sources.start_folder, &file.value).display().to_string();
        read_env_file(&path, file.spot, sources, &mut env, found);
    }
    env.extend(raw.env.clone());
    for table in typed.env_names.iter().filter_map(|name| raw.env_named.get(name)) {
        env.extend(table.clone());
    }
    for path in &typed.env_files {
        read_env_file(path, Spot::Option("--env-file"), sources, &mut env, found);
    }
    env.extend(typed.env.iter().cloned());
    env
}

/// Variables that each slot has with a value of its own must not be meant to hold anything else.
fn check_slot_variables(raw: &RawApp, env: &BTreeMap<String, String>, found: &mut Found) {
    if let Some(At { value: name, spot }) = raw.instance_var.as_ref().filter(|at| env.contains_key(&at.value)) {
        found.add(*spot, format!("env sets {name} too: instance_var would write the slot over it"));
    }
    let Some(At { value: name, spot }) = &raw.increment_var else { return };
    if raw.instance_var.as_ref().is_some_and(|at| at.value == *name) {
        return found.add(*spot, format!("{name} holds the slot already: increment_var must be another variable"));
    }
    match env.get(name).map(|value| value.parse::<i64>()) {
        Some(Ok(_)) => {}
        Some(Err(_)) => {
            found.add(*spot, format!("increment_var adds the slot to {name}, but env sets it to no whole number"))
        }
        None => found.add(
            *spot,
            format!("increment_var counts from the value of {name} in env: add one, such as {name} = \"9000\""),
        ),
    }
}

fn read_env_file(path: &str, spot: Spot, sources: &Sources, env: &mut BTreeMap<String, String>, found: &mut Found) {
    let short = shown(&sources.start_folder, path);
    match sources.env_files.iter().find(|file| file.path == path) {
        Some(EnvFileSource { text: Ok(text), .. }) => match env_file::parse(text) {
            Ok(pairs) => env.extend(pairs),
            Err(lines) => {
                for (line, message) in lines {
                    found.add(spot, format!("{short}, line {line}: {message}"));
                }
            }
        },
        Some(EnvFileSource { text: Err(why), .. }) => found.add(spot, format!("cannot read {short}: {why}")),
        None => found.add(spot, format!("{short} was not read")),
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
