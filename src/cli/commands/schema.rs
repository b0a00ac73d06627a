//! `clusterd schema`: the JSON schema of the configuration, for editors.
use crate::config::schema::json;
use clap::Args;

/// Print the JSON schema of the configuration, for editors
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Schema {}

impl Schema {
    pub(super) fn text(&self) -> String {
        json::schema()
    }
}
