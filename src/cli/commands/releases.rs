//! `clusterd releases`: the generations of an app that ran, which one serves, and how the others went.
use crate::api::Request;
use crate::api::types::{Release, ReleaseState, Releases as Shown};
use crate::cli::apply::{fail, print};
use crate::cli::client;
use crate::cli::error::CommandError;
use crate::cli::table::{Paint, Row, Table};
use crate::cli::target::known;
use crate::text::visible;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::path::Path;
use std::process::ExitCode;

/// Show the generations of an app that ran, for rollback
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Releases {
    /// A name or an id
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// As JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

const TABLE: Table<5> = Table {
    headings: ["GENERATION", "BEGAN", "STATE", "FOLDER", "COMMAND"],
    words: &[1, 2, 3, 4],
    elastic: &[],
    state: 2,
    indent: 0,
};

impl Releases {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        match self.ask(home) {
            Ok(shown) if self.json => {
                print(&(serde_json::to_string_pretty(&shown.releases).unwrap_or_default() + "\n"))
            }
            Ok(shown) => print(&table(&shown.releases, &TimeZone::system(), Paint::of_stdout())),
            Err(error) => fail(error),
        }
    }

    fn ask(&self, home: Option<&Path>) -> Result<Shown, CommandError> {
        match known(home)?.find_whole(&self.target)?.as_slice() {
            [found] if found.view.is_none() => Err(CommandError::NoKeeper(found.app.clone())),
            [found] => Ok(client::get(&found.socket, &Request::Releases { app: found.app.clone() })?),
            several => {
                let names: Vec<&str> = several.iter().map(|found| found.app.as_str()).collect();
                Err(CommandError::Ambiguous { word: self.target.clone(), apps: names.join(", ") })
            }
        }
    }
}

fn table(releases: &[Release], zone: &TimeZone, paint: Paint) -> String {
    let rows: Vec<Row<5>> = releases.iter().map(|release| row(release, zone)).collect();
    let mut text = TABLE.text(&rows, None, paint);
    for release in releases {
        if let Some(reason) = &release.reason {
            text.push_str(&format!("generation {} failed: {}\n", release.generation, visible(reason)));
        }
    }
    text
}

fn row(release: &Release, zone: &TimeZone) -> Row<5> {
    let at = Timestamp::from_millisecond(release.at_ms.cast_signed()).unwrap_or_default();
    let state = match (release.state, release.back_to) {
        (ReleaseState::RolledBack, _) => "rolled back".to_owned(),
        (state, Some(to)) => format!("{state} (back to {to})"),
        (state, None) => state.to_string(),
    };
    let cells = [
        release.generation.to_string(),
        at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        state,
        visible(&release.folder).into_owned(),
        visible(&release.command).into_owned(),
    ];
    Row { cells, tone: release.state.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(generation: u32, state: ReleaseState, back_to: Option<u32>, reason: Option<&str>) -> Release {
        Release {
            generation,
            at_ms: 1_764_000_000_000 + u64::from(generation) * 3_600_000,
            folder: format!("/srv/web/releases/{}", back_to.unwrap_or(generation)),
            command: "node app.js".to_owned(),
            state,
            back_to,
            reason: reason.map(str::to_owned),
        }
    }

    #[test]
    fn the_last_one_is_first_and_a_failure_says_why() {
        let all = [
            release(4, ReleaseState::Serving, Some(1), None),
            release(3, ReleaseState::Failed, None, Some("before exited with code 1")),
            release(2, ReleaseState::RolledBack, None, None),
            release(1, ReleaseState::Served, None, None),
        ];
        let text = table(&all, &TimeZone::UTC, Paint::Plain);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "GENERATION  BEGAN                STATE                FOLDER               COMMAND",
                "         4  2025-11-24 20:00:00  serving (back to 1)  /srv/web/releases/1  node app.js",
                "         3  2025-11-24 19:00:00  failed               /srv/web/releases/3  node app.js",
                "         2  2025-11-24 18:00:00  rolled back          /srv/web/releases/2  node app.js",
                "         1  2025-11-24 17:00:00  served               /srv/web/releases/1  node app.js",
                "generation 3 failed: before exited with code 1",
            ]
        );
    }
}
