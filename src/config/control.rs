//! `[control]`: the control API over TCP. What may be asked for, and by whom, follows from the address and the tokens.
use super::problem::{Found, Spot};
use super::schema::keys::RawControl;
use super::schema::kinds::{TOO_MANY_ENTRIES, Text, Texts, unset};
use super::sources::absolute;
use super::value_error::ValueError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The control API over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub listen: SocketAddr,
    /// File of the token for everything.
    pub token_file: Option<PathBuf>,
    /// File of the token for reading.
    pub read_token_file: Option<PathBuf>,
    /// Files of the certificate (with what leads to its root) and of its key, where clients speak TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Names in `Host` that are answered, in lower case, beside localhost and IP addresses.
    pub hosts: Vec<String>,
    /// Whether there is a page for browsers.
    pub page: bool,
}

impl Control {
    /// Whether only processes of this machine can connect.
    pub fn is_loopback(&self) -> bool {
        self.listen.ip().to_canonical().is_loopback()
    }
}

pub(super) const ADDRESS: Text<SocketAddr> =
    Text { wants: "a string", parse: address, words: "address", show: unset, choices: &[] };

pub(super) const HOSTS: Texts<String> =
    Texts { parse: host, words: "string, or array of strings", most: TOO_MANY_ENTRIES, empty: None };

/// The address of `[control] listen`.
pub(super) fn address(text: &str) -> Result<SocketAddr, ValueError> {
    if text.starts_with("https:") || text.starts_with("tls:") {
        return Err(ValueError::NoTls(text.to_owned()));
    }
    let loopback = |port: &str| Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?));
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    let bad = || ValueError::ControlAddress(text.to_owned());
    text.parse().ok().or_else(|| loopback(port)).ok_or_else(bad)
}

/// A name of the machine, as in a `Host` header without a port.
pub(super) fn host(text: &str) -> Result<String, ValueError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if text.is_empty() || !text.chars().all(is_name) {
        return Err(ValueError::HostName(text.to_owned()));
    }
    Ok(text.to_ascii_lowercase())
}

/// The address for agent checks.
pub(super) fn take_agent_check(raw: &mut RawControl, found: &mut Found) -> Option<SocketAddr> {
    let agent_check = raw.agent_check.take()?;
    let listen = raw.listen.as_ref().map(|at| at.value);
    if agent_check.value.port() != 0 && listen == Some(agent_check.value) {
        found.add(agent_check.spot, "agent_check and listen are the same address: agent checks speak no HTTP");
    }
    Some(agent_check.value)
}

/// With every default decided; `None` without an address.
pub(super) fn decide(raw: RawControl, start_folder: &str, found: &mut Found) -> Option<Control> {
    let spot = raw.listen.as_ref().map_or(Spot::Whole, |listen| listen.spot);
    let Some(listen) = raw.listen.map(|at| at.value) else {
        let typed = raw.token_file.as_ref().map(|at| at.spot).or_else(|| raw.page.as_ref().map(|at| at.spot));
        if let Some(spot) = typed.filter(|_| !raw.bad.contains(&"listen")) {
            found.add(spot, "does nothing without listen in [control]: say listen = \"127.0.0.1:9615\"");
        }
        return None;
    };
    let tls = match (raw.tls_cert, raw.tls_key) {
        (Some(certificate), Some(key)) => {
            Some((absolute(start_folder, &certificate.value), absolute(start_folder, &key.value)))
        }
        (Some(alone), None) if !raw.bad.contains(&"tls_key") => {
            found.add(alone.spot, "needs tls_key in [control] too: the certificate's private key");
            None
        }
        (None, Some(alone)) if !raw.bad.contains(&"tls_cert") => {
            found.add(alone.spot, "needs tls_cert in [control] too: the certificate of this key");
            None
        }
        _ => None,
    };
    let control = Control {
        listen,
        tls,
        token_file: raw.token_file.map(|at| absolute(start_folder, &at.value)),
        read_token_file: raw.read_token_file.map(|at| absolute(start_folder, &at.value)),
        hosts: raw.hosts.into_iter().flat_map(|at| at.value).map(|at| at.value).collect(),
        page: raw.page.is_some_and(|at| at.value),
    };
    if !control.is_loopback() && control.token_file.is_none() && !raw.bad.contains(&"token_file") {
        found.add(spot, format!("{listen} can be reached from other machines, so it needs token_file in [control]"));
    }
    if control.token_file.is_some() && control.token_file == control.read_token_file {
        found.add(spot, "token_file and read_token_file are the same file: whoever may read could change everything");
    }
    Some(control)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_loopback_unless_another_one_is_named() {
        for (text, wanted) in [
            ("9615", "127.0.0.1:9615"),
            ("localhost:1", "127.0.0.1:1"),
            ("[::1]:9615", "[::1]:9615"),
            ("0.0.0.0:80", "0.0.0.0:80"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), wanted);
        }
        for bad in ["", "x", "example.com:80", "127.0.0.1", "unix:/x", "99999"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert!(address("https://0.0.0.0:1").unwrap_err().to_string().contains("tls_cert"));
    }

    #[test]
    fn names_are_compared_in_lower_case() {
        assert_eq!(host("Metrics.Internal").unwrap(), "metrics.internal");
        assert!(host("a:1").is_err() && host("").is_err() && host("a/b").is_err());
    }
}
