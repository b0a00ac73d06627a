//! What `top` knows, and what a key means: news and keys in, orders out. Pure; time is an argument. How it looks is
//! decided in `view`.
use super::follow::Voice;
use super::rates::{self, AppRates, Rates};
use crate::api::types::{App, AppStatus, Deployment, Worker};
use crate::cli::apply::COMMANDS_AT_ONCE_MAX;
use crate::cli::target::Found;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

/// `top` shows a master as silent after this time without an answer, in milliseconds.
pub(super) const TOP_SILENT_MS: u64 = 3_000;
/// How long `top` shows a success, in milliseconds.
pub(super) const TOP_SAID_MS: u64 = 15_000;
/// Log lines that `top` keeps.
pub(super) const TOP_LOG_LINES_MAX: usize = 500;

/// An app: its deployment and its name.
pub(super) type AppKey = (String, String);

/// A row that can be selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowKey {
    App(AppKey),
    /// Slot and id.
    Worker(AppKey, u32, Option<u64>),
}

impl RowKey {
    pub(super) fn app(&self) -> &AppKey {
        match self {
            RowKey::App(app) | RowKey::Worker(app, ..) => app,
        }
    }
}

/// What `watch` found out.
#[derive(Debug)]
pub(super) enum News {
    /// Who is in the home now.
    Home { masters: Vec<Place>, gone: Vec<Gone>, wrong: Vec<String> },
    /// A master's answer.
    Answer { name: String, answer: Result<Box<Answer>, String> },
    /// Nobody listens on its socket.
    Dead { name: String },
}

/// A master's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Its apps, as its entry has them.
    pub(super) apps: Vec<(Option<u32>, String)>,
}

/// An app whose keeper was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) deployment: String,
    pub(super) app: String,
    pub(super) id: u32,
    pub(super) socket: PathBuf,
}

/// One look at a master.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) deployment: Deployment,
    /// Connections that draining workers hold, by app.
    pub(super) held: BTreeMap<String, usize>,
}

/// A key, whatever the terminal sends for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Enter,
    Escape,
    Interrupt,
    Redraw,
    Suspend,
    Char(char),
}

/// What is to be done about a key.
#[derive(Debug)]
pub(super) enum Do {
    Quit,
    Redraw,
    Suspend,
    Run(Order),
}

/// What a command is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Reload,
    Restart,
    More,
    Less,
    Stop,
    Start,
}

/// A command that is to be run.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Counts them.
    pub(super) number: u64,
    pub(super) verb: Verb,
    pub(super) target: Found,
}

/// A command that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) verb: Verb,
    pub(super) app: AppKey,
}

/// What came of the last command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) ok: bool,
    pub(super) text: String,
    at_ms: u64,
}

/// A master, and what was last seen of it.
#[derive(Debug)]
pub(super) struct MasterView {
    pub(super) place: Place,
    pub(super) seen: Option<Box<Answer>>,
    pub(super) rates: Option<BTreeMap<String, AppRates>>,
    /// When it answered last, or was first heard of.
    answered_ms: u64,
    failure: Option<String>,
}

impl MasterView {
    /// Why what is shown of it is old, if it is.
    pub(super) fn silence(&self, now_ms: u64) -> Option<String> {
        let silent_ms = now_ms.saturating_sub(self.answered_ms);
        if silent_ms < TOP_SILENT_MS {
            return None;
        }
        let why = self.failure.as_deref().unwrap_or("not answering");
        Some(format!("its master has given no answer for {} s ({why})", silent_ms / 1000))
    }
}

/// One row, as it is.
#[derive(Debug)]
pub(super) enum Item<'a> {
    App {
        app: &'a App,
        master: &'a MasterView,
        rates: Rates,
        open: bool,
    },
    Worker {
        worker: &'a Worker,
        app: &'a App,
        master: &'a MasterView,
        rates: Rates,
    },
    /// No more is known of it than its name: it is gone, or its master never answered.
    Bare {
        id: Option<u32>,
        name: &'a str,
        master: Option<&'a MasterView>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Model {
    masters: BTreeMap<String, MasterView>,
    gone: Vec<Gone>,
    /// Entries that cannot be read.
    pub(super) wrong: Vec<String>,
    /// Whether anybody looked yet.
    pub(super) looked: bool,
    known: BTreeSet<AppKey>,
    open: BTreeSet<AppKey>,
    pub(super) selected: usize,
    key: Option<RowKey>,
    pub(super) offset: usize,
    /// Rows that the table shows.
    room: usize,
    /// Rows that it could show, were there more of them: then the log shrinks.
    room_most: usize,
    pub(super) question: Option<Order>,
    pub(super) pending: Vec<Pending>,
    pub(super) said: Option<Said>,
    pub(super) help: bool,
    pub(super) log_hidden: bool,
    /// The last lines of the log, and whose words they are.
    pub(super) log: VecDeque<(Voice, String)>,
    orders: u64,
}

