//! A name with a private address: the resolver withholds it, and yet the function's error is the
//! guard's with that address, in every way to connect.

use serde_json::{Value, json};

use crate::{
    grid::{Grid, Service},
    http::Answer,
    internet::{Host, dns::Zone},
};

const NODE: &str = r"
const http = require('http');
const once = (emitter, done) => new Promise((resolve, reject) => {
  let errors = 0;
  emitter.on(done, () => { emitter.destroy(); resolve('reached'); });
  // An error that came twice would come before the second turn of the loop.
  emitter.on('error', (error) => { errors += 1; setImmediate(() => setImmediate(() => {
    error.times = errors;
    reject(error);
  })); });
});
const WAYS = {
  fetch: (host) => fetch(`http://${host}/`).then((answer) => answer.text()),
  'http.get': (host) => once(http.get({ host, agent: false }), 'response'),
  'net.connect': (host) => once(require('net').connect(80, host), 'connect'),
  'net.connect, family 4': (host) => once(require('net').connect({ host, port: 80, family: 4 }), 'connect'),
  'net.connect, all': (host) => once(require('net').connect({ host, port: 80, autoSelectFamily: true }), 'connect'),
  'http2.connect': (host) => { const session = require('http2').connect(`http://${host}`); session.unref(); return once(session, 'connect'); },
  'tls.connect': (host) => once(require('tls').connect({ host, port: 80, servername: host }), 'secureConnect'),
  'dgram.send': (host) => new Promise((resolve, reject) => {
    const socket = require('dgram').createSocket('udp4');
    socket.send('x', 80, host, (error) => { socket.close(); error ? reject(error) : resolve('reached'); });
  }),
  'own lookup': (host) => once(require('net').connect({ host, port: 80, lookup: (name, options, done) => require('dns').lookup(name, options, done) }), 'connect'),
  // What asks for names and nothing else stays as it is.
  'dns.lookup': (host) => require('dns').promises.lookup(host),
};
exports.handler = async ({ body: { way, host, escape } }) => {
  if (!way) return Object.keys(WAYS);
  try {
    await WAYS[way](host);
    return { reached: true };
  } catch (error) {
    if (escape) throw error;
    const { message, code, statusCode, address, hostname, times = 1 } = error.cause || error;
    return { message, code, status: statusCode, address, host: hostname, times };
  }
};";

const PYTHON: &str = r#"
import asyncio, http.client, socket, urllib.error, urllib.request

def loop(make):
    async def go():
        return await make(asyncio.get_running_loop())
    asyncio.run(go())

async def sock_connect(loop, host):
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (host, 80))

WAYS = {
    "urlopen": lambda host: urllib.request.urlopen("http://%s/" % host).read(),
    "http.client": lambda host: http.client.HTTPConnection(host).request("GET", "/"),
    "create_connection": lambda host: socket.create_connection((host, 80)).close(),
    "bytes": lambda host: socket.create_connection((host.encode(), 80)).close(),
    "connect": lambda host: socket.socket().connect((host, 80)),
    "connect_ex": lambda host: socket.socket().connect_ex((host, 80)),
    "sendto": lambda host: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", (host, 80)),
    "sendmsg": lambda host: socket.socket(type=socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, (host, 80)),
    "open_connection": lambda host: asyncio.run(asyncio.open_connection(host, 80)),
    "datagram endpoint": lambda host: loop(lambda l: l.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(host, 80))),
    "sock_connect": lambda host: loop(lambda l: sock_connect(l, host)),
    "urlopen, ftp": lambda host: urllib.request.urlopen("ftp://%s:80/" % host).read(),
    # What asks for names and nothing else stays as it is.
    "getaddrinfo": lambda host: socket.getaddrinfo(host, 80),
    "loop.getaddrinfo": lambda host: loop(lambda l: l.getaddrinfo(host, 80)),
}

def handler(event, context):
    body = event["body"]
    if "way" not in body:
        return list(WAYS)
    try:
        WAYS[body["way"]](body["host"])
        return {"reached": True}
    except Exception as error:
        if body.get("escape"):
            raise
        reason = getattr(error, "reason", error)
        return {
            "message": str(error), "status": getattr(error, "status", None), "times": 1,
            "code": getattr(error, "code", None), "address": getattr(error, "address", None),
            "host": getattr(error, "host", None), "kinds": [c.__name__ for c in type(error).__mro__],
            "errno": reason.errno,
        }
"#;

/// Ways that only ask for names.
const ASKING: [&str; 3] = ["dns.lookup", "getaddrinfo", "loop.getaddrinfo"];

