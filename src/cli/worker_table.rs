//! The workers of an app as a table, for `ls` and `describe`.
use super::table::{Paint, Row, Table};
use super::units::{short_delay, short_number, short_time};
use crate::api::types::{Agent, App, Before, BeforeState, Worker};

const TABLE: Table<10> = Table {
    headings: ["SLOT", "WORKER", "PID", "STATE", "UP", "RESTARTS", "CPU", "MEMORY", "OPEN", "DELAY"],
    words: &[3],
    elastic: &[],
    state: 3,
    indent: 2,
};

/// The table: what runs beside the workers, then a row for each worker.
pub(super) fn worker_table(app: &App, paint: Paint) -> String {
    let rows: Vec<Row<10>> = {
        let before = app.before.iter().filter(|before| before.state != BeforeState::Done).map(before_row);
        before.chain(app.agent.iter().map(agent_row)).chain(app.workers.iter().map(row)).collect()
    };
    TABLE.text(&rows, None, paint)
}

fn dash() -> String {
    "-".to_owned()
}

fn row(worker: &Worker) -> Row<10> {
    let [cpu, memory] = used(worker.cpu_ms, worker.memory_bytes);
    let cells = [
        worker.slot.to_string(),
        worker.id.map_or_else(dash, |id| id.to_string()),
        worker.pid.map_or_else(dash, |pid| pid.to_string()),
        worker.state.to_string(),
        worker.uptime_ms.map_or_else(dash, short_time),
        worker.restarts.to_string(),
        cpu,
        memory,
        worker.open_handoffs.to_string(),
        worker.loop_delay_ms.map_or_else(dash, short_delay),
    ];
    Row { cells, tone: worker.state.into() }
}

/// The agent, which has no slot and takes no connections.
fn agent_row(agent: &Agent) -> Row<10> {
    let [cpu, memory] = used(agent.cpu_ms, agent.memory_bytes);
    let cells = [
        "agent".to_owned(),
        agent.id.map_or_else(dash, |id| id.to_string()),
        agent.pid.map_or_else(dash, |pid| pid.to_string()),
        agent.state.to_string(),
        agent.uptime_ms.map_or_else(dash, short_time),
        agent.restarts.to_string(),
        cpu,
        memory,
        dash(),
        dash(),
    ];
    Row { cells, tone: agent.state.into() }
}

/// The command before the workers, while it is of interest.
fn before_row(before: &Before) -> Row<10> {
    let cells = [
        "before".to_owned(),
        before.id.map_or_else(dash, |id| id.to_string()),
        before.pid.map_or_else(dash, |pid| pid.to_string()),
        before.state.to_string(),
        before.uptime_ms.map_or_else(dash, short_time),
        dash(),
        dash(),
        dash(),
        dash(),
        dash(),
    ];
    Row { cells, tone: before.state.into() }
}

/// CPU time and memory of a process, where they can be read.
fn used(cpu_ms: Option<u64>, memory_bytes: Option<u64>) -> [String; 2] {
    [
        cpu_ms.map_or_else(dash, |ms| short_number(ms as f64 / 1000.0, "s")),
        memory_bytes.map_or_else(dash, |bytes| short_number(bytes as f64 / 1_048_576.0, "M")),
    ]
}
