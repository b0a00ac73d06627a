//! What the keeper tells the service manager that started it, as sd_notify(3) has it: systemd, or whoever sets `NOTIFY_SOCKET`.
use super::system::System;

/// What happens, in the words of the protocol and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News<'a> {
    /// Every app serves: after the start, and at the end of a reload.
    Serving,
    /// A reload begins, by a signal.
    Reloading,
    /// Everything drains and ends.
    Stopping,
    /// The master has ended; this is how. Its successor says again that everything serves.
    WithoutMaster(&'a str),
}

/// The service manager.
#[derive(Debug)]
pub(super) struct ServiceManager {
    watchdog: Option<Watchdog>,
}

/// It expects a sign of life.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    every_ms: u64,
    next_ms: u64,
}

impl ServiceManager {
    /// Reads `WATCHDOG_USEC` and `WATCHDOG_PID` of this process.
    pub(super) fn new(system: &impl System) -> ServiceManager {
        let variables = system.environment();
        let variable = |wanted: &str| {
            let (_, value) = variables.iter().find(|(name, _)| name == wanted)?;
            value.to_str()?.parse::<u64>().ok()
        };
        let for_us = variable("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(system.own_pid()));
        let time_us = variable("WATCHDOG_USEC").filter(|time_us| *time_us > 0 && for_us);
        // As sd_watchdog_enabled(3) advises: twice in its time.
        let watchdog = time_us.map(|us| Watchdog { every_ms: (us / 2_000).max(1), next_ms: 0 });
        ServiceManager { watchdog }
    }

    /// When [`ServiceManager::beat`] is due.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        self.watchdog.map(|watchdog| watchdog.next_ms)
    }

    /// Gives a sign of life, if one is due.
    pub(super) fn beat(&mut self, system: &impl System, now_ms: u64) {
        if let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| now_ms >= watchdog.next_ms) {
            watchdog.next_ms = now_ms + watchdog.every_ms;
            system.tell_service_manager("WATCHDOG=1");
        }
    }

    /// Tells what happens.
    pub(super) fn tell(&self, system: &impl System, news: News<'_>) {
        let text = match news {
            News::Serving => "READY=1\nSTATUS=Serving".to_owned(),
            // The time tells systemd that its own signal caused this reload.
            News::Reloading => {
                format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reloading", system.now_us())
            }
            News::Stopping => "STOPPING=1\nSTATUS=Finishing open connections, then ending".to_owned(),
            News::WithoutMaster(how) => format!("STATUS=The master {how}; starting another one"),
        };
        system.tell_service_manager(&text);
    }
}