fn send(grid: &Grid, service: &Service, body: &Value) -> Answer {
    let target = format!("/fn/{}", service.name);
    grid.call(&service.name, "POST", &target, &[], body.to_string())
}

fn told(grid: &Grid, service: &Service, body: &Value) -> Value {
    let answer = send(grid, service, body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

fn assert_not_found(said: &Value, what: &str) {
    let in_node = said["code"] == "ENOTFOUND";
    // EAI_NONAME and EAI_NODATA.
    let in_python = [json!(-2), json!(-5)].contains(&said["errno"]);
    assert!(in_node || in_python, "{what}: {said}");
    assert_eq!(said["status"], Value::Null, "{what}: {said}");
    assert_eq!(said["times"], 1, "{what}: {said}");
}

fn assert_blocked(said: &Value, address: &str, host: &str, what: &str) {
    let message = said["message"].as_str().unwrap_or_default();
    let expected = format!("SSRF guard blocked outbound request to {address}");
    assert!(message.contains(&expected), "{what}: {said}");
    assert_eq!((&said["status"], &said["times"]), (&json!(452), &json!(1)), "{what}: {said}");
    assert!([json!("SSRF_BLOCKED"), json!(452)].contains(&said["code"]), "{what}: {said}");
    assert_eq!((&said["address"], &said["host"]), (&json!(address), &json!(host)), "{what}");
}

#[test]
fn the_error_for_a_withheld_name_is_the_guards() {
    let (private, public) = (Host::at("10.66.7.8".parse().expect("an address")), Host::public());
    let (_silent, web) = (private.tcp(80), public.tcp(80));
    let zone = Zone::default()
        .addresses("private.example.com", &[private.address()])
        .addresses("v6.example.com", &["fd00::66".parse().expect("an address")])
        .addresses("mixed.example.com", &[public.address(), private.address()])
        .alias("alias.example.com", "private.example.com")
        .addresses("public.example.com", &[public.address()]);
    let server = Host::public();
    let names = server.dns(zone);
    let grid = Grid::with(&[("GRID_EGRESS_DNS_SERVERS", &server.address().to_string())]);
    for (runtime, code) in [("node18", NODE), ("python3.9", PYTHON)] {
        let name = format!("withheld-{}", &runtime[..4]);
        let service = grid.create(&name, runtime, code, json!({"max_replicas": 1}));
        let ways = told(&grid, &service, &json!({}));
        for way in ways.as_array().expect("a list") {
            let ask = |host: &str| told(&grid, &service, &json!({"way": way, "host": host}));
            let what = format!("{runtime}, {way}");
            assert_not_found(&ask("gone.example.com"), &what);
            let said = ask("private.example.com");
            if ASKING.contains(&way.as_str().expect("a name")) {
                assert_not_found(&said, &what);
            } else {
                assert_blocked(&said, "10.66.7.8", "private.example.com", &what);
            }
        }
        let (first, last) = (&ways[0], &ways[2]);
        for (host, address) in [
            ("alias.example.com", "10.66.7.8"),
            ("mixed.example.com", "10.66.7.8"),
            ("v6.example.com", "fd00::66"),
            ("Private.Example.com.", "10.66.7.8"),
        ] {
            let said = told(&grid, &service, &json!({"way": last, "host": host}));
            assert_blocked(&said, address, host, runtime);
        }
        for host in ["localhost.localdomain", "db.corp.internal"] {
            let said = told(&grid, &service, &json!({"way": last, "host": host}));
            assert_not_found(&said, &format!("{runtime}, {host}"));
        }
        let there = web.seen().len();
        for way in [first, last] {
            let said = told(&grid, &service, &json!({"way": way, "host": "public.example.com"}));
            assert_eq!(said["reached"], true, "{runtime}, {way}: {said}");
        }
        assert!(web.seen().len() > there, "{runtime}");

        for way in ways.as_array().expect("a list") {
            if ASKING.contains(&way.as_str().expect("a name")) {
                continue;
            }
            let body = json!({"way": way, "host": "private.example.com", "escape": true});
            let answer = send(&grid, &service, &body);
            let text = answer.text();
            assert_eq!(answer.status, 452, "{runtime}, {way}: {text}");
            let expected = "SSRF guard blocked outbound request to 10.66.7.8";
            assert!(text.contains(expected), "{runtime}, {way}: {text}");
        }
    }
    assert_eq!(private.packets(), 0, "nothing went there");
    // Upstream servers hear of no name of Grid's own.
    let asked = names.asked();
    assert!(asked.iter().all(|(name, _)| !name.contains("internal")), "{asked:?}");
}
