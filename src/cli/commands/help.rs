//! `clusterd help`: the help of the whole, or of one verb.
use clap::{Args, Command};

/// Show this help, or that of a verb
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Help {
    /// The verb
    #[arg(value_name = "VERB")]
    pub verb: Option<String>,
}

/// The output of a verb about the command line itself.
pub(in crate::cli) enum Text {
    /// For stdout.
    Print(String),
    /// The argument of `help` is not a verb.
    UnknownVerb(String),
}

impl Help {
    pub(super) fn text(&self, mut whole: Command) -> Text {
        let Some(name) = &self.verb else { return Text::Print(whole.render_help().to_string()) };
        whole.build();
        match whole.find_subcommand_mut(name) {
            Some(verb) => Text::Print(verb.render_help().to_string()),
            None => Text::UnknownVerb(name.clone()),
        }
    }
}
