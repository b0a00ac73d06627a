//! Looks host names up. A static binary asks /etc/hosts and DNS only: other sources of nsswitch.conf are modules built for
//! another C library, and loading them would crash.
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// The addresses of a host, a name or a number. A name may wait for a DNS server.
///
/// # Errors
/// Those of getaddrinfo(3).
pub fn addresses_of(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    built_in::use_only_built_in_sources();
    (host, port).to_socket_addrs().map(Iterator::collect)
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod built_in {
    use std::ffi::{c_char, c_int};
    use std::sync::Once;

    // SAFETY: declared as in glibc's nss.h.
    unsafe extern "C" {
        /// glibc's nss.h: replaces a line of nsswitch.conf for this process.
        fn __nss_configure_lookup(database: *const c_char, sources: *const c_char) -> c_int;
    }

    pub(super) fn use_only_built_in_sources() {
        static ONCE: Once = Once::new();
        // SAFETY: two strings that live as long as the program. `Once` keeps two threads from calling it at the same time,
        // and only `addresses_of` of this process reads what it sets, after it.
        ONCE.call_once(|| unsafe {
            __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know getaddrinfo")]
    fn numbers_need_nobody() {
        assert_eq!(addresses_of("127.0.0.1", 80).unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(addresses_of("::1", 80).unwrap(), ["[::1]:80".parse().unwrap()]);
    }
}
