//! From the sources to a [`Config`]: lays the command line over the file, fills in defaults, checks settings together.
//! Pure and deterministic: a restarted master resolves the same [`Sources`] to the same `Config`.
use super::dependencies;
use super::import::Format;
use super::problem::{At, Found, Problem, Spot};
use super::raw;
use super::schema::addresses::ListenEntry;
use super::schema::keys::{Alive, AppRest, RawAlive, RawApp, RawLimits, RawRestart};
use super::schema::kinds::Watched;
use super::schema::reload_keys::RawReload;
use super::schema::{Raw as _, flags};
use super::sources::{EnvFileSource, FileSource, FileUser, Overrides, RolledBack, Sources, absolute, shown};
use super::{
    App, Balance, Config, Limits, Listen, Protocol, Reload, Restart, SocketAccess, Watch, address, agent, control,
    defaults, env_file, hooks, name, parse, rules, scaling, warm_up,
};
use crate::limits::{LISTENERS_PER_APP_MAX, UNIX_PATH_BYTES_MAX};
use std::collections::BTreeMap;
use std::time::Duration;

/// The configuration of these sources.
///
/// # Errors
/// Everything that is wrong, in the order of its place; never empty.
pub fn resolve(sources: &Sources) -> Result<Config, Vec<Problem>> {
    let mut found = Found::default();
    let (path, text) = match &sources.file {
        Some(file) => (place_of(file, &sources.start_folder), file.text.as_str()),
        None => (String::new(), ""),
    };
    let (mut raws, control) = match sources.file {
        Some(_) => {
            let file = raw::parse_file(text, &mut found);
            (file.app.map(|at| at.value).unwrap_or_default(), file.control.map(|at| at.value))
        }
        None => (vec![RawApp::default()], None),
    };
    let mut control = control;
    let agent_check = control.as_mut().and_then(|raw| control::take_agent_check(raw, &mut found));
    let control = control.and_then(|raw| control::decide(raw, &sources.start_folder, &mut found));
    check_overrides(sources, &raws, &mut found);
    let several = raws.len() > 1;
    for (index, raw) in raws.iter_mut().enumerate() {
        // One problem per option is enough, for any number of apps.
        let mut unheard = Found::default();
        overlay(raw, &sources.overrides, several, if index == 0 { &mut found } else { &mut unheard });
    }
    let names = names(&raws, text, &mut found);
    dependencies::check(&raws, &names, &mut found);
    let (mut raws, names) = only(raws, names, &sources.overrides.only, &mut found);
    check_addresses(&mut raws, &names, sources, &mut found);
    let mut apps: Vec<App> =
        raws.into_iter().zip(names).filter_map(|(raw, name)| decide(raw, name, sources, &mut found)).collect();
    if !found.is_empty() {
        return Err(found.into_problems(&path, text));
    }
    for app in &mut apps {
        if let Some(back) = sources.rolled_back.get(&app.name) {
            *app = rolled_back(app, back)?;
        }
    }
    Ok(Config { apps, control, agent_check })
}

/// The app as it was in the generation that it went back to. What runs before the workers ran for that generation already.
fn rolled_back(now: &App, back: &RolledBack) -> Result<App, Vec<Problem>> {
    let then = resolve(&Sources { rolled_back: BTreeMap::new(), ..Sources::clone(&back.sources) })?;
    let app = then.apps.into_iter().find(|app| app.name == now.name).unwrap_or_else(|| now.clone());
    let folder = std::path::PathBuf::from(&back.folder);
    Ok(App { cwd: Some(folder.clone()), folder, before: None, ..app })
}

/// The name of a file in problems: for a converted file, line numbers refer to the converted text.
fn place_of(file: &FileSource, start_folder: &str) -> String {
    let shown = shown(start_folder, &file.path);
    match file.format() {
        Format::Toml => shown,
        Format::Script | Format::Json | Format::Yaml => format!("{shown}, as clusterd import writes it"),
    }
}

