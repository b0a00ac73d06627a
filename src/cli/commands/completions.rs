//! `clusterd completions`: the completions for a shell, from clap's description of the command line.
use clap::{Args, Command};

/// Print the completions for a shell
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Completions {
    /// Which
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn text(&self, mut whole: Command) -> String {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut whole, "clusterd", &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}
