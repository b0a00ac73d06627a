//! provisional
use super::CallSender;
use std::io;
use std::os::unix::net::UnixListener;
pub fn start(listener: UnixListener, calls: CallSender, owner: u32) -> io::Result<()> { let _ = (listener, calls, owner); Ok(()) }
pub fn drain() {}
