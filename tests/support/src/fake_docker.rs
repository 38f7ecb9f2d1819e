//! A Docker daemon that only describes itself: enough of the HTTP interface for everything before a
//! container.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

/// Whether the daemon has the agent image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    Missing,
    /// Until a container is created from it: then it is gone.
    Built,
}

/// Listens at `socket` like a daemon that runs as root, for as long as the test's process lives.
pub fn start(socket: &Path, image: Image) {
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for visitor in listener.incoming() {
            let visitor = visitor.unwrap();
            thread::spawn(move || serve(visitor, image));
        }
    });
}

/// Answers requests until the client leaves.
fn serve(mut visitor: UnixStream, image: Image) {
    let mut requests = BufReader::new(visitor.try_clone().unwrap());
    while let Some(path) = next_request(&mut requests) {
        let (status, body) = answer(&path, image);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if visitor.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads a request to its end; returns its path without the version of the interface.
fn next_request(requests: &mut impl BufRead) -> Option<String> {
    let mut first = String::new();
    requests.read_line(&mut first).ok().filter(|bytes| *bytes > 0)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        requests.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    requests.take(length).read_to_end(&mut Vec::new()).ok()?;
    let path = first.split_whitespace().nth(1)?;
    let after_version = path.strip_prefix("/v1.").and_then(|rest| Some(&rest[rest.find('/')?..]));
    Some(after_version.unwrap_or(path).to_owned())
}

fn answer(path: &str, image: Image) -> (&'static str, &'static str) {
    const OK: &str = "200 OK";
    match path.split('?').next().unwrap_or(path) {
        "/_ping" => (OK, "OK"),
        "/version" => (OK, r#"{"ApiVersion":"1.41","Version":"26.1.5"}"#),
        "/info" => (
            OK,
            r#"{"ServerVersion":"26.1.5","SecurityOptions":["name=seccomp,profile=default"],"CgroupDriver":"systemd",
                "MemoryLimit":true,"PidsLimit":true,"CpuCfsQuota":true,"DockerRootDir":"/var/lib/docker"}"#,
        ),
        "/containers/json" => (OK, "[]"),
        path if path.starts_with("/images/") && image == Image::Built => (OK, "{}"),
        _ => ("404 Not Found", r#"{"message":"No such image"}"#),
    }
}
