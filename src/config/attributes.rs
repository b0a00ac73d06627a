//! What the processes of an app have besides program, user and files, as it is typed: limits of resources, CPUs. How the
//! system is told is not known here.
use super::parse;
use super::value_error::ValueError;
use crate::limits::{CPU_NUMBERS_MAX, CPU_SHARE_PERCENT_MAX};
use std::collections::BTreeMap;

/// Every resource that setrlimit(2) limits and an app may need, by its name in `ulimit` and limits.conf(5).
pub const RESOURCES: [Resource; 14] = [
    Resource { name: "as", unit: Unit::Bytes },
    Resource { name: "core", unit: Unit::Bytes },
    Resource { name: "cpu", unit: Unit::Number },
    Resource { name: "data", unit: Unit::Bytes },
    Resource { name: "fsize", unit: Unit::Bytes },
    Resource { name: "locks", unit: Unit::Number },
    Resource { name: "memlock", unit: Unit::Bytes },
    Resource { name: "msgqueue", unit: Unit::Bytes },
    Resource { name: "nofile", unit: Unit::Number },
    Resource { name: "nproc", unit: Unit::Number },
    Resource { name: "rtprio", unit: Unit::Number },
    Resource { name: "rttime", unit: Unit::Number },
    Resource { name: "sigpending", unit: Unit::Number },
    Resource { name: "stack", unit: Unit::Bytes },
];

/// One that can be limited.
#[derive(Debug)]
pub struct Resource {
    pub name: &'static str,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Number,
    Bytes,
}

/// A limit. `None`: no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// What holds.
    pub soft: Option<u64>,
    /// How far the process may raise it.
    pub hard: Option<u64>,
}

/// Limits by the name of the resource.
pub type ResourceLimits = BTreeMap<&'static str, ResourceLimit>;

impl Resource {
    pub fn named(name: &str) -> Option<&'static Resource> {
        RESOURCES.iter().find(|resource| resource.name == name)
    }

    /// What its limit may be, for messages.
    pub fn wants(&self) -> &'static str {
        match self.unit {
            Unit::Number => "a number or \"unlimited\", or [soft, hard]",
            Unit::Bytes => "a size such as \"512M\", 0 or \"unlimited\", or [soft, hard]",
        }
    }

    /// A limit that was typed as a number; `None` where that is none.
    pub fn number(&self, typed: i64) -> Option<Option<u64>> {
        let number = u64::try_from(typed).ok()?;
        // A number of bytes is mostly a mistake for one of megabytes; none at all is not.
        (self.unit == Unit::Number || number == 0).then_some(Some(number))
    }

    /// A limit that was typed as text.
    ///
    /// # Errors
    /// It is not one.
    pub fn text(&self, typed: &str) -> Result<Option<u64>, ValueError> {
        match self.unit {
            _ if typed == "unlimited" => Ok(None),
            Unit::Bytes => parse::size(typed).map(Some),
            Unit::Number => Err(ValueError::ResourceLimit { name: self.name, typed: typed.to_owned() }),
        }
    }
}

/// CPUs as taskset(1) and systemd have them: `0-3,8`. In order, none twice.
///
/// # Errors
/// It is not such a list, or a number is out of bounds.
pub fn cpus(text: &str) -> Result<Vec<u32>, ValueError> {
    let bad = || ValueError::Cpus(text.to_owned());
    let number = |typed: &str| {
        let typed = typed.trim();
        let number = if typed.is_empty() { None } else { parse::digits(typed) };
        number.filter(|number| *number < CPU_NUMBERS_MAX).ok_or_else(bad)
    };
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// A share of CPU time in percent of one CPU: `150%`, or a number of CPUs.
///
/// # Errors
/// It is not such a share, or out of bounds.
pub fn cpu_share(text: &str) -> Result<u32, ValueError> {
    let percent = match text.strip_suffix('%') {
        Some(percent) => parse::digits(percent),
        None => parse::digits(text).and_then(|cpus: u32| cpus.checked_mul(100)),
    };
    let percent = percent.filter(|percent| (1..=CPU_SHARE_PERCENT_MAX).contains(percent));
    percent.ok_or_else(|| ValueError::CpuShare(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_numbers_and_ranges() {
        assert_eq!(cpus("3"), Ok(vec![3]));
        assert_eq!(cpus("8, 0-2,1"), Ok(vec![0, 1, 2, 8]));
        for bad in ["", "a", "1,", "3-1", "-1", "0-99999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_in_percent_of_a_cpu_or_a_number_of_cpus() {
        assert_eq!((cpu_share("150%"), cpu_share("2")), (Ok(150), Ok(200)));
        for bad in ["", "%", "0", "0%", "-1", "1.5", "99999999%", "50 %"] {
            assert!(cpu_share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_have_a_unit_and_numbers_have_none() {
        let (nofile, core) = (Resource::named("nofile").unwrap(), Resource::named("core").unwrap());
        assert_eq!((nofile.number(1024), nofile.number(-1)), (Some(Some(1024)), None));
        assert_eq!((core.number(0), core.number(1024)), (Some(Some(0)), None));
        assert_eq!(core.text("1K"), Ok(Some(1024)));
        assert_eq!((core.text("unlimited"), nofile.text("unlimited")), (Ok(None), Ok(None)));
        assert!(nofile.text("1K").is_err());
    }
}
