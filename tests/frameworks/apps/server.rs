//! A server in Rust with the standard library, a thread per client.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    let mut request = [0; 4096];
    while client.read(&mut request)? > 0 {
        let body = format!("pid={}", std::process::id());
        client.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    }
    Ok(())
}

fn main() {
    let port = std::env::var("PORT").expect("PORT").parse().expect("a number");
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port");
    for client in listener.incoming().flatten() {
        std::thread::spawn(move || answer(client));
    }
}
