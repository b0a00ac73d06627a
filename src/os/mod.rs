//! The only place for `unsafe`, raw fds and the names of nix, libc and socket2: thin, safe wrappers around what the
//! kernel offers. No policy lives here.
#![allow(unsafe_code)]

pub mod clock;
pub mod fdpass;
pub mod memfd;
pub mod packet;
pub mod poll;
pub mod process;
pub mod signal;
pub mod spawn;
