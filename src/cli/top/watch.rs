//! Looks at every master of a home once a second, each by a task of its own: one that hangs delays nobody.
use super::model::{Answer, Gone, News, Place};
use crate::cli::client::{self, ClientError};
use crate::cli::connections;
use crate::home::Home;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// How often `top` queries every master, in milliseconds.
pub(super) const TOP_LOOK_EVERY_MS: u64 = 1_000;

/// Who is asked now, and who was not there the last time.
#[derive(Default)]
struct Asked {
    under_way: BTreeSet<String>,
    dead: BTreeSet<String>,
}

/// Looks until nobody listens any more.
///
/// # Errors
/// The machine gives no runtime.
pub(super) fn watch(home: &Home, tell: impl Fn(News) -> bool + Clone + 'static) -> Result<(), ClientError> {
    let runtime = client::runtime()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let asked = Rc::new(RefCell::new(Asked::default()));
        loop {
            let (there, places) = who_is_there(home, &mut asked.borrow_mut().dead);
            if !tell(there) {
                return Ok(());
            }
            for Place { name, path, .. } in places {
                if asked.borrow_mut().under_way.insert(name.clone()) {
                    let (asked, tell) = (Rc::clone(&asked), tell.clone());
                    tokio::task::spawn_local(async move {
                        let news = ask(name.clone(), path).await;
                        let mut asked = asked.borrow_mut();
                        asked.under_way.remove(&name);
                        match &news {
                            News::Dead { .. } => asked.dead.insert(name),
                            News::Answer { .. } | News::Home { .. } => asked.dead.remove(&name),
                        };
                        drop(asked);
                        // That nobody listens is found out by the loop, too.
                        tell(news);
                    });
                }
            }
            tokio::time::sleep(Duration::from_millis(TOP_LOOK_EVERY_MS)).await;
        }
    })
}

/// Who is in the home, and the sockets to ask: also those on which nobody listened the last time.
fn who_is_there(home: &Home, dead: &mut BTreeSet<String>) -> (News, Vec<Place>) {
    let (mut entries, mut wrong) = (Vec::new(), Vec::new());
    for entry in home.entries() {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(e) => wrong.push(e.to_string()),
        }
    }
    let sockets: BTreeMap<String, PathBuf> = home.sockets().into_iter().collect();
    dead.retain(|name| sockets.contains_key(name));
    let gone = entries.iter().filter(|entry| {
        let answers = sockets.contains_key(&entry.name) && !dead.contains(&entry.name);
        entry.background && !answers && !home.is_alive(&entry.name)
    });
    let gone = gone.flat_map(|entry| {
        entry.apps.iter().map(|app| Gone {
            deployment: entry.name.clone(),
            app: app.name.clone(),
            id: app.id,
            socket: home.socket_path(&entry.name),
        })
    });
    let gone: Vec<Gone> = gone.collect();
    let apps = |name: &str| match entries.iter().find(|entry| entry.name == name) {
        Some(entry) => entry.apps.iter().map(|app| (Some(app.id), app.name.clone())).collect(),
        None => vec![(None, name.to_owned())],
    };
    let places: Vec<Place> = sockets.into_iter().map(|(name, path)| Place { apps: apps(&name), name, path }).collect();
    let masters = places.iter().filter(|place| !dead.contains(&place.name)).cloned().collect();
    (News::Home { masters, gone, wrong }, places)
}

async fn ask(name: String, path: PathBuf) -> News {
    match client::view(&path).await {
        Err(ClientError::Ended) => News::Dead { name },
        Err(error) => News::Answer { name, answer: Err(error.to_string()) },
        Ok(deployment) => {
            let counted = tokio::task::spawn_blocking(move || {
                let apps = deployment.apps.iter();
                let held = apps.filter_map(|app| Some((app.name.clone(), connections::held_by_draining([app])?)));
                Answer { held: held.collect(), deployment }
            });
            let answer = counted.await.map(Box::new).map_err(|e| e.to_string());
            News::Answer { name, answer }
        }
    }
}
