//! The settings: one entry per key in `keys`, from which come the parser, the flags of a run, the file that `init` writes,
//! the tables in `docs/` and the JSON schema for editors. Here is what an entry says; what a key may hold is in `kinds`.
pub(crate) mod addresses;
mod attribute_kinds;
pub(crate) mod flags;
pub mod json;
pub(crate) mod keys;
pub(crate) mod kinds;
mod nested;
pub mod reference;
pub(crate) mod reload_keys;
pub mod sample;
pub(crate) mod scale_keys;

use super::options::Options;
use super::problem::{At, Found, Spot};
use super::raw::{Entry, Walk, entries};
use super::value_error::ValueError;
pub use flags::{Flag, RunFlag, Takes, flags, pm2_instances};
use kinds::Kind;
use serde_json::Value;
use toml::de::DeTable;

/// A table of the configuration file.
#[derive(Debug)]
pub struct Scope {
    /// As in the file, without brackets: `app.limits`; empty for the file itself.
    pub path: &'static str,
    /// What the table is for, in one line.
    pub help: &'static str,
    /// It has a meaning by being there, so that `init` writes it as a comment.
    pub optional: bool,
}

/// One key of the configuration file.
pub struct Setting {
    /// The table that has the key.
    pub scope: &'static Scope,
    pub name: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// What else the reference says of it.
    pub more: &'static str,
    /// The part of the reference that lists it; empty where its scope has one table.
    pub section: &'static str,
    /// The same on the command line.
    pub flag: Option<Flag>,
    /// A value that shows how it is written, as TOML.
    pub example: Option<&'static str>,
    /// What `init` sets it to, as TOML, where that is not the default.
    pub initial: Option<&'static str>,
    /// The default in words, where it is not a value.
    pub unset: Option<&'static str>,
    /// The default as TOML.
    pub default: fn() -> Option<String>,
    /// What may be written.
    pub words: fn() -> String,
    /// The same as a JSON schema.
    pub schema: fn() -> Value,
    /// Whether a word of the command line can be its value.
    pub check: fn(&str) -> Result<(), ValueError>,
    /// Whether it is a table with a header of its own.
    pub is_table: fn() -> bool,
}

/// A table of the file as typed.
pub(crate) trait Raw: Default {
    const SCOPE: &'static Scope;
    const SETTINGS: &'static [Setting];

    /// Where the table begins; `None` where it is not in the file.
    fn spot(&self) -> Option<Spot>;

    /// Sets that.
    fn begins_at(&mut self, spot: Spot);

    /// Reads one key; `false`: the table has no such key.
    fn take(&mut self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> bool;

    /// Lays the command line over the file. `several`: the file has more than one app.
    fn overlay(&mut self, typed: &Options, several: bool, found: &mut Found);
}

/// Every key of a table, with what is unknown noted.
pub(crate) fn read_table<T: Raw>(walk: &mut Walk<'_>, table: &DeTable<'_>, spot: Spot) -> T {
    let mut raw = T::default();
    raw.begins_at(spot);
    for entry in entries(table) {
        if !raw.take(walk, &entry) {
            walk.unknown(&entry, T::SCOPE, T::SETTINGS);
        }
    }
    raw
}

/// Lays the words of one flag over a key. `several`: the file has more than one app.
fn overlay<K: Kind>(
    place: &mut Option<At<K::Value>>,
    kind: &K,
    flag: &Flag,
    typed: &Options,
    several: bool,
    found: &mut Found,
) {
    let words = typed.all(flag.long);
    if !(words.is_empty() || flag.apart || several && flag.for_one_app) {
        *place = kind.parse_all(words, flag.option, found);
    }
}

/// Every key of the file, table by table.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    keys::TABLES.iter().flat_map(|settings| settings.iter())
}

/// The keys of one table, by its path.
pub fn keys_of(path: &str) -> Vec<&'static str> {
    settings().filter(|setting| setting.scope.path == path).map(|setting| setting.name).collect()
}

/// What was typed, or the default.
fn value_or<T>(at: Option<At<T>>, default: T) -> T {
    at.map_or(default, |at| at.value)
}

