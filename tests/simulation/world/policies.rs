//! The rules of an app in a world, at random.
use super::{Random, agent, asks, before};
use clusterd::supervisor::{Limits, Policy, ReadyRule};

pub(super) fn policy(random: &mut Random) -> Policy {
    Policy {
        ready: ReadyRule { evidence: Some(asks::evidence(random)), after_ms: None },
        ready_timeout_ms: 2_000,
        warms_up: random.percent(30),
        drain_timeout_ms: 3_000,
        kill_timeout_ms: 500,
        min_uptime_ms: 1_000,
        max_restarts: Some(random.between(3, 12) as u32),
        window_ms: 20_000,
        backoff_first_ms: 0,
        backoff_min_ms: 50,
        backoff_max_ms: 2_000,
        restart_delay_ms: 0,
        max_runs: None,
        stop_exit_codes: vec![99],
        spares: if random.percent(40) { random.between(1, 2) as u32 } else { 0 },
        surge: random.between(1, 3) as u32,
        overlap: true,
        canary_ms: if random.percent(40) { random.between(50, 4_000) } else { 0 },
        settle_ms: random.between(0, 1_000),
        drain_spread_ms: if random.percent(20) { 2_000 } else { 0 },
        limits: Limits { hang_ms: Some(3_000), hang_report: random.percent(50), ..Limits::NONE },
        agent: agent::policy(random),
        before: before::policy(random),
    }
}
