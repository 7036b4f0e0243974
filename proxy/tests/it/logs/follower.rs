//! A client that follows a log, and reads it line by line.

use std::collections::VecDeque;

use serde_json::Value;

use crate::{
    grid::{Grid, Service, TOKEN, wait_for},
    http::Connection,
};

pub(super) struct Follower {
    connection: Connection,
    pub(super) head: Vec<String>,
    rest: Vec<u8>,
    lines: VecDeque<String>,
}

impl Follower {
    /// Asks with a query such as `&tail=5` and headers beyond the usual ones.
    pub(super) fn with(grid: &Grid, service: &Service, query: &str, headers: &str) -> Self {
        Self::of(TOKEN, grid, service, query, headers)
    }

    /// The same with another token.
    pub(super) fn of(
        token: &str,
        grid: &Grid,
        service: &Service,
        query: &str,
        headers: &str,
    ) -> Self {
        let mut connection = Connection::open(grid.admin);
        let path = service.path(&format!("logs/?follow=true{query}"));
        connection.send(format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Token {token}\r\n{headers}\r\n"
        ));
        let lines = std::iter::from_fn(|| Some(connection.line()).filter(|line| !line.is_empty()));
        let head = lines.collect();
        Self { connection, head, rest: Vec::new(), lines: VecDeque::new() }
    }

    pub(super) fn new(grid: &Grid, service: &Service, query: &str) -> Self {
        let follower = Self::with(grid, service, query, "");
        assert_eq!(follower.head[0], "HTTP/1.1 200 OK");
        follower
    }

    /// The next line that is not empty; none at the end.
    pub(super) fn line(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let chunk = self.connection.try_chunk().expect("a chunk");
            if chunk.is_empty() {
                assert!(self.rest.is_empty(), "it ends with a whole line");
                return None;
            }
            self.rest.extend(chunk);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let line = String::from_utf8(line).expect("UTF-8");
                let line = line.trim_end_matches('\n');
                self.lines.extend(Some(line.to_owned()).filter(|line| !line.is_empty()));
            }
        }
    }

    pub(super) fn entry(&mut self) -> Option<Value> {
        Some(serde_json::from_str(&self.line()?).expect("JSON"))
    }

    /// Texts of the entries until one is `last`.
    pub(super) fn until(&mut self, last: &str) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != last) {
            let so_far = (texts.len(), texts.last());
            let entry = self.entry().unwrap_or_else(|| panic!("no {last}: {so_far:?}"));
            texts.push(entry["line"].as_str().expect("a text").to_owned());
        }
        texts
    }

    /// Texts of all entries that are left.
    pub(super) fn rest(&mut self) -> Vec<String> {
        let entries = std::iter::from_fn(|| self.entry());
        entries.map(|entry| entry["line"].as_str().expect("a text").to_owned()).collect()
    }

    /// The connection, of which nothing more is read.
    pub(super) fn stall(self) -> Connection {
        self.connection
    }
}

/// Opens followers with a token until one is refused; gives the refusal.
pub(super) fn fill(token: &str, grid: &Grid, services: &[&Service]) -> (Vec<Follower>, String) {
    let mut followers = Vec::new();
    let refusal = wait_for("a refusal", || {
        let service = services[followers.len() % services.len()];
        let mut follower = Follower::of(token, grid, service, "&tail=0&owner=*", "");
        if follower.head[0].ends_with("200 OK") {
            followers.push(follower);
            return None;
        }
        assert_eq!(follower.head[0], "HTTP/1.1 503 Service Unavailable");
        assert!(follower.head.iter().any(|line| line.starts_with("retry-after: ")));
        let length = follower.head.iter().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|length| length.parse().ok()).expect("a length");
        Some(follower.connection.bytes(length))
    });
    (followers, refusal)
}
