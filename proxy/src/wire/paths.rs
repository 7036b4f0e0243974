//! Targets: what is passed on is what the client sent, byte for byte, or nothing is.

use super::table::{check, line};

#[tokio::test(start_paused = true)]
async fn paths_that_pass_as_they_are() {
    for target in [
        "/fn/f",
        "/fn/f/",
        "/fn/f?",
        "/fn/f?a=b&a=c",
        "/fn/f//x",
        "/fn/f/x//",
        "/fn/f/a%2fb",
        "/fn/f/a%2Fb",
        "/fn/f/%41",
        "/fn/f/%00",
        "/fn/f/%0d%0aX:%20y",
        "/fn/f/%c3%a4",
        "/fn/f/%",
        "/fn/f/%zz",
        "/fn/f/%252e%252e/x",
        "/fn/f/.well-known/x",
        "/fn/f/...",
        "/fn/f/x..",
        "/fn/f/;x=y",
        "/fn/f/a:b@c",
        "/fn/f/\"<>[]^`{|}",
        "/fn/f?../..",
        "/fn/f?x=/../y",
        "/fn/f?x=%2e%2e",
        "/fn/f?x=?y",
        "/fn/f/!$&'()*+,=~_-",
    ] {
        let fate = format!("200; open; GET {target}");
        check([(line(&format!("GET {target} HTTP/1.1")), fate.as_str())]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn paths_that_lead_nowhere() {
    for target in [
        "/",
        "//",
        "/fn",
        "/fn/",
        "/fn//f",
        "/FN/f",
        "/fn/F",
        "/fn/g",
        "/fn/ff",
        "/fn/f%2fx",
        "/fn/f%00",
        "/fn/%66",
        "/%66n/f",
        "/fn%2ff",
        "//fn/f",
        "/x/fn/f",
        "/fn?/f",
        "/fn/f;x",
        "/fn/f%3fx",
    ] {
        check([(line(&format!("GET {target} HTTP/1.1")), "404 not_found; open")]).await;
    }
}

/// Clients resolve them; the rest of the world does not agree on who else should.
#[tokio::test(start_paused = true)]
async fn dot_segments() {
    for target in [
        "/fn/f/.",
        "/fn/f/..",
        "/fn/f/./x",
        "/fn/f/../f",
        "/fn/f/../../etc/passwd",
        "/fn/f/x/../y?z",
        "/fn/../fn/f",
        "/./fn/f",
        "/../fn/f",
        "/fn/f/%2e",
        "/fn/f/%2E%2E/x",
        "/fn/f/.%2e/x",
        "/fn/f/%2e./x",
        "/fn/f/..%2fx",
        "/fn/f/%2e%2e%2Fx",
        "/fn/f/..%5cx",
        "/fn/f/..\\x",
        "/none/..",
    ] {
        check([(line(&format!("GET {target} HTTP/1.1")), "closed")]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_a_target_cannot_have() {
    for bytes in [
        &b"\0"[..],
        b"\x01",
        b"\x08",
        b"\t",
        b"\x0b",
        b"\x0c",
        b"\r",
        b"\x1f",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xc3\xa4",
        b"\xc0\xaf",
        b"\xef\xbc\x8e",
        b" x",
        b"#",
        b"#x",
        b"?x#y",
    ] {
        let target = [b"GET /fn/f/", bytes, b" HTTP/1.1\r\nHost: f.example\r\n\r\n"].concat();
        check([(target, "closed")]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn long_targets() {
    let target = |bytes: usize| format!("/fn/f/{}", "x".repeat(bytes - 6));
    let with = |bytes| line(&format!("GET {} HTTP/1.1", target(bytes)));
    let longest = format!("200; open; GET {}", target(8192));
    check([
        (with(8192), longest.as_str()),
        (with(8193), "414 target_too_long; open"),
        (with(40_000), "414 target_too_long; closed"),
        (b"GET /".iter().chain(&[b'x'; 100_000]).copied().collect(), "414 target_too_long; closed"),
    ])
    .await;
}
