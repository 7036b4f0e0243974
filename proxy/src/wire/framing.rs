//! Where a request ends: whatever two readers could see at different places is refused, and what stands
//! behind it is never read as a request.

use super::table::{check, get, post};

/// What an attacker hopes will be taken for the next client's request.
const SMUGGLED: &str = "GET /fn/f/smuggled HTTP/1.1\r\nHost: f.example\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn lengths() {
    let with = |fields: &str| post(fields, &format!("abc{SMUGGLED}"));
    check([
        (post("Content-Length: 3\r\n", "abc"), "200; open; POST /fn/f abc"),
        (post("Content-Length: 003\r\n", "abc"), "200; open; POST /fn/f abc"),
        (post("content-LENGTH:\t3 \t\r\n", "abc"), "200; open; POST /fn/f abc"),
        (post("Content-Length: 0\r\n", ""), "200; open; POST /fn/f"),
        (post("", ""), "200; open; POST /fn/f"),
        (post("Content-Length: 3\r\n", "ab"), "; waits"),
        (with("Content-Length: 3\r\n"), "200 + 200; open; POST /fn/f abc + GET /fn/f/smuggled"),
        (get("Content-Length: 3\r\n"), "; waits"),
        (with("Content-Length: 3\r\nContent-Length: 3\r\n"), "closed"),
        (with("Content-Length: 3\r\nContent-Length: 4\r\n"), "closed"),
        (with("Content-Length: 3\r\nContent-Length:\r\n"), "closed"),
        (with("Content-Length: 3, 3\r\n"), "closed"),
        (with("Content-Length: 3,\r\n"), "closed"),
        (with("Content-Length: +3\r\n"), "closed"),
        (with("Content-Length: -3\r\n"), "closed"),
        (with("Content-Length: -0\r\n"), "closed"),
        (with("Content-Length: 0x3\r\n"), "closed"),
        (with("Content-Length: 3.0\r\n"), "closed"),
        (with("Content-Length: 3e0\r\n"), "closed"),
        (with("Content-Length: 3 3\r\n"), "closed"),
        (with("Content-Length: \"3\"\r\n"), "closed"),
        (with("Content-Length: \u{663}\r\n"), "closed"), // a digit, but of another script
        (with("Content-Length:\r\n"), "closed"),
        (with("Content-Length: 3;\r\n"), "closed"),
        (with("Content-Length: \x0b3\r\n"), "closed"),
        (with("Content-Length: 18446744073709551619\r\n"), "closed"), // 3, where 64 bits wrap
        (with("Content-Length: 4294967299\r\n"), "413 body_too_large; closed"), // 3 in 32 bits
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn transfer_codings() {
    let body = format!("3\r\nabc\r\n0\r\n\r\n{SMUGGLED}");
    let with = |fields: &str| post(fields, &body);
    let good = "200 + 200; open; POST /fn/f abc + GET /fn/f/smuggled";
    let unknown = "501 transfer_coding_not_supported; closed";
    check([
        (with("Transfer-Encoding: chunked\r\n"), good),
        (with("transfer-encoding: Chunked\r\n"), good),
        (with("Transfer-Encoding:chunked\r\n"), good),
        (with("Transfer-Encoding: \t chunked \t\r\n"), good),
        (with("Transfer-Encoding: chunked, chunked\r\n"), unknown),
        (with("Transfer-Encoding: gzip, chunked\r\n"), unknown),
        (with("Transfer-Encoding: chunked, identity\r\n"), unknown),
        (with("Transfer-Encoding: chunked,\r\n"), unknown),
        (with("Transfer-Encoding: ,chunked\r\n"), unknown),
        (with("Transfer-Encoding: identity\r\n"), unknown),
        (with("Transfer-Encoding: chunkedx\r\n"), unknown),
        (with("Transfer-Encoding: xchunked\r\n"), unknown),
        (with("Transfer-Encoding: \"chunked\"\r\n"), unknown),
        (with("Transfer-Encoding: chunked;q=1\r\n"), unknown),
        (with("Transfer-Encoding: chun ked\r\n"), unknown),
        (with("Transfer-Encoding: c\u{440}unked\r\n"), unknown),
        (with("Transfer-Encoding:\r\n"), unknown),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), unknown),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), unknown),
        (with("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n"), unknown),
        (with("Transfer-Encoding: \x0bchunked\r\n"), "closed"),
        (with("Transfer-Encoding: chunked\x0b\r\n"), "closed"),
        (with("Transfer-Encoding: chunked\0\r\n"), "closed"),
        (with("Transfer-Encoding: chunked\r\r\n"), "closed"),
        (with("Transfer-Encoding : chunked\r\n"), "closed"),
        (with("Transfer-Encoding\t: chunked\r\n"), "closed"),
        (with("Transfer-Encoding:\r\n chunked\r\n"), "closed"),
        (with("\u{a0}Transfer-Encoding: chunked\r\n"), "closed"),
        // Names that only look like it: the body is none then.
        (post("Transfer_Encoding: chunked\r\n", ""), "200; open; POST /fn/f"),
        (post("X: y\r\nTransfer-Encodin: chunked\r\n", ""), "200; open; POST /fn/f"),
        // Both at once, in whatever order and spelling.
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), "closed"),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), "closed"),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), "closed"),
        (with("Transfer-Encoding: chunked\r\nContent-Length: x\r\n"), "closed"),
        (with("Transfer-Encoding: identity\r\nContent-Length: 3\r\n"), "closed"),
        // A connection's options cannot take a framing field away.
        (with("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n"), good),
        (
            post("Connection: content-length\r\nContent-Length: 3\r\n", "abc"),
            "200; open; POST /fn/f abc",
        ),
    ])
    .await;
    let old =
        |fields: &str| format!("POST /fn/f HTTP/1.0\r\nHost: f.example\r\n{fields}\r\n{body}");
    check([
        (old("Transfer-Encoding: chunked\r\n"), "closed"),
        (old("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), "closed"),
        (old("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"), "closed"),
        // Without a length an old client sends no body, and what follows is dropped.
        (old(""), "200; closed; POST /fn/f"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn chunks() {
    let with = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let good = "200; open; POST /fn/f abc";
    check([
        (with("3\r\nabc\r\n0\r\n\r\n"), good),
        (with("1\r\na\r\n02\r\nbc\r\n000\r\n\r\n"), good),
        (with("0\r\n\r\n"), "200; open; POST /fn/f"),
        (with("A\r\n0123456789\r\n0\r\n\r\n"), "200; open; POST /fn/f 0123456789"),
        // Extensions and trailers are dropped.
        (with("3;a\r\nabc\r\n0;b=\"c\"\r\n\r\n"), good),
        (with("3 ;a = b\r\nabc\r\n0\r\n\r\n"), good),
        (with("3\r\nabc\r\n0\r\nX-Trailer: x\r\n\r\n"), good),
        (with("3\r\nabc\r\n0\r\nContent-Length: 9\r\nHost: other\r\n\r\n"), good),
        // What is not complete.
        (with(""), "; waits"),
        (with("3\r\nabc"), "; waits"),
        (with("3\r\nabc\r\n0\r\n"), "; waits"),
        (with("fffffff\r\n"), "; waits"),
        // Sizes that are none.
        (with("\r\n"), "closed"),
        (with(" 3\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3 \r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3\t\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3 3\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("0x3\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("+3\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("-3\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3_\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3,\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("g\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("\u{663}\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with(";a\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("100000003\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("10000000000000003\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("000000003\r\nabc\r\n0\r\n\r\n"), "closed"),
        // Ends of lines that are none.
        (with("3\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3\r\nabc\n0\r\n\r\n"), "closed"),
        (with("3\r\nabc\r\n0\n\r\n"), "closed"),
        (with("3\r\nabc\r\n0\r\n\n"), "closed"),
        (with("3\r\rabc\r\n0\r\n\r\n"), "closed"),
        (with("3;a\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3;a\rb\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3;\x0b\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3;\0\r\nabc\r\n0\r\n\r\n"), "closed"),
        (with("3\r\nabc0\r\n\r\n"), "closed"),
        (with("3\r\nabcd\r\n0\r\n\r\n"), "closed"),
        (with("2\r\nabc\r\n0\r\n\r\n"), "closed"),
        // Trailers that are none.
        (with("3\r\nabc\r\n0\r\nno trailer\r\n\r\n"), "closed"),
        (with("3\r\nabc\r\n0\r\n folded: x\r\n\r\n"), "closed"),
        (with("3\r\nabc\r\n0\r\nGET /fn/f/smuggled HTTP/1.1\r\n\r\n"), "closed"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_chunks_cost_beside_their_data_is_bounded() {
    let with = |body: String| post("Transfer-Encoding: chunked\r\n", &body);
    check([
        (with(format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(300))), "closed"),
        (with(format!("{}0\r\n\r\n", "1;0123456789\r\nx\r\n".repeat(900))), "closed"),
        (with(format!("0\r\nX: {}\r\n\r\n", "x".repeat(9000))), "closed"),
        (with(format!("0\r\n{}\r\n", "a: b\r\n".repeat(2000))), "closed"),
        (with(format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(501))), "413 body_too_large; open"),
        (with(format!("1f5\r\n{}\r\n0\r\n\r\n", "x".repeat(501))), "413 body_too_large; open"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_request_after_the_other() {
    let two = |first: Vec<u8>| [first, SMUGGLED.into()].concat();
    check([
        (two(get("")), "200 + 200; open; GET /fn/f + GET /fn/f/smuggled"),
        (
            two(two(get(""))),
            "200 + 200 + 200; open; GET /fn/f + GET /fn/f/smuggled + GET /fn/f/smuggled",
        ),
        (two(get("Connection: close\r\n")), "200; closed; GET /fn/f"),
        (two(get("Connection: x, Close\r\n")), "200; closed; GET /fn/f"),
        (two(get("Connection: keep-alive\r\nConnection: close\r\n")), "200; closed; GET /fn/f"),
        // An error about one request alone leaves the next one alone.
        (
            two(b"GET /none HTTP/1.1\r\nHost: f.example\r\n\r\n".to_vec()),
            "404 not_found + 200; open; GET /fn/f/smuggled",
        ),
        (
            two(b"POST /none HTTP/1.1\r\nHost: f.example\r\nContent-Length: 3\r\n\r\nabc".to_vec()),
            "404 not_found + 200; open; GET /fn/f/smuggled",
        ),
        (
            two(b"TRACE /fn/f HTTP/1.1\r\nHost: f.example\r\n\r\n".to_vec()),
            "405 method_not_allowed + 200; open; GET /fn/f/smuggled",
        ),
        (
            two(post("Content-Length: 501\r\n", &"x".repeat(501))),
            "413 body_too_large + 200; open; GET /fn/f/smuggled",
        ),
        // After an error about the form of a request nothing is a request any more.
        (two(b"GET /fn/f HTTP/1.1\r\n\r\n".to_vec()), "closed"),
        (two(b"GET /fn/f\r\n\r\n".to_vec()), "closed"),
        // Empty lines before a request, as old clients send them behind a body.
        (two(b"\r\n\r\n\r\n".to_vec()), "200; open; GET /fn/f/smuggled"),
        (
            two(post("Content-Length: 3\r\n", "abc\r\n")),
            "200 + 200; open; POST /fn/f abc + GET /fn/f/smuggled",
        ),
        (two(b"\n".to_vec()), "closed"),
        (two(b"\r".to_vec()), "closed"),
        (two(b"\r\n\n".to_vec()), "closed"),
        (two(b" ".to_vec()), "closed"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn expectations() {
    let with = |fields: &str, body| post(&format!("Content-Length: 3\r\n{fields}"), body);
    let refused = "417 expectation_failed; closed";
    check([
        // Asked once, and only before anything of the body came.
        (with("Expect: 100-continue\r\n", ""), "100; waits"),
        (with("Expect: 100-Continue\r\n", ""), "100; waits"),
        (with("Expect: 100-continue\r\nExpect: 100-continue\r\n", ""), "100; waits"),
        (post("Expect: 100-continue\r\n", ""), "200; open; POST /fn/f"),
        (post("Expect: 100-continue\r\nContent-Length: 0\r\n", ""), "200; open; POST /fn/f"),
        (with("Expect: 100-continue, x\r\n", "abc"), refused),
        (with("Expect: 100-continue\r\nExpect: x\r\n", "abc"), refused),
        (with("Expect: x\r\n", "abc"), refused),
        (with("Expect:\r\n", "abc"), refused),
        (
            b"POST /fn/f HTTP/1.0\r\nHost: f.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
                .to_vec(),
            "200; closed; POST /fn/f abc",
        ),
        // A refusal comes instead of the invitation, and the body may come or not.
        (
            b"POST /none HTTP/1.1\r\nHost: f.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
                .to_vec(),
            "404 not_found; closed",
        ),
        (post("Expect: 100-continue\r\nContent-Length: 501\r\n", ""), "413 body_too_large; closed"),
    ])
    .await;
}
