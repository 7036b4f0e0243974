//! Which host is asked for: one, and in one spelling.

use super::table::check;

fn host(fields: &str) -> String {
    format!("GET /fn/f HTTP/1.1\r\n{fields}\r\n")
}

#[tokio::test(start_paused = true)]
async fn hosts() {
    let none = "404 not_found; open";
    check(
        [
            ("Host: f.example\r\n", "open"),
            ("host:f.example\r\n", "open"),
            ("HOST: \t f.example \t\r\n", "open"),
            ("Host: F.Example\r\n", "open"),
            ("Host: f.example.\r\n", "open"),
            ("Host: f.example:80\r\n", "open"),
            ("Host: f.example.:80\r\n", "open"),
            ("Host: f.example:\r\n", "open"),
            ("Host: f.example:65535\r\n", "open"),
            // Other hosts.
            ("Host: g.example\r\n", none),
            ("Host: f.example..\r\n", none),
            ("Host: .f.example\r\n", none),
            ("Host: f\r\n", none),
            ("Host: 127.0.0.1\r\n", none),
            ("Host: [::1]\r\n", none),
            ("Host: [::1]:8080\r\n", none),
            ("Host:\r\n", none),
            ("Host: .\r\n", none),
            // None, and too many.
            ("", "closed"),
            ("X-Forwarded-Host: f.example\r\n", "closed"),
            ("Host: f.example\r\nHost: f.example\r\n", "closed"),
            ("Host: f.example\r\nHost: g.example\r\n", "closed"),
            ("Host: f.example\r\nhost:\r\n", "closed"),
            ("Host: f.example\r\nA: b\r\nHOST: f.example\r\n", "closed"),
            // What is no host.
            ("Host: f.example, g.example\r\n", "closed"),
            ("Host: f.example g.example\r\n", "closed"),
            ("Host: f.example,\r\n", "closed"),
            ("Host: user@f.example\r\n", "closed"),
            ("Host: user:word@f.example\r\n", "closed"),
            ("Host: f.example:80:80\r\n", "closed"),
            ("Host: f.example:x\r\n", "closed"),
            ("Host: f.example:+80\r\n", "closed"),
            ("Host: f.example:-1\r\n", "closed"),
            ("Host: f.example:65536\r\n", "closed"),
            ("Host: f.example: 80\r\n", "closed"),
            ("Host: :80\r\n", "closed"),
            ("Host: ::1\r\n", "closed"),
            ("Host: [::1\r\n", "closed"),
            ("Host: [f.example]\r\n", "closed"),
            ("Host: f.example/\r\n", "closed"),
            ("Host: f.example/fn/f\r\n", "closed"),
            ("Host: f.example?x\r\n", "closed"),
            ("Host: f.example#x\r\n", "closed"),
            ("Host: f.example\\x\r\n", "closed"),
            ("Host: http://f.example\r\n", "closed"),
            ("Host: f%2eexample\r\n", "closed"),
            ("Host: \"f.example\"\r\n", "closed"),
            ("Host: f.ex\u{e4}mple\r\n", "closed"),
            ("Host: f.example\0\r\n", "closed"),
            ("Host: f.example\x7f\r\n", "closed"),
            ("Host: f.example\x0b\r\n", "closed"),
            ("Host : f.example\r\n", "closed"),
            ("Host\r\n", "closed"),
        ]
        .map(|(fields, fate)| (host(fields), fate)),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn old_clients_need_no_host_but_get_nowhere_without() {
    check([
        ("GET /fn/f HTTP/1.0\r\n\r\n", "404 not_found; closed"),
        ("GET /fn/f HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "404 not_found; open"),
        ("GET /fn/f HTTP/1.0\r\nHost: f.example\r\n\r\n", "200; closed; GET /fn/f"),
        ("GET /fn/f HTTP/1.0\r\nHost: f.example\r\nHost: f.example\r\n\r\n", "closed"),
        ("GET /fn/f HTTP/1.0\r\nHost: f.example\r\nConnection: Keep-Alive\r\n\r\n", "open"),
        (
            "GET /fn/f HTTP/1.0\r\nHost: f.example\r\nConnection: keep-alive, close\r\n\r\n",
            "200; closed; GET /fn/f",
        ),
        ("GET http://f.example/fn/f HTTP/1.0\r\n\r\n", "200; closed; GET /fn/f"),
    ])
    .await;
}

/// A target with a host of its own: that one counts, as HTTP has it, and nothing but it is passed on.
#[tokio::test(start_paused = true)]
async fn absolute_targets() {
    let none = "404 not_found; open";
    let with = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    check(
        [
            ("http://f.example/fn/f", "f.example", "open"),
            ("https://f.example/fn/f", "f.example", "open"),
            ("HTTP://F.EXAMPLE:80/fn/f", "f.example", "open"),
            ("http://f.example/fn/f", "g.example", "open"),
            ("http://f.example/fn/f", "", "open"),
            ("http://g.example/fn/f", "f.example", none),
            ("http://f.example", "f.example", none),
            ("http://f.example?/fn/f", "f.example", none),
            (
                "http://f.example/fn/f?http://g.example/",
                "f.example",
                "200; open; GET /fn/f?http://g.example/",
            ),
            ("http://user@f.example/fn/f", "f.example", "closed"),
            ("http://user:word@f.example/fn/f", "f.example", "closed"),
            ("http://f.example:x/fn/f", "f.example", "closed"),
            ("http://f.example/fn/f", "f.example, g.example", "closed"),
            ("http:///fn/f", "f.example", "closed"),
            ("http://", "f.example", "closed"),
            ("http:/fn/f", "f.example", "closed"),
            ("http:f.example/fn/f", "f.example", "closed"),
            ("ftp://f.example/fn/f", "f.example", "closed"),
            ("file:///fn/f", "f.example", "closed"),
            ("ws://f.example/fn/f", "f.example", "closed"),
            ("://f.example/fn/f", "f.example", "closed"),
            ("http://f.example#/fn/f", "f.example", "closed"),
            ("http://f.example\\@g.example/fn/f", "f.example", "closed"),
            ("http://f.example/../fn/f", "f.example", "closed"),
            // Other forms.
            ("//f.example/fn/f", "f.example", none),
            ("f.example:80", "f.example", "closed"),
            ("f.example/fn/f", "f.example", "closed"),
            ("fn/f", "f.example", "closed"),
            ("?x", "f.example", "closed"),
            ("*", "f.example", "closed"),
            ("/*", "f.example", none),
        ]
        .map(|(target, host, fate)| (with(target, host), fate)),
    )
    .await;
    check([
        ("GET http://f.example/fn/f HTTP/1.1\r\n\r\n", "closed"),
        ("OPTIONS * HTTP/1.1\r\nHost: f.example\r\n\r\n", none),
        ("OPTIONS ** HTTP/1.1\r\nHost: f.example\r\n\r\n", "closed"),
    ])
    .await;
}
