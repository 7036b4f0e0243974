//! The first line of a request, and the ends of its lines.

use super::table::{check, line};

#[tokio::test(start_paused = true)]
async fn ends_of_lines() {
    let cases: &[(&[u8], &str)] = &[
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\n\r\n", "open"),
        (b"GET /fn/f HTTP/1.1\nHost: f.example\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\n\n", "closed"),
        (b"GET /fn/f HTTP/1.1\nHost: f.example\n\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\nA: b\n\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\r\nHost: f.example\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\rHost: f.example\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\rA: b\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\n\r\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\nA\r: b\r\n\r\n", "closed"),
        // Folded lines.
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\nA: b\r\n c\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\nA:\r\n\tc\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\n Host: f.example\r\n\r\n", "closed"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\n \r\n\r\n", "closed"),
        // What is not complete.
        (b"", "; waits"),
        (b"\r\n", "200; open; GET /fn/f/usable"),
        (b"GET", "; waits"),
        (b"GET /fn/f HTTP/1.1\r\nHost: f.example\r\n", "; waits"),
    ];
    // The probe of an idle connection is its first request.
    let (idle, cases): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.0.len() < 3);
    check(cases).await;
    assert_eq!(idle.len(), 2);
    check([(&b""[..], "; open"), (b"\r\n", "; open"), (b"\r\n\r\n", "; open")]).await;
}

#[tokio::test(start_paused = true)]
async fn first_lines() {
    let cases = [
        ("GET /fn/f HTTP/1.1", "open"),
        ("GET  /fn/f HTTP/1.1", "closed"),
        ("GET /fn/f  HTTP/1.1", "closed"),
        ("GET /fn/f HTTP/1.1 ", "closed"),
        (" GET /fn/f HTTP/1.1", "closed"),
        ("GET\t/fn/f\tHTTP/1.1", "closed"),
        ("GET\x0b/fn/f HTTP/1.1", "closed"),
        ("GET /fn/f /fn/g HTTP/1.1", "closed"),
        ("GET HTTP/1.1", "closed"),
        ("GET", "closed"),
        ("/fn/f HTTP/1.1", "closed"),
        (": /fn/f HTTP/1.1", "closed"),
        // Versions.
        ("GET /fn/f HTTP/1.0", "200; closed; GET /fn/f"),
        ("GET /fn/f", "closed"),
        ("GET /fn/f HTTP/0.9", "505 http_version_not_supported; closed"),
        ("GET /fn/f HTTP/1.2", "505 http_version_not_supported; closed"),
        ("GET /fn/f HTTP/2.0", "505 http_version_not_supported; closed"),
        ("GET /fn/f HTTP/3.0", "505 http_version_not_supported; closed"),
        ("GET /fn/f http/1.1", "closed"),
        ("GET /fn/f HTTP/1.1.1", "closed"),
        ("GET /fn/f HTTP/1.10", "closed"),
        ("GET /fn/f HTTP/01.1", "closed"),
        ("GET /fn/f HTTP/1,1", "closed"),
        ("GET /fn/f HTTP/1.", "closed"),
        ("GET /fn/f HTTP/2", "closed"),
        ("GET /fn/f HTTPS/1.1", "closed"),
        ("GET /fn/f HTTP /1.1", "closed"),
        ("GET /fn/f ICY/1.1", "closed"),
        // Methods.
        ("DELETE /fn/f HTTP/1.1", "200; open; DELETE /fn/f"),
        ("OPTIONS /fn/f HTTP/1.1", "200; open; OPTIONS /fn/f"),
        ("PATCH /fn/f HTTP/1.1", "200; open; PATCH /fn/f"),
        ("get /fn/f HTTP/1.1", "405 method_not_allowed; open"),
        ("Get /fn/f HTTP/1.1", "405 method_not_allowed; open"),
        ("TRACE /fn/f HTTP/1.1", "405 method_not_allowed; open"),
        ("PROPFIND /fn/f HTTP/1.1", "405 method_not_allowed; open"),
        ("QUERY /fn/f HTTP/1.1", "405 method_not_allowed; open"),
        ("PRI /fn/f HTTP/1.1", "405 method_not_allowed; open"),
        ("!#$%&'*+-.^_`|~ /fn/f HTTP/1.1", "405 method_not_allowed; open"),
        ("CONNECT f.example:80 HTTP/1.1", "405 method_not_allowed; closed"),
        ("CONNECT /fn/f HTTP/1.1", "405 method_not_allowed; closed"),
        ("G(T /fn/f HTTP/1.1", "closed"),
        ("G\0T /fn/f HTTP/1.1", "closed"),
        ("G\u{c9}T /fn/f HTTP/1.1", "closed"),
        ("GET, /fn/f HTTP/1.1", "closed"),
    ];
    check(cases.map(|(first, fate)| (line(first), fate))).await;
    let long = "X".repeat(8000);
    check([
        (line(&format!("{long} /fn/f HTTP/1.1")), "405 method_not_allowed; open"),
        (line(&format!("{long}{long} /fn/f HTTP/1.1")), "414 target_too_long; closed"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn other_languages_are_told_so_at_once() {
    let cases: &[(&[u8], &str)] = &[
        // HTTP/0.9, and whoever else ends a first line and waits.
        (b"GET /fn/f\r\n", "closed"),
        (b"GET /fn/f\n", "closed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "closed"),
        (b"EHLO f.example\r\n", "closed"),
        (b"GET /fn/f HTTP/3.0\r\n", "505 http_version_not_supported; closed"),
        // HTTP/2 without being asked for it, TLS on the wrong port, a proxy's own header.
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            "505 http_version_not_supported; closed",
        ),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "closed"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "closed"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "closed"),
        (b"\0", "closed"),
        (b"\x80", "closed"),
        (b"{}", "closed"),
    ];
    check(cases.iter().copied()).await;
}