/// Absolute paths of the environment files in a configuration file, each with the user of the app that names it. Reports
/// no problems: [`resolve`] does.
pub fn env_files_wanted(file_text: &str, start_folder: &str, typed: &Overrides) -> Vec<(String, FileUser)> {
    let raws = raw::parse_file(file_text, &mut Found::default()).app.map(|at| at.value).unwrap_or_default();
    let (several, mut wanted) = (raws.len() > 1, Vec::new());
    for mut raw in raws {
        raw.overlay(&typed.options, several, &mut Found::default());
        for file in raw.env_file.iter().flat_map(|at| &at.value) {
            wanted.push((absolute(start_folder, &file.value).display().to_string(), file_user(&raw)));
        }
    }
    wanted
}

/// Whose rights the files that an app names are read with.
fn file_user(raw: &RawApp) -> FileUser {
    let written = |at: Option<&At<Option<String>>>| at.and_then(|at| at.value.clone());
    FileUser { user: written(raw.user.as_ref()), group: written(raw.group.as_ref()) }
}

/// Options of the command line that are invalid alone or with this file.
fn check_overrides(sources: &Sources, raws: &[RawApp], found: &mut Found) {
    let typed = &sources.overrides;
    if sources.file.is_some() && !typed.command.is_empty() {
        found.add(Spot::Whole, "a command and a configuration file were given: give one of them");
    }
    if sources.file.is_none() && typed.command.is_empty() {
        found.add(Spot::Whole, "nothing to run: give a command (clusterd -- node app.js) or a file (-c cluster.toml)");
    }
    if raws.len() > 1 {
        for flag in flags().iter().filter(|one| one.flag.for_one_app && typed.options.has(one.flag.long)) {
            found.add(
                Spot::Option(flag.flag.option),
                format!("the file has {} apps and this fits only one: write it into the file", raws.len()),
            );
        }
    }
    for wanted in &typed.env_names {
        let known: Vec<&str> = raws.iter().flat_map(env_tables).collect();
        if known.contains(&wanted.as_str()) {
            continue;
        }
        let hint = match known.as_slice() {
            [] if sources.file.is_some() => "the file has no env.NAME table; leave --env out".to_owned(),
            [] => {
                format!("env.NAME tables come from a configuration file; for a variable write --env NODE_ENV={wanted}")
            }
            _ => format!("the file has {}{}", known.join(", "), name::did_you_mean(wanted, &known)),
        };
        found.add(Spot::Option("--env"), format!("there is no table env.{}: {hint}", wanted.escape_debug()));
    }
}

/// The names of an app's `env.NAME` tables.
fn env_tables(raw: &RawApp) -> impl Iterator<Item = &str> {
    raw.env.iter().flat_map(|at| at.value.named.keys().map(String::as_str))
}

/// Lays the command line over one app.
fn overlay(raw: &mut RawApp, typed: &Overrides, several: bool, found: &mut Found) {
    if raw.command.is_none() && !raw.bad.contains(&"command") && !typed.command.is_empty() {
        raw.command = found.keep(Spot::Whole, parse::command(&typed.command).map(|()| typed.command.clone()));
        if raw.command.is_none() {
            raw.bad.push("command");
        }
    }
    let paths = raw.watch.take_if(|at| matches!(at.value, Watched::Paths(_)));
    raw.overlay(&typed.options, several, found);
    if paths.is_some() {
        raw.watch = paths; // --watch switches on, and says nothing of what is watched.
    }
    if let paths @ [_, ..] = typed.options.all("watch-path") {
        raw.watch = Some(At { value: Watched::Paths(paths.to_vec()), spot: Spot::Option("--watch-path") });
    }
    if let Some(text) = typed.options.get("spin-sleep") {
        let restart = &mut raw.restart.get_or_insert_with(whole).value;
        for place in [&mut restart.backoff_first, &mut restart.backoff_min, &mut restart.backoff_max] {
            *place = found.keep(Spot::Option("--spin-sleep"), parse::duration(text));
        }
    }
    if !several {
        overlay_listen(raw, typed, found);
    }
    for (name, value) in &typed.env {
        if let Err(message) = env_file::check(name, value) {
            found.add(Spot::Option("--env"), message.to_string());
        }
    }
}

/// A value that was not typed.
fn whole<T: Default>() -> At<T> {
    At { value: T::default(), spot: Spot::Whole }
}

