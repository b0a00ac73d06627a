//! Kinds of value that are tables with keys of their own: `[app.NAME]` and `[[app]]`.
use super::kinds::Kind;
use super::{Raw, read_table};
use crate::config::options::Options;
use crate::config::problem::{At, Found, Spot};
use crate::config::raw::{Entry, Walk};
use crate::limits::APPS_MAX;
use serde_json::{Value, json};
use std::marker::PhantomData;
use toml::de::DeValue;

/// A table with keys of its own.
pub(crate) struct Table<T>(pub(crate) PhantomData<T>);

impl<T: Raw> Kind for Table<T> {
    type Value = T;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<T>> {
        let table = walk.table(entry)?;
        Some(At { value: read_table(walk, table, entry.key_spot), spot: entry.key_spot })
    }

    fn words(&self) -> String {
        "table".to_owned()
    }

    fn schema(&self) -> Value {
        super::json::object(T::SETTINGS)
    }

    fn is_table(&self) -> bool {
        true
    }

    fn overlay_table(&self, place: &mut Option<At<T>>, typed: &Options, several: bool, found: &mut Found) {
        // A table that has a meaning by being there is not brought in by a flag.
        if place.is_some() || !T::SCOPE.optional {
            let table = place.get_or_insert_with(|| At { value: T::default(), spot: Spot::Whole });
            table.value.overlay(typed, several, found);
        }
    }
}

/// `[[app]]`: an array of tables.
pub(crate) struct Tables<T>(pub(crate) PhantomData<T>);

impl<T: Raw> Kind for Tables<T> {
    type Value = Vec<T>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Vec<T>>> {
        let DeValue::Array(array) = entry.value else {
            return walk.keep(entry.key_spot, Err(NO_TABLES.to_owned()));
        };
        let tables: Vec<_> = array.iter().filter_map(|item| Some((item.get_ref().as_table()?, item.span()))).collect();
        if tables.len() < array.len() {
            return walk.keep(entry.key_spot, Err(NO_TABLES.to_owned()));
        }
        if tables.len() > APPS_MAX {
            let message = format!("{} apps are too many: {APPS_MAX} is the most", tables.len());
            return walk.keep(entry.key_spot, Err(message));
        }
        let apps = tables.into_iter().map(|(table, span)| read_table(walk, table, Spot::File(span.start))).collect();
        Some(At { value: apps, spot: entry.key_spot })
    }

    fn words(&self) -> String {
        "array of tables".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": "array", "items": super::json::object(T::SETTINGS), "minItems": 1})
    }

    fn is_table(&self) -> bool {
        true
    }
}

const NO_TABLES: &str = "each app begins with [[app]], in double brackets";
