//! Tricks of hostile functions, each with the layer that must stop it. A trick first has to reach a
//! public host, so that one that does not work proves nothing; then the same code is given private
//! addresses, where real servers wait in vain.

/// Python code with the C library at hand, for what Python itself would not do.
macro_rules! native {
    ($code:expr) => {
        concat!(
            "import ctypes, os, socket, struct\n",
            "libc = ctypes.CDLL(None, use_errno=True)\n",
            "x86 = os.uname().machine == 'x86_64'\n",
            "L = ctypes.c_long\n",
            "def check(code):\n",
            "    if code < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n",
            "    return code\n",
            "def inet(host, port): return struct.pack('=H', 2) + struct.pack('!H', port) + socket.inet_aton(host) + bytes(8)\n",
            "def dial(fd, address): check(libc.connect(fd, address, len(address)))\n",
            $code
        )
    };
}

mod host;
mod node;
mod python;

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::{
    grid::{Grid, Service, wait_until},
    http::Answer,
    internet::{
        Host,
        servers::{Datagrams, Listener, http},
    },
};

/// Code that makes packets for `host` and `port` by all means. `cover` is a public address, whose
/// web server redirects `/302/<host>/<port>` there, with whatever status is asked for.
struct Trick {
    name: &'static str,
    /// What its error says when it is stopped; of datagrams nobody may get to know.
    shows: &'static str,
    /// It leaves traces in its process, which so ends with it.
    fresh: bool,
    code: &'static str,
}

/// In the process, beneath what the code called.
const GUARD: &str = "SSRF guard blocked";

const fn trick(name: &'static str, shows: &'static str, code: &'static str) -> Trick {
    Trick { name, shows, fresh: false, code }
}

/// One that needs or leaves a process of its own.
const fn dirty(name: &'static str, shows: &'static str, code: &'static str) -> Trick {
    Trick { name, shows, fresh: true, code }
}

/// Where tricks are tried: a service that runs what it is told to, and hosts for it to reach.
struct Stage<'a> {
    grid: &'a Grid,
    service: &'a Service,
    cover: Host,
    _web: Listener,
    public: Host,
    private: [Host; 2],
}

/// Both servers of a port.
struct Canary {
    tcp: Listener,
    udp: Datagrams,
}

impl Canary {
    fn at(host: &Host, port: u16) -> Self {
        Self { tcp: host.tcp(port), udp: host.udp(port) }
    }

    fn visits(&self) -> usize {
        self.tcp.seen().len() + self.udp.seen().len()
    }
}

/// Sends everybody on to where the path says.
fn redirect(request: &str) -> Vec<u8> {
    let target = request.split(' ').nth(1).unwrap_or_default();
    let parts: Vec<&str> = target.trim_start_matches('/').split('/').collect();
    match parts[..] {
        [status, host, port] => {
            let there = format!("http://{host}:{port}/");
            http(&format!("{status} Elsewhere"), &[("location", &there)], "")
        }
        _ => http("200 OK", &[], "cover"),
    }
}

impl<'a> Stage<'a> {
    fn new(grid: &'a Grid, service: &'a Service) -> Self {
        let private = ["10.66.0.1", "169.254.169.254"];
        let private = private.map(|address| Host::at(address.parse().expect("an address")));
        let cover = Host::public();
        let web = cover.tcp_with(80, redirect);
        Self { grid, service, cover, _web: web, public: Host::public(), private }
    }

    /// Runs code in the service; gives `{"done": …}` or `{"error": …}`.
    fn run(&self, trick: &Trick, host: IpAddr, port: u16) -> Value {
        let cover = self.cover.address();
        let target = SocketAddr::from((host, port));
        run(
            self.grid,
            self.service,
            &format!("{} to {target}", trick.name),
            &json!({
                "code": trick.code, "host": host, "port": port, "cover": cover,
            }),
        )
    }

    /// It works, and yet nothing arrives where nothing may.
    fn try_out(&self, trick: &Trick, port: u16) {
        let there = Canary::at(&self.public, port);
        let said = self.run(trick, self.public.address(), port);
        wait_until(&format!("{} at the public host, which said {said}", trick.name), || {
            there.visits() > 0
        });
        for host in &self.private {
            let _canary = Canary::at(host, port);
            let said = self.run(trick, host.address(), port);
            let told = said["error"].as_str().unwrap_or_default();
            assert!(told.contains(trick.shows), "{}: {said}", trick.name);
        }
        self.assert_unseen(trick.name);
        if trick.fresh {
            end(self.grid, self.service);
        }
    }

    /// Not one packet has come to a private host.
    fn assert_unseen(&self, after: &str) {
        for host in &self.private {
            assert_eq!(host.packets(), 0, "{after}: {} was reached", host.address());
        }
    }

    /// Ports that the firewall refused to the service.
    fn refused(&self) -> Vec<(String, u16)> {
        let record = self.grid.api("GET", &self.service.path(""), None).json();
        let targets = record["egress_denied"]["targets"].as_array().cloned().unwrap_or_default();
        let named = |target: &Value| {
            Some((target["to"].as_str()?.to_owned(), u16::try_from(target["port"].as_u64()?).ok()?))
        };
        targets.iter().filter_map(named).collect()
    }

    fn is_refused(&self, port: u16) -> bool {
        let refused = self.refused();
        let has = |host: &Host| refused.contains(&(host.address().to_string(), port));
        self.private.iter().all(has)
    }

    /// The guard stops them: the kernel has nothing to refuse. `witness` is one that gets past it.
    fn guarded(&self, tricks: &[Trick], witness: &Trick) {
        for (trick, port) in tricks.iter().zip(3000..) {
            self.try_out(trick, port);
        }
        self.try_out(witness, 9);
        wait_until("the witness in the record", || self.is_refused(9));
        let refused = self.refused();
        assert!(refused.iter().all(|(_, port)| *port == 9), "got past the guard: {refused:?}");
    }

    /// They get past the guard, and the firewall stops them.
    fn unguarded(&self, tricks: &[Trick]) {
        for (trick, port) in tricks.iter().zip(4000..) {
            self.try_out(trick, port);
            wait_until(&format!("{} in the record", trick.name), || self.is_refused(port));
        }
        self.assert_unseen("all of them");
    }
}

/// What code says; it must have been run.
fn run(grid: &Grid, service: &Service, name: &str, body: &Value) -> Value {
    let answer = send(grid, service, body);
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    answer.json()
}

fn send(grid: &Grid, service: &Service, body: &Value) -> Answer {
    let target = format!("/fn/{}", service.name);
    grid.call(&service.name, "POST", &target, &[], body.to_string())
}

/// Ends the service's process; the next request has a new one.
fn end(grid: &Grid, service: &Service) {
    let answer = send(grid, service, &json!({"exit": true}));
    assert_eq!((answer.status, answer.code().as_str()), (502, "function_crashed"));
}

/// Code that must fail, with one of these words in its error.
struct Refused {
    name: &'static str,
    shows: &'static [&'static str],
    code: &'static str,
}

const fn refused(
    name: &'static str,
    shows: &'static [&'static str],
    code: &'static str,
) -> Refused {
    Refused { name, shows, code }
}

fn all_refused(grid: &Grid, service: &Service, cases: &[Refused]) {
    let mut wrong = Vec::new();
    for case in cases {
        let said = run(grid, service, case.name, &json!({"code": case.code}));
        let told = said["error"].as_str().unwrap_or_default();
        if !case.shows.iter().any(|word| told.contains(word)) {
            wrong.push(format!("{}: {said}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