/// Describes the keys of one table, and makes of it the types of both steps: as typed (`raw`, each key optional and with its
/// place) and as resolved. `keys` says what an entry looks like.
macro_rules! table {
    (
        in $scope:expr; raw $raw:ident;
        $(#[$meta:meta])* resolved $resolved:ident;
        $($keys:tt)*
    ) => {
        raw_table! { $raw, $scope; $($keys)* }
        resolved_table! { $(#[$meta])* $raw, $resolved; $($keys)* }
    };
    (
        in $scope:expr; raw $raw:ident;
        $(#[$meta:meta])* resolved $resolved:ident, with $(#[$rest_meta:meta])* $rest:ident { $($fields:tt)* }
        $($keys:tt)*
    ) => {
        raw_table! { $raw, $scope; $($keys)* }
        resolved_table! { $(#[$meta])* $raw, $resolved with $(#[$rest_meta])* $rest { $($fields)* } $($keys)* }
    };
    (in $scope:expr; raw $raw:ident; $($keys:tt)*) => {
        raw_table! { $raw, $scope; $($keys)* }
    };
}

/// The table as typed, and the description of its keys.
macro_rules! raw_table {
    ($raw:ident, $scope:expr; $(
        #[doc = $help:literal]
        $key:ident: $(raw($raw_type:ty $(= $raw_default:expr)?))? $(plain($type:ty = $default:expr))?, $kind:expr
        $(, unset $unset:literal)? $(, example $example:literal)? $(, initial $initial:literal)?
        $(, section $section:literal)? $(, flag $flag:expr)? $(, more $more:literal)?;
    )*) => {
        #[doc = concat!("The table `", stringify!($scope), "` as typed.")]
        #[derive(Debug, Default)]
        pub(crate) struct $raw {
            spot: Option<Spot>,
            /// Keys that were there and unusable: that they are missing is not said as well.
            pub(crate) bad: Vec<&'static str>,
            $(#[doc = $help] pub(crate) $key: Option<At<$($raw_type)? $($type)?>>,)*
        }

        impl Raw for $raw {
            const SCOPE: &'static Scope = &$scope;
            const SETTINGS: &'static [Setting] = &[$(Setting {
                scope: &$scope,
                name: stringify!($key),
                help: $help,
                more: concat!("", $($more)?),
                section: concat!("", $($section)?),
                flag: { let _flag: Option<Flag> = None; $(let _flag = Some($flag);)? _flag },
                example: { let _example: Option<&str> = None; $(let _example = Some($example);)? _example },
                initial: { let _initial: Option<&str> = None; $(let _initial = Some($initial);)? _initial },
                unset: { let _unset: Option<&str> = None; $(let _unset = Some($unset);)? _unset },
                default: || {
                    let _default: Option<String> = None;
                    $($(let _default = $kind.show(&$raw_default);)?)?
                    $(let _default = { let default: $type = $default; $kind.show(&default) };)?
                    _default
                },
                words: || $kind.words(),
                schema: || $kind.schema(),
                check: |word| $kind.parse(word).map(drop),
                is_table: || $kind.is_table(),
            },)*];

            fn spot(&self) -> Option<Spot> {
                self.spot
            }

            fn begins_at(&mut self, spot: Spot) {
                self.spot = Some(spot);
            }

            fn take(&mut self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> bool {
                match entry.key {
                    $(stringify!($key) => {
                        self.$key = $kind.read(walk, entry);
                        if self.$key.is_none() {
                            self.bad.push(stringify!($key));
                        }
                    })*
                    _ => return false,
                }
                true
            }

            fn overlay(&mut self, typed: &Options, several: bool, found: &mut Found) {
                $($kind.overlay_table(&mut self.$key, typed, several, found);)*
                $($(overlay(&mut self.$key, &$kind, &$flag, typed, several, found);)?)*
            }
        }
    };
}

/// The table as resolved: each plain key with its default, and what is decided apart.
macro_rules! resolved_table {
    ($(#[$meta:meta])* $raw:ident, $resolved:ident; $(
        #[doc = $help:literal]
        $key:ident: $(raw($raw_type:ty $(= $raw_default:expr)?))? $(plain($type:ty = $default:expr))?, $kind:expr
        $(, unset $unset:literal)? $(, example $example:literal)? $(, initial $initial:literal)?
        $(, section $section:literal)? $(, flag $flag:expr)? $(, more $more:literal)?;
    )*) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $resolved {
            $($(#[doc = $help] pub $key: $type,)?)*
        }

        impl Default for $resolved {
            fn default() -> $resolved {
                $resolved { $($($key: { let default: $type = $default; default },)?)* }
            }
        }

        impl $raw {
            /// With every default decided.
            pub(crate) fn decide(self) -> $resolved {
                let default = $resolved::default();
                $resolved { $($($key: { let typed: Option<At<$type>> = self.$key; value_or(typed, default.$key) },)?)* }
            }
        }
    };
    ($(#[$meta:meta])* $raw:ident, $resolved:ident with $(#[$rest_meta:meta])* $rest:ident {
        $(#[doc = $field_help:literal] $field:ident: $field_type:ty,)*
    } $(
        #[doc = $help:literal]
        $key:ident: $(raw($raw_type:ty $(= $raw_default:expr)?))? $(plain($type:ty = $default:expr))?, $kind:expr
        $(, unset $unset:literal)? $(, example $example:literal)? $(, initial $initial:literal)?
        $(, section $section:literal)? $(, flag $flag:expr)? $(, more $more:literal)?;
    )*) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $resolved {
            $(#[doc = $field_help] pub $field: $field_type,)*
            $($(#[doc = $help] pub $key: $type,)?)*
        }

        $(#[$rest_meta])*
        pub(crate) struct $rest {
            $(#[doc = $field_help] pub(crate) $field: $field_type,)*
        }

        impl $raw {
            /// With every default decided.
            pub(crate) fn decide(self, rest: $rest) -> $resolved {
                $resolved {
                    $($field: rest.$field,)*
                    $($($key: { let typed: Option<At<$type>> = self.$key; value_or(typed, $default) },)?)*
                }
            }
        }
    };
}

use {raw_table, resolved_table, table};