impl Model {
    // ---- news ----

    pub(super) fn apply(&mut self, news: News, now_ms: u64) {
        match news {
            News::Home { masters, gone, wrong } => {
                let names: BTreeSet<&str> = masters.iter().map(|place| place.name.as_str()).collect();
                self.masters.retain(|name, _| names.contains(name.as_str()));
                for place in masters {
                    let fresh =
                        |place| MasterView { place, seen: None, rates: None, answered_ms: now_ms, failure: None };
                    match self.masters.get_mut(&place.name) {
                        Some(master) => master.place = place,
                        None => drop(self.masters.insert(place.name.clone(), fresh(place))),
                    }
                }
                (self.gone, self.wrong, self.looked) = (gone, wrong, true);
            }
            News::Dead { name } => drop(self.masters.remove(&name)),
            News::Answer { name, answer } => {
                let Some(master) = self.masters.get_mut(&name) else { return };
                match answer {
                    Err(why) => master.failure = Some(why),
                    Ok(answer) => {
                        let before = master.seen.as_ref().map(|seen| &seen.deployment);
                        master.rates = before.and_then(|before| rates::between(before, &answer.deployment));
                        master.seen = Some(answer);
                        (master.answered_ms, master.failure) = (now_ms, None);
                        self.open_new_apps(&name);
                    }
                }
            }
        }
        self.select_again();
    }

    /// The workers of an app that is seen for the first time are shown where there is room for them.
    fn open_new_apps(&mut self, master: &str) {
        let Some(seen) = self.masters.get(master).and_then(|master| master.seen.as_ref()) else { return };
        let apps: Vec<(AppKey, usize)> =
            seen.deployment.apps.iter().map(|app| ((master.to_owned(), app.name.clone()), app.workers.len())).collect();
        for (key, workers) in apps {
            if self.known.insert(key.clone()) && self.items().len() + workers <= self.room_most {
                self.open.insert(key);
            }
        }
    }

    /// A command has ended.
    pub(super) fn ended(&mut self, number: u64, outcome: Result<String, String>, now_ms: u64) {
        let Some(at) = self.pending.iter().position(|pending| pending.number == number) else { return };
        let pending = self.pending.remove(at);
        let (ok, text) = match outcome {
            Ok(text) => (true, text),
            Err(why) if why.starts_with(&format!("{}: ", pending.app.1)) => (false, why),
            Err(why) => (false, format!("{}: {why}", pending.app.1)),
        };
        self.said = Some(Said { ok, text, at_ms: now_ms });
    }

    /// Lines that the log grew by; `is_new_log`: it is another log.
    pub(super) fn log(&mut self, lines: Vec<(Voice, String)>, is_new_log: bool) {
        if is_new_log {
            self.log.clear();
        }
        self.log.extend(lines);
        let over = self.log.len().saturating_sub(TOP_LOG_LINES_MAX);
        self.log.drain(..over);
    }

    /// Time goes by: good news is not shown for ever.
    pub(super) fn tick(&mut self, now_ms: u64) {
        if self.said.as_ref().is_some_and(|said| said.ok && said.at_ms + TOP_SAID_MS <= now_ms) {
            self.said = None;
        }
    }

    /// The table shows so many rows: the selected one is to be among them.
    pub(super) fn settle(&mut self, room: usize, room_most: usize) {
        (self.room, self.room_most) = (room, room_most);
        let last = self.items().len().saturating_sub(1);
        self.offset = self.offset.min((last + 1).saturating_sub(room));
        self.offset = self.offset.min(self.selected).max((self.selected + 1).saturating_sub(room.max(1)));
    }

    // ---- rows ----

