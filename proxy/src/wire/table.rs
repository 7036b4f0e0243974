//! Tables of bytes that a client sends, and what has to become of them.

use super::world::{World, quiet};

/// A request with more fields.
pub(super) fn get(fields: &str) -> Vec<u8> {
    format!("GET /fn/f HTTP/1.1\r\nHost: f.example\r\n{fields}\r\n").into()
}

/// A request with more fields and what follows its head.
pub(super) fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /fn/f HTTP/1.1\r\nHost: f.example\r\n{fields}\r\n{body}").into()
}

/// A request with this first line.
pub(super) fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: f.example\r\n\r\n").into()
}

/// Checks every case in one piece, in halves, and byte by byte. What has to become of it is written as
/// `answers; state; what reached the function`: the statuses, with their codes when it was not the
/// function that answered; `open` when another request is answered, `closed`, or `waits` when more
/// has to come; the requests with their bodies. `open` and `closed` alone are the usual fates of one
/// `GET /fn/f`: 200, and 400 `bad_request`.
pub(super) async fn check<B: AsRef<[u8]>>(cases: impl IntoIterator<Item = (B, &str)>) {
    let mut wrong = Vec::new();
    for (bytes, expected) in cases {
        let bytes = bytes.as_ref();
        let expected = match expected {
            "open" => "200; open; GET /fn/f",
            "closed" => "400 bad_request; closed",
            other => other,
        };
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let single: Vec<_> = bytes.chunks(1).collect();
        let all: [&[&[u8]]; 3] = [&[bytes], &[first, second], &single];
        for (parts, how) in all.into_iter().zip(["whole", "in halves", "in bytes"]) {
            if parts.len() > 2000 {
                continue; // it is long for the sake of a limit
            }
            let seen = fate(parts).await;
            if seen != expected {
                let shown: String = bytes.escape_ascii().to_string().chars().take(300).collect();
                wrong.push(format!("{shown}\n  ({how}) {seen}\n  expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What becomes of a client that sends these parts.
async fn fate(parts: &[&[u8]]) -> String {
    let world = World::new();
    let asked = world.replica().serve();
    let mut client = world.client();
    for part in parts {
        client.send(part).await;
        quiet().await;
    }
    let told = client.told().await;
    assert!(told.rest.is_empty(), "{}", told.rest.escape_ascii());
    let answers: Vec<_> = told.answers.iter().map(|answer| answer.short()).collect();
    let asked: Vec<_> = asked.lock().iter().map(ToString::to_string).collect();
    let announced = told.answers.last().is_some_and(|a| a.field("connection") == Some("close"));
    let state = match told.closed {
        true if announced || told.answers.is_empty() => "closed",
        true => "closed unannounced",
        false if client.is_usable().await => "open",
        false => "waits",
    };
    let mut all = vec![answers.join(" + "), state.to_owned()];
    all.extend((!asked.is_empty()).then(|| asked.join(" + ")));
    all.join("; ")
}
