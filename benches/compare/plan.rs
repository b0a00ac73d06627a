//! What is run, for how long: what was typed, and the bounds of a full and of a quick run.
use crate::data::{MAIN, Setup};
use crate::support::servers::Tool;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: benches/run [--quick] [--only connections|changes] [--tools NAME,...] [--draw]
  --quick   short rounds, to see that everything works: writes below target/ instead of docs/
  --only    one of the two parts
  --tools   these alone (floor, least, node, node-shared, pm2, nginx, clusterd, clusterd-sticky,
            clusterd-shared, clusterd-kernel): writes below target/ too
  --draw    measures nothing: writes page and picture again from the last run's figures";

/// What was typed.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) quick: bool,
    pub(crate) draw: bool,
    pub(crate) only: Option<String>,
    pub(crate) tools: Option<Vec<Tool>>,
}

impl Wanted {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(args: &[String]) -> Result<Wanted, String> {
        let (mut wanted, mut args) = (Wanted::default(), args.iter());
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => wanted.quick = true,
                "--draw" => wanted.draw = true,
                "--only" => match args.next().map(String::as_str) {
                    Some(part @ ("connections" | "changes")) => wanted.only = Some(part.to_owned()),
                    other => {
                        return Err(format!("--only takes connections or changes, not {}", other.unwrap_or("nothing")));
                    }
                },
                "--tools" => wanted.tools = Some(tools(args.next().map_or("", String::as_str))?),
                // Cargo adds it.
                "--bench" => {}
                other => return Err(format!("what is {other}?")),
            }
        }
        Ok(wanted)
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    /// Only a whole run is fit to be shown to others.
    pub(crate) fn for_docs(&self) -> bool {
        !self.quick && self.tools.is_none()
    }

    /// Those of `all` that are wanted.
    pub(crate) fn among(&self, all: &[Tool]) -> Vec<Tool> {
        let wanted = |tool: &Tool| self.tools.as_ref().is_none_or(|tools| tools.contains(tool));
        all.iter().copied().filter(wanted).collect()
    }
}

fn tools(names: &str) -> Result<Vec<Tool>, String> {
    names
        .split(',')
        .map(|name| {
            let found = Tool::ALL.into_iter().find(|tool| tool.name() == name);
            found.ok_or_else(|| format!("--tools: there is no {name:?}"))
        })
        .collect()
}

/// Bounds of a run.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) load: Duration,
    /// Before each load, and before the first one of a server whose code is not yet compiled.
    pub(crate) warm_up: Duration,
    pub(crate) first_warm_up: Duration,
    pub(crate) setups: Vec<Setup>,
    /// No round of connections begins that would end after this.
    pub(crate) connections_max: Duration,
    pub(crate) change_rounds: usize,
    /// Kept-alive connections too, not only short ones.
    pub(crate) kept_too: bool,
    pub(crate) reloads: u64,
    pub(crate) kills: u64,
    /// The same for the second part.
    pub(crate) changes_max: Duration,
}

impl Plan {
    /// 20 minutes at most.
    pub(crate) fn full() -> Plan {
        let mut setups = Vec::new();
        for workers in [2, 8] {
            for (kept, job) in [(false, false), (true, false), (false, true), (true, true)] {
                setups.push(Setup { workers, kept, job });
            }
        }
        Plan {
            rounds: 5,
            load: Duration::from_millis(1300),
            warm_up: Duration::from_millis(300),
            first_warm_up: Duration::from_secs(1),
            setups,
            connections_max: Duration::from_secs(12 * 60),
            change_rounds: 2,
            kept_too: true,
            reloads: 3,
            kills: 3,
            changes_max: Duration::from_secs(7 * 60 + 30),
        }
    }

    /// Two minutes on a machine that does other things meanwhile.
    pub(crate) fn quick() -> Plan {
        let setups = vec![MAIN, Setup { kept: true, job: true, ..MAIN }];
        Plan {
            rounds: 1,
            load: Duration::from_millis(300),
            warm_up: Duration::from_millis(100),
            first_warm_up: Duration::from_millis(100),
            setups,
            change_rounds: 1,
            kept_too: false,
            reloads: 1,
            kills: 1,
            ..Plan::full()
        }
    }

    /// Numbers of workers, each once.
    pub(crate) fn workers(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.setups.iter().map(|setup| setup.workers).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