    /// Every row with what it stands for, apps in the order of their ids.
    pub(super) fn items(&self) -> Vec<(RowKey, Item<'_>)> {
        let mut apps: Vec<(Option<u32>, AppKey, Item<'_>)> = Vec::new();
        for (name, master) in &self.masters {
            let Some(seen) = &master.seen else {
                apps.extend(master.place.apps.iter().map(|(id, app)| {
                    let item = Item::Bare { id: *id, name: app, master: Some(master) };
                    (*id, (name.clone(), app.clone()), item)
                }));
                continue;
            };
            for app in &seen.deployment.apps {
                let key = (name.clone(), app.name.clone());
                let rates = rates_of(master, app).map(|rates| rates.all).unwrap_or_default();
                let open = self.open.contains(&key);
                apps.push((app.id, key, Item::App { app, master, rates, open }));
            }
        }
        for gone in &self.gone {
            let key = (gone.deployment.clone(), gone.app.clone());
            apps.push((Some(gone.id), key, Item::Bare { id: Some(gone.id), name: &gone.app, master: None }));
        }
        apps.sort_by(|a, b| (a.0.is_none(), a.0, &a.1).cmp(&(b.0.is_none(), b.0, &b.1)));
        let mut rows = Vec::new();
        for (_, key, item) in apps {
            let workers = match &item {
                Item::App { app, master, open: true, .. } => workers(&key, app, master),
                Item::App { .. } | Item::Worker { .. } | Item::Bare { .. } => Vec::new(),
            };
            rows.push((RowKey::App(key), item));
            rows.extend(workers);
        }
        rows
    }

    /// Every app that was seen, with its rates: for the totals.
    pub(super) fn apps(&self) -> impl Iterator<Item = (&App, Rates)> {
        self.masters.values().flat_map(|master| {
            let apps = master.seen.iter().flat_map(|seen| &seen.deployment.apps);
            apps.map(move |app| (app, rates_of(master, app).map(|rates| rates.all).unwrap_or_default()))
        })
    }

    pub(super) fn gone_count(&self) -> usize {
        self.gone.len()
    }

    /// What is known of an app.
    pub(super) fn find(&self, key: &AppKey) -> Option<(&Answer, &App)> {
        let seen = self.masters.get(&key.0)?.seen.as_ref()?;
        Some((seen, seen.deployment.apps.iter().find(|app| app.name == key.1)?))
    }

    /// The app whose row, or whose worker's, is selected; and whether its deployment is in the background.
    pub(super) fn selected_app(&self) -> Option<(AppKey, bool)> {
        let key = self.key.as_ref()?.app().clone();
        let background = match self.masters.get(&key.0) {
            Some(master) => master.seen.as_ref().is_none_or(|seen| seen.deployment.background),
            None => true,
        };
        Some((key, background))
    }

    /// After rows came or went: the same row, or one of the same app, or the one that took its place.
    fn select_again(&mut self) {
        let rows: Vec<RowKey> = self.items().into_iter().map(|(key, _)| key).collect();
        let same_slot = |row: &RowKey| match (row, &self.key) {
            (RowKey::Worker(app, slot, _), Some(RowKey::Worker(own, own_slot, _))) => app == own && slot == own_slot,
            _ => false,
        };
        let at = rows
            .iter()
            .position(|row| Some(row) == self.key.as_ref())
            .or_else(|| rows.iter().rposition(same_slot))
            .or_else(|| {
                let own = self.key.as_ref().map(RowKey::app)?;
                rows.iter().position(|row| matches!(row, RowKey::App(app) if app == own))
            });
        self.selected = at.unwrap_or(self.selected).min(rows.len().saturating_sub(1));
        self.key = rows.into_iter().nth(self.selected);
    }

    fn select(&mut self, at: usize) {
        let rows: Vec<RowKey> = self.items().into_iter().map(|(key, _)| key).collect();
        self.selected = at.min(rows.len().saturating_sub(1));
        self.key = rows.into_iter().nth(self.selected);
    }

    // ---- keys ----

    pub(super) fn press(&mut self, key: Key) -> Option<Do> {
        match key {
            Key::Interrupt => return Some(Do::Quit),
            Key::Redraw => return Some(Do::Redraw),
            Key::Suspend => return Some(Do::Suspend),
            _ => {}
        }
        if self.help {
            self.help = false;
            return (key == Key::Char('q')).then_some(Do::Quit);
        }
        if let Some(order) = self.question.take() {
            return match key {
                Key::Char('y' | 'Y') => self.begin(order),
                Key::Char('n' | 'N' | 'q') | Key::Escape => None,
                _ => {
                    self.question = Some(order);
                    None
                }
            };
        }
        let page = self.room.saturating_sub(1).max(1);
        match key {
            Key::Up | Key::Char('k') => self.select(self.selected.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(self.selected + 1),
            Key::PageUp => self.select(self.selected.saturating_sub(page)),
            Key::PageDown => self.select(self.selected + page),
            Key::First | Key::Char('g') => self.select(0),
            Key::Last | Key::Char('G') => self.select(usize::MAX),
            Key::Enter | Key::Char(' ') => self.fold(),
            Key::Char('l') => self.log_hidden = !self.log_hidden,
            Key::Char('?' | 'h') => self.help = true,
            Key::Char('q') => return Some(Do::Quit),
            // What is in the way goes first.
            Key::Escape if self.said.take().is_some() => {}
            Key::Escape => return Some(Do::Quit),
            Key::Char('r') => return self.order(Verb::Reload),
            Key::Char('R') => return self.order(Verb::Restart),
            Key::Char('+' | '=') => return self.order(Verb::More),
            Key::Char('-') => return self.order(Verb::Less),
            Key::Char('s') => return self.order(Verb::Stop),
            Key::Interrupt | Key::Redraw | Key::Suspend | Key::Char(_) => {}
        }
        None
    }

    /// Shows the workers of the selected app, or no more.
    fn fold(&mut self) {
        let Some(row) = self.key.clone() else { return };
        if !self.open.remove(row.app()) {
            self.open.insert(row.app().clone());
        } else if let RowKey::Worker(app, ..) = row {
            self.key = Some(RowKey::App(app));
        }
        self.select_again();
    }

    /// What a key orders for the selected app; some things are asked again first.
    fn order(&mut self, verb: Verb) -> Option<Do> {
        let key = self.key.as_ref()?.app().clone();
        let refused = |why: &str| Some(Said { ok: false, text: format!("{}: {why}", key.1), at_ms: 0 });
        let Some(target) = self.target(&key) else {
            self.said = refused("its master has not answered yet; wait a moment");
            return None;
        };
        let status = target.view.as_ref().map(|app| app.status);
        let verb = match (verb, status) {
            (Verb::Stop, None | Some(AppStatus::Stopped | AppStatus::Errored)) => Verb::Start,
            (Verb::Reload | Verb::More | Verb::Less, None) => {
                self.said = refused("its keeper is gone; s starts it again");
                return None;
            }
            (verb, _) => verb,
        };
        self.orders += 1;
        let order = Order { number: self.orders, verb, target };
        match verb {
            Verb::Restart | Verb::Stop => {
                self.question = Some(order);
                None
            }
            Verb::Reload | Verb::More | Verb::Less | Verb::Start => self.begin(order),
        }
    }

    fn begin(&mut self, order: Order) -> Option<Do> {
        self.said = None;
        if self.pending.len() >= COMMANDS_AT_ONCE_MAX {
            let text = format!("{} commands run already", self.pending.len());
            self.said = Some(Said { ok: false, text, at_ms: 0 });
            return None;
        }
        let app = (order.target.deployment.clone(), order.target.app.clone());
        self.pending.push(Pending { number: order.number, verb: order.verb, app });
        Some(Do::Run(order))
    }

    fn target(&self, key: &AppKey) -> Option<Found> {
        let (deployment, app) = key.clone();
        if let Some((seen, view)) = self.find(key) {
            let socket = self.masters.get(&key.0)?.place.path.clone();
            let (id, background) = (view.id, seen.deployment.background);
            return Some(Found {
                deployment,
                socket,
                app,
                id,
                view: Some(Box::new(view.clone())),
                background,
                slot: None,
            });
        }
        let gone = self.gone.iter().find(|gone| gone.deployment == key.0 && gone.app == key.1)?;
        let socket = gone.socket.clone();
        Some(Found { deployment, socket, app, id: Some(gone.id), view: None, background: true, slot: None })
    }
}

fn rates_of<'a>(master: &'a MasterView, app: &App) -> Option<&'a AppRates> {
    master.rates.as_ref()?.get(&app.name)
}

fn workers<'a>(key: &AppKey, app: &'a App, master: &'a MasterView) -> Vec<(RowKey, Item<'a>)> {
    let rates = rates_of(master, app);
    let of = |worker: &Worker| rates.and_then(|rates| rates.workers.get(&worker.id?).copied()).unwrap_or_default();
    let row = |worker: &'a Worker| {
        let item = Item::Worker { worker, app, master, rates: of(worker) };
        (RowKey::Worker(key.clone(), worker.slot, worker.id), item)
    };
    app.workers.iter().map(row).collect()
}
