//! `GET /metrics`: the deployment in OpenMetrics, or in the text format of Prometheus where that is asked for. What
//! takes long (`/proc`, the kernel's lists of sockets) is read here, on a thread of the API; the master's loop answers
//! with what it has counted.
//!
//! Labels of clusterd's own metrics are words of fixed sets, names of apps, numbers of slots and ids of living workers, so one answer has at most
//! so many series as the deployment has apps and workers, times a constant. Metrics of apps stand behind them
//! (`app_metrics`), and have bounds of their own.
mod families;
mod sockets;
#[cfg(test)]
pub(super) mod tests;

use super::app_metrics::{self, AppMetrics, Gathered};
use super::types::Deployment;
use super::usage;
use crate::os::procfs;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use sockets::Sockets;
use std::fmt;
use std::time::{Duration, Instant};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    /// The older text format, version 0.0.4.
    Prometheus,
}

impl Format {
    /// From the header `Accept`: OpenMetrics, unless only the older format is asked for.
    pub(super) fn of(accept: Option<&str>) -> Format {
        let wants = |kind: &str| accept.is_some_and(|accept| accept.contains(kind));
        if wants("text/plain") && !wants("application/openmetrics-text") {
            Format::Prometheus
        } else {
            Format::OpenMetrics
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// What a process of clusterd itself uses.
#[derive(Clone, Copy, Debug)]
struct Process {
    role: &'static str,
    cpu_ms: Option<u64>,
    memory_bytes: Option<u64>,
    open_fds: Option<u64>,
}

impl Process {
    fn read(role: &'static str, pid: i32) -> Process {
        let open_fds = procfs::fd_count(pid);
        Process { role, cpu_ms: procfs::cpu_ms(pid), memory_bytes: procfs::memory_bytes(pid), open_fds }
    }
}

/// Everything that one answer tells.
#[derive(Debug)]
pub(super) struct Scrape {
    deployment: Deployment,
    own: [Process; 2],
    sockets: Sockets,
    /// Metrics that apps have of their own.
    apps: Vec<AppMetrics>,
    /// How long it took to gather.
    took: Duration,
}

impl Scrape {
    /// Adds to the master's answer what the kernel knows, and adds up what was gathered of apps. This blocks.
    pub(super) fn gather(mut deployment: Deployment, gathered: Gathered) -> Scrape {
        let begun = Instant::now();
        let apps = gathered.add_up();
        usage::fill(&mut deployment);
        let own = [Process::read("keeper", deployment.keeper_pid), Process::read("master", deployment.master_pid)];
        let sockets = Sockets::read(&deployment);
        Scrape { deployment, own, sockets, apps, took: begun.elapsed() }
    }

    /// The text of the answer.
    ///
    /// # Errors
    /// None of its own: text can always be added to.
    pub(super) fn render(mut self, format: Format) -> Result<String, fmt::Error> {
        let of_apps = app_metrics::write(&mut self.apps, format)?;
        let mut registry = Registry::with_prefix("clusterd");
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        match format {
            Format::OpenMetrics => {
                text::encode_registry(&mut out, &registry)?;
                out.push_str(&of_apps);
                text::encode_eof(&mut out)?;
            }
            Format::Prometheus => {
                prometheus_text::encode(&mut out, &registry)?;
                out.push_str(&of_apps);
            }
        }
        Ok(out)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::encode(self, encoder)
    }
}
