//! Tricks of hostile functions, each with the layer that must stop it. A trick first has to reach a
//! public host, so that one that does not work proves nothing; then the same code is given private
//! addresses, where real servers wait in vain.

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

/// A piece of code with what its error says when it is stopped; of datagrams nobody may get to know.
///
/// Most make packets for `host` and `port` by all means. `cover` is a public address, whose web
/// server redirects `/<status>/<host>/<port>` there.
struct Trick {
    name: String,
    /// One of these words.
    shows: Vec<String>,
    /// It leaves traces in its process, which so ends with it.
    fresh: bool,
    code: String,
}

impl Trick {
    /// All of a file. Each begins with a comment `= name | word / word | fresh`; what stands before
    /// the first one is put in front of every one of them.
    fn all(file: &str) -> Vec<Self> {
        let start = |line: &str| {
            let head = line.strip_prefix("//= ").or_else(|| line.strip_prefix("#= "))?;
            let mut parts = head.split('|').map(str::trim);
            let name = parts.next().unwrap_or_default().to_owned();
            let shows = parts.next().expect("words").split(" / ").map(str::to_owned).collect();
            let fresh = parts.next() == Some("fresh");
            Some(Self { name, shows, fresh, code: String::new() })
        };
        let mut before = String::new();
        let mut tricks: Vec<Self> = Vec::new();
        for line in file.lines() {
            if let Some(trick) = start(line) {
                tricks.push(Self { code: before.clone(), ..trick });
                continue;
            }
            let code = tricks.last_mut().map_or(&mut before, |trick| &mut trick.code);
            code.push_str(line);
            code.push('\n');
        }
        assert!(tricks.len() > 5, "no tricks in a file");
        tricks
    }

    /// The one of this name.
    fn named(file: &str, name: &str) -> Self {
        Self::all(file).into_iter().find(|trick| trick.name == name).expect("a trick")
    }

    fn is_shown_by(&self, told: &str) -> bool {
        self.shows.iter().any(|word| told.contains(word.as_str()))
    }
}

/// What the guard's error says.
const GUARD: &str = "SSRF guard blocked";

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
            assert!(trick.is_shown_by(told), "{}: {said}", trick.name);
        }
        self.assert_unseen(&trick.name);
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
    fn guarded(&self, file: &str, witness: &Trick) {
        for (trick, port) in Trick::all(file).iter().zip(3000..) {
            self.try_out(trick, port);
        }
        self.try_out(witness, 9);
        wait_until("the witness in the record", || self.is_refused(9));
        let refused = self.refused();
        assert!(refused.iter().all(|(_, port)| *port == 9), "got past the guard: {refused:?}");
    }

    /// They get past the guard, and the firewall stops them.
    fn unguarded(&self, file: &str) {
        for (trick, port) in Trick::all(file).iter().zip(4000..) {
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

/// Code that must fail, without a host that could tell.
fn all_refused(grid: &Grid, service: &Service, file: &str) {
    let mut wrong = Vec::new();
    for trick in Trick::all(file) {
        let said = run(grid, service, &trick.name, &json!({"code": trick.code}));
        if !trick.is_shown_by(said["error"].as_str().unwrap_or_default()) {
            wrong.push(format!("{}: {said}", trick.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
