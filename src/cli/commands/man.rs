//! `clusterd man`: the manual page, from clap's description of the command line.
use clap::{Args, Command};
use std::io;

/// Print the manual page (clusterd man | man -l -)
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Man {}

impl Man {
    pub(super) fn text(&self, whole: Command) -> io::Result<String> {
        let mut text = Vec::new();
        clap_mangen::Man::new(whole).render(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
