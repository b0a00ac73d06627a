//! `clusterd events`: what has happened, and with `-f` what happens, in every deployment of the home or with these apps.
use crate::api::request::EventQuery;
use crate::api::types::Event;
use crate::cli::apply::fail;
use crate::cli::event_stream;
use crate::home::Home;
use clap::Args;
use jiff::tz::TimeZone;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Show what happens: workers that start and die, reloads, warnings
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Events {
    /// Only events of these apps
    #[arg(value_name = "APP")]
    pub apps: Vec<String>,
    /// Wait for more
    #[arg(short, long)]
    pub follow: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

impl Events {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let home = match Home::find(home) {
            Ok(home) => home,
            Err(error) => return fail(error),
        };
        let query = EventQuery { apps: self.apps.clone(), after: None, follow: self.follow };
        let mut kept = Vec::new();
        let followed = event_stream::read(home.sockets(), &query, |event| {
            if self.follow {
                return self.show(&event).is_ok();
            }
            kept.push(event);
            true
        });
        // Those of several deployments, in their order.
        kept.sort_by_key(|event| event.at_ms);
        let shown = kept.iter().try_for_each(|event| self.show(event));
        match (followed, shown) {
            (Err(error), _) => fail(error),
            (Ok(()), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                fail(format_args!("cannot print: {error}"))
            }
            (Ok(()), _) => ExitCode::SUCCESS,
        }
    }

    fn show(&self, event: &Event) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, event)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", line(event, TimeZone::system()))?;
        }
        out.flush()
    }
}

/// An event for people.
fn line(event: &Event, zone: TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(event.at_ms.cast_signed()).unwrap_or_default();
    let at = at.to_zoned_datetime(zone).strftime("%Y-%m-%dT%H:%M:%S");
    let slot = event.slot.map(|slot| format!("/{slot}")).unwrap_or_default();
    let about = event.app.as_ref().map(|app| format!(" {app}{slot}")).unwrap_or_default();
    let message: String = event.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{at}{about} {}: {message}", event.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::EventType;

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            at_ms: 1_000,
            app: Some("web".to_owned()),
            slot: Some(2),
            message: "exited\nwith code 1".to_owned(),
            ..Event::of(EventType::WorkerDied)
        };
        assert_eq!(line(&event, TimeZone::UTC), "1970-01-01T00:00:01 web/2 worker_died: exited with code 1");
        let warning = Event { message: "x".to_owned(), ..Event::of(EventType::Warning) };
        assert_eq!(line(&warning, TimeZone::UTC), "1970-01-01T00:00:00 warning: x");
    }
}