/// `--port`, `--host` and `--listen` together replace what the file says.
fn overlay_listen(raw: &mut RawApp, typed: &Overrides, found: &mut Found) {
    let (port, listen) = (typed.options.has("port"), typed.options.has("listen"));
    let host = typed.options.get("host");
    if host.is_some() && !port {
        found.add(Spot::Option("--host"), "--host goes with --port; or write --listen HOST:PORT");
    }
    if port && !listen {
        raw.listen = None;
    } else if listen && !port {
        raw.port = None;
    }
    if let (Some(host), true) = (host, port)
        && let Some(port) = raw.port.take()
    {
        let address = found.keep(Spot::Option("--host"), parse::host_and_port(host, port.value));
        let address = address.map(|at| ListenEntry::at(at.value, at.spot));
        raw.listen.get_or_insert_with(whole).value.splice(0..0, address);
    }
}

/// The name of every app: typed names must differ, the others get a free one.
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

/// Makes paths of sockets absolute and reports conflicting addresses, over all apps.
fn check_addresses(raws: &mut [RawApp], names: &[String], sources: &Sources, found: &mut Found) {
    let text = sources.file.as_ref().map_or("", |file| &file.text);
    let mut before: Vec<(At<ListenEntry>, usize)> = Vec::new();
    for (index, raw) in raws.iter_mut().enumerate() {
        let listen = &mut raw.listen.get_or_insert_with(whole).value;
        if let Some(port) = raw.port.take() {
            listen.insert(0, ListenEntry::at(Listen::Any(port.value), port.spot));
        }
        if let Some(extra) = listen.get(LISTENERS_PER_APP_MAX) {
            let most = LISTENERS_PER_APP_MAX;
            found.add(extra.spot, format!("too many addresses to listen on: {most} is the most for one app"));
            listen.truncate(most);
        }
        for listen in listen {
            if found.is_full() {
                return;
            }
            if let Listen::Unix(path) = &mut listen.value.address {
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
            if let Some((other, owner)) =
                before.iter().find(|(other, _)| address::overlap(&other.value.address, &listen.value.address))
            {
                let whose = if *owner == index {
                    "the same app".to_owned()
                } else {
                    format!("app \"{}\"", names.get(*owner).map_or("", String::as_str))
                };
                found.add(
                    listen.spot,
                    format!(
                        "{} is taken by {} of {whose}{}",
                        listen.value.address,
                        other.value.address,
                        on_line(other.spot, text)
                    ),
                );
            }
            before.push((listen.clone(), index));
        }
    }
}

/// One app with every default filled in, or `None` if problems leave no app.
fn decide(mut raw: RawApp, name: String, sources: &Sources, found: &mut Found) -> Option<App> {
    let env = environment(&raw, sources, found);
    check_slot_variables(&raw, &env, found);
    let restart = decide_restart(raw.restart.take().map(|at| at.value).unwrap_or_default(), found);
    let protocol = raw.protocol.as_ref().map_or(defaults::PROTOCOL, |at| at.value);
    let balance = raw.balance.as_ref().map_or(defaults::BALANCE, |at| at.value).least();
    check_protocol(&raw, protocol, balance, found);
    let limits = raw.limits.take().map(|at| at.value).unwrap_or_default();
    let limits = decide_limits(limits, protocol, balance, found);
    let agent = agent::decide(raw.agent.take(), found);
    let cwd = raw.cwd.take().map(|at| absolute(&sources.start_folder, &at.value));
    let folder = cwd.clone().unwrap_or_else(|| std::path::PathBuf::from(&sources.start_folder));
    let log_folder = folder.display().to_string();
    let log = raw.log.take().map(|at| at.value).unwrap_or_default();
    let log = super::log::decide(log, &name, &log_folder, sources, found);
    let Some(command) = raw.command.take() else {
        if !raw.bad.contains(&"command")
            && let Some(spot) = raw.spot()
        {
            found.add(spot, "command is missing: say what to run, for example command = [\"node\", \"app.js\"]");
        }
        return None;
    };
    let listens = raw.listen.as_ref().is_some_and(|listen| !listen.value.is_empty());
    let workers = if listens { defaults::WORKERS } else { defaults::WORKERS_WITHOUT_ADDRESS };
    let scale = raw.scale.take().filter(|_| !raw.bad.contains(&"workers"));
    let scale = scaling::decide(scale, raw.workers.as_ref(), protocol, found);
    let entries: Vec<ListenEntry> = raw.listen.take().into_iter().flat_map(|at| at.value).map(|at| at.value).collect();
    let access = entries.iter().filter_map(|entry| match &entry.address {
        Listen::Unix(path) if entry.access != SocketAccess::default() => Some((path.clone(), entry.access.clone())),
        _ => None,
    });
    let warm_up_spot = raw.warmup.as_ref().map(|at| at.spot);
    let warm_up = warm_up::decide(&mut raw, found);
    let reload = decide_reload(raw.reload.take().map(|at| at.value).unwrap_or_default(), warm_up.is_some());
    let rest = AppRest {
        name,
        command: command.value,
        workers: raw.workers.take().map_or(workers, |at| at.value.least),
        scale,
        socket_access: access.collect(),
        listen: entries.into_iter().map(|entry| entry.address).collect(),
        env,
        base_env: sources.base_env.clone(),
        depends_on: raw.depends_on.take().into_iter().flat_map(|at| at.value).map(|at| at.value).collect(),
        filter_env: raw.filter_env.take().into_iter().flat_map(|at| at.value).map(|at| at.value).collect(),
        warm_up,
        cwd,
        folder,
        watch: decide_watch(&mut raw, sources),
        restart,
        reload,
        alive: decide_alive(raw.alive.take().map(|at| at.value).unwrap_or_default(), protocol, found),
        hooks: hooks::decide(raw.hooks.take().map(|at| at.value).unwrap_or_default()),
        limits,
        agent,
        log,
    };
    let spares = raw.spares.as_ref().map(|at| at.spot);
    let app = raw.decide(rest);
    check_spares(&app, spares, found);
    warm_up::check(&app, warm_up_spot, found);
    Some(app)
}

/// A new worker that is warmed up needs no time to settle, unless that was typed.
fn decide_reload(raw: RawReload, is_warmed_up: bool) -> Reload {
    let settles = raw.settle.is_some() || !is_warmed_up;
    let reload = raw.decide();
    if settles { reload } else { Reload { settle: Duration::ZERO, ..reload } }
}

/// Reports spares that the typed protocol, or the typed balance with any protocol, could not hold back.
fn check_spares(app: &App, spot: Option<Spot>, found: &mut Found) {
    let Some(((protocol, balance), spot)) = rules::typed(app).zip(spot) else { return };
    if let Err(message) = rules::spares(protocol, balance, app) {
        found.add(spot, message.to_string());
    }
}

/// Reports settings that the typed protocol does not allow.
fn check_protocol(raw: &RawApp, protocol: Protocol, balance: Balance, found: &mut Found) {
    let Some(protocol) = protocol.exactly() else { return };
    if let Some(ready) = &raw.ready
        && let Err(message) = rules::ready(protocol, ready.value.as_ref(), true)
    {
        found.add(ready.spot, message.to_string());
    }
    if let Some(typed) = &raw.balance
        && let Err(message) = rules::balance(protocol, balance)
    {
        found.add(typed.spot, message.to_string());
    }
    if let Some(metrics) = &raw.metrics
        && let Err(message) = rules::metrics(protocol, metrics.value)
    {
        found.add(metrics.spot, message.to_string());
    }
    if let Some(listen) = raw.listen.as_ref().and_then(|at| at.value.first())
        && let Err(message) = rules::listen(protocol, true)
    {
        found.add(listen.spot, message.to_string());
    }
}

/// The watched files. Ignore patterns alone watch nothing.
fn decide_watch(raw: &mut RawApp, sources: &Sources) -> Option<Watch> {
    let paths = match raw.watch.take()?.value {
        Watched::Nothing => return None,
        Watched::Folder => Vec::new(),
        Watched::Paths(paths) => paths.iter().map(|path| absolute(&sources.start_folder, path)).collect(),
    };
    let ignore = raw.watch_ignore.take().map(|at| at.value).unwrap_or_default();
    Some(Watch {
        paths,
        ignore: ignore.into_iter().map(|at| at.value).collect(),
        delay: raw.watch_delay.take().map_or(defaults::WATCH_DELAY, |at| at.value),
    })
}

fn decide_restart(raw: RawRestart, found: &mut Found) -> Restart {
    let spot = raw.backoff_min.as_ref().map(|at| at.spot).or(raw.backoff_max.as_ref().map(|at| at.spot));
    let restart = raw.decide();
    let (min, max) = (restart.backoff_min, restart.backoff_max);
    if let Some(spot) = spot.filter(|_| min > max) {
        found.add(spot, format!("backoff_min ({min:?}) is longer than backoff_max ({max:?})"));
    }
    restart
}

fn decide_limits(raw: RawLimits, protocol: Protocol, balance: Balance, found: &mut Found) -> Limits {
    let spots = [raw.hang.as_ref().map(|at| at.spot), raw.max_connections.as_ref().map(|at| at.spot)];
    let report = raw.hang_report.as_ref().filter(|at| at.value).map(|at| at.spot);
    let limits = raw.decide();
    if let Some(spot) = report.filter(|_| limits.hang.is_none()) {
        found.add(spot, "hang_report does nothing without hang");
    }
    if let Some(protocol) = protocol.exactly()
        && let Err(message) = rules::limits(protocol, balance, &limits)
        && let Some(spot) = spots.into_iter().flatten().next()
    {
        found.add(spot, message.to_string());
    }
    limits
}

fn decide_alive(raw: RawAlive, protocol: Protocol, found: &mut Found) -> Alive {
    let http = raw.http.as_ref().map(|at| at.spot);
    let tcp = raw.tcp.as_ref().filter(|at| at.value).map(|at| at.spot);
    let mut ways = [http, tcp, raw.exec.as_ref().map(|at| at.spot)].into_iter().flatten();
    let others = [raw.every.as_ref().map(|at| at.spot), raw.timeout.as_ref().map(|at| at.spot)];
    let alive = raw.decide();
    match (ways.next(), protocol.exactly()) {
        (None, _) => {
            // The defaults may be written.
            if let Some(spot) = others.into_iter().flatten().next().filter(|_| alive != Alive::default()) {
                found.add(spot, "nothing is asked: http (a path such as \"/healthz\"), tcp or exec is missing");
            }
        }
        (Some(spot), Some(protocol)) => {
            if let Err(message) = rules::alive(protocol, &alive) {
                found.add(spot, message.to_string());
            }
        }
        (Some(_), None) => {}
    }
    if let Some(spot) = ways.next() {
        found.add(spot, "http, tcp and exec are three ways to ask the same; keep one of them");
    }
    alive
}

/// The variables of one app. Later ones win: `env_file`, `env`, the chosen `env.NAME`, `--env-file`, `--env`.
fn environment(raw: &RawApp, sources: &Sources, found: &mut Found) -> BTreeMap<String, String> {
    let typed = &sources.overrides;
    let mut env = BTreeMap::new();
    let user = file_user(raw);
    for file in raw.env_file.iter().flat_map(|at| &at.value) {
        let path = absolute(&sources.start_folder, &file.value).display().to_string();
        read_env_file(&path, &user, file.spot, sources, &mut env, found);
    }
    if let Some(At { value: variables, .. }) = &raw.env {
        env.extend(variables.plain.clone());
        for table in typed.env_names.iter().filter_map(|name| variables.named.get(name)) {
            env.extend(table.clone());
        }
    }
    for path in &typed.env_files {
        read_env_file(path, &FileUser::default(), Spot::Option("--env-file"), sources, &mut env, found);
    }
    env.extend(typed.env.iter().cloned());
    env
}

/// Variables that clusterd sets per slot must not be used for anything else.
fn check_slot_variables(raw: &RawApp, env: &BTreeMap<String, String>, found: &mut Found) {
    if let Some(At { value: name, spot }) = raw.instance_var.as_ref().filter(|at| env.contains_key(&at.value)) {
        found.add(*spot, format!("env sets {name} too: instance_var would write the slot over it"));
    }
    let Some(At { value: Some(name), spot }) = &raw.increment_var else { return };
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

fn read_env_file(
    path: &str,
    user: &FileUser,
    spot: Spot,
    sources: &Sources,
    env: &mut BTreeMap<String, String>,
    found: &mut Found,
) {
    let short = shown(&sources.start_folder, path);
    // Sources of an earlier version name no users.
    let of_user = sources.env_files.iter().find(|file| file.path == path && file.user == *user);
    match of_user.or_else(|| sources.env_files.iter().find(|file| file.path == path && file.user.is_own())) {
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
