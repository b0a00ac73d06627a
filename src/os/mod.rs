//! The only place for `unsafe`, raw fds and the names of nix, libc and socket2: thin, safe wrappers around the kernel's
//! interfaces. No policy.
#![allow(unsafe_code)]
pub mod append;
pub mod argv;
pub mod attributes;
pub mod bpf;
pub mod clock;
pub mod closer;
pub mod cpu;
pub mod epoll;
pub mod errno;
pub mod fdpass;
pub mod identity;
pub mod interrupt;
pub mod listen;
pub mod lock;
pub mod loopback;
pub mod memfd;
pub mod memory;
pub mod notify;
pub mod packet;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod read;
pub mod reuseport;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod sock_diag;
pub mod spawn;
pub mod spool;
pub mod stderr;
pub mod terminal;
pub mod tracee;
pub mod user;
