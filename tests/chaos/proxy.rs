//! nginx in front of the web app. It keeps connections to the app, and may not repeat a request: every one of them that the app closes
//! in the wrong instant is a 502.
use super::cluster::{Folder, wait_until};
use super::common::ports::free_port;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

/// Ended by its pid when dropped.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: Folder,
}

/// `None`: it is not there, and the run does without.
pub(crate) fn start(to: SocketAddr) -> Option<Proxy> {
    let folder = Folder::new();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let dir = folder.path().display();
    let temp =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"));
    let http = format!(
        "access_log off;\nkeepalive_timeout 1h;\nkeepalive_requests 1000000;\n{}upstream web {{\nserver {to};\nkeepalive 16;\n\
         keepalive_requests 1000000;\n}}\nserver {{\nlisten {address};\nlocation / {{\nproxy_pass http://web;\n\
         proxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_next_upstream off;\n}}\n}}\n",
        temp.concat()
    );
    let main = format!("daemon off;\nerror_log {dir}/error.log;\npid {dir}/pid;\nevents {{}}\nhttp {{\n{http}}}\n");
    let file = folder.write("nginx.conf", &main);
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("nginx");
    command.args(["-p", folder.path().to_str().unwrap(), "-c", &file]).env("PATH", path);
    let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
        println!("chaos: no nginx here: nobody asks through a proxy");
        return None;
    };
    let proxy = Proxy { child, address, _folder: folder };
    wait_until("nginx", || TcpStream::connect(address).is_ok());
    Some(proxy)
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
