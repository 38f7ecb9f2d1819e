//! A Kimi API that gives the same answer to everybody, and records the requests.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// A running one; it lives as long as the test's process.
pub struct FakeKimi {
    /// In the form for the settings.
    pub base_url: String,
    /// The lines of each request's head, in lower case.
    pub asked: Receiver<Vec<String>>,
}

/// Starts one that answers with this status, such as `401 Unauthorized`, and nothing else.
pub fn start(status: &'static str) -> FakeKimi {
    start_saying(status, "{}")
}

/// Starts one that answers with this status and body.
pub fn start_saying(status: &'static str, body: &'static str) -> FakeKimi {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/coding/v1", listener.local_addr().unwrap());
    let (heads, asked) = channel();
    thread::spawn(move || {
        for visitor in listener.incoming() {
            let mut visitor = visitor.unwrap();
            let lines = BufReader::new(visitor.try_clone().unwrap()).lines();
            let head = lines.map(|line| line.unwrap().to_lowercase()).take_while(|line| !line.is_empty());
            heads.send(head.collect()).ok();
            let length = body.len();
            write!(
                visitor,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .ok();
        }
    });
    FakeKimi { base_url, asked }
}
