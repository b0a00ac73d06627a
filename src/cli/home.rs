//! provisional
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
pub struct Home; pub struct Claim { pub name: String, pub lock: OwnedFd, pub socket: UnixListener }
#[derive(Debug)] pub struct HomeError;
impl HomeError { pub fn is_unusable_home(&self) -> bool { true } }
impl std::fmt::Display for HomeError { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "not yet") } }
impl Home { pub fn find(_: Option<&Path>) -> Result<Home, HomeError> { Err(HomeError) } pub fn claim(&self, _n: &str, _e: bool) -> Result<Claim, HomeError> { Err(HomeError) } }
