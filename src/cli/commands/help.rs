//! `clusterd help`: the help of the whole, or of one verb.
use clap::{Args, Command};

/// Show this help, or that of a verb
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Help {
    /// The verb
    #[arg(value_name = "VERB")]
    pub verb: Option<String>,
}

impl Help {
    /// `Err`: the word that is not a verb.
    pub(super) fn text(&self, mut whole: Command) -> Result<String, String> {
        let Some(name) = &self.verb else { return Ok(whole.render_help().to_string()) };
        whole.build();
        match whole.find_subcommand_mut(name) {
            Some(verb) => Ok(verb.render_help().to_string()),
            None => Err(name.clone()),
        }
    }
}
