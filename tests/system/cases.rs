//! Worlds that failed once, written out: a seed means another world when the plans change. Each is named for what broke.
use crate::client::{Style, Target};
use crate::plan::{BEGIN_US, Deed, Order, Plan};
use clusterd::os::signal;

/// Makes the plan of a case from its seed.
pub(crate) type Case = fn(u64) -> Plan;

/// The names, and the worlds.
pub(crate) const ALL: [(&str, Case); 2] = [
    ("clients wait for a worker when the old one dies in a reload that fails", dies_in_failing_reload),
    ("a master killed while it takes over leaves the sockets of slots to the next one", killed_while_taking_over),
];

const SECOND_US: u64 = 1_000_000;

/// With `kernel`, connections that waited for the dead worker were closed after a second, and new ones followed them into its socket.
fn dies_in_failing_reload(seed: u64) -> Plan {
    let text = |address: &str, env: &str| {
        format!(
            "[[app]]\nname = \"web\"\ncommand = [\"/bin/true\"]\nprotocol = \"listen-fds\"\nworkers = 1\n\
             listen = [\"{address}\"]\nbalance = \"kernel\"\nready = \"notify\"\nready_timeout = \"10s\"\n{env}\n"
        )
    };
    let mut plan = Plan::quiet(seed);
    let address = plan.address.to_string();
    plan.configure(seed, &text(&address, ""));
    plan.must_say_ready = true;
    plan.workers_at_end = (1, 1);
    plan.add_deed(3 * SECOND_US, Deed::Configure(text(&address, "env = { SIM_BAD = \"slow\" }")));
    plan.add_deed(3 * SECOND_US, Deed::Signal(signal::HUP));
    plan.add_deed(5 * SECOND_US, Deed::KillWorker(0));
    for name in 0..20 {
        plan.clients.push(Order {
            name,
            at_us: BEGIN_US + 2 * SECOND_US + SECOND_US / 4 + name * SECOND_US / 2,
            to: Target::Tcp(plan.address),
            requests: 1,
            pause_us: 0,
            style: Style::Usual,
            from: None,
        });
    }
    plan
}

/// Its first word of a listener said that it has no sockets of slots; the next master had the keeper release them.
fn killed_while_taking_over(seed: u64) -> Plan {
    let mut plan = Plan::quiet(seed);
    let address = plan.address.to_string();
    let text = format!(
        "[[app]]\nname = \"web\"\ncommand = [\"/bin/true\"]\nprotocol = \"listen-fds\"\nworkers = 3\n\
         listen = [\"{address}\"]\nbalance = \"kernel\"\nready = \"notify\"\n"
    );
    plan.configure(seed, &text);
    plan.must_say_ready = true;
    plan.workers_at_end = (3, 3);
    plan.deeds.retain(|(_, deed)| !matches!(deed, Deed::Calm));
    // Each time the next master is killed at a later call of its takeover.
    for round in 0..60 {
        let at_us = SECOND_US + round * SECOND_US * 12 / 10;
        plan.add_deed(at_us, Deed::KillMaster);
        plan.add_deed(at_us + 1, Deed::KillMasterAfter(20 + 3 * round));
        // Its successor in the slot shows whether the sockets are there.
        plan.add_deed(at_us + SECOND_US / 2, Deed::KillWorker(0));
    }
    plan
}
