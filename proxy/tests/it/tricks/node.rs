//! Tricks of Node functions.

use serde_json::json;

use super::{GUARD, Refused, Stage, Trick, all_refused, dirty, refused, run, trick};
use crate::grid::{Grid, Service, wait_until};

/// Runs the body's code. `reach` waits for a connection, `whole` for an answer.
pub(super) const STAGE: &str = r#"
const reach = (socket) => new Promise((ok, no) => {
  socket.on("error", no).once("connect", () => { socket.destroy(); ok("connected"); });
});
const whole = (request) => new Promise((ok, no) => {
  request.on("error", no).on("response", (r) => { r.resume(); r.on("end", () => ok(r.statusCode)); });
});
const tell = (e, deep = 0) => (e && deep < 4 ? [e.code, e.message || e, e.stderr, tell(e.cause, deep + 1)].filter(Boolean).join(" ") : "");
const Code = (async () => {}).constructor;
exports.handler = async ({body}) => {
  if (body.exit) process.exit(3);
  try {
    const code = new Code("host", "port", "cover", "require", "module", "reach", "whole", body.code);
    return {done: String(await code(body.host, body.port, body.cover, require, module, reach, whole))};
  } catch (e) { return {error: tell(e) || "nothing"}; }
};"#;

const WITNESS: Trick = trick(
    "curl",
    "curl: (7)",
    "await require('util').promisify(require('child_process').execFile)('curl', ['-sS', '-m', '5', `http://${host}:${port}/`]);",
);

const CALLS: &[Trick] = &[
    trick("net", GUARD, "return reach(require('net').connect(port, host));"),
    trick("fetch", GUARD, "return (await fetch(`http://${host}:${port}/`)).text();"),
    trick("http.get", GUARD, "return whole(require('http').get(`http://${host}:${port}/`));"),
    trick(
        "http.ClientRequest",
        GUARD,
        "const r = new (require('http').ClientRequest)({host, port}); r.end(); return whole(r);",
    ),
    trick(
        "https",
        GUARD,
        "return new Promise((ok, no) => require('https').get({host, port}).on('error', no).on('socket', (s) => reach(s).then(ok, no)));",
    ),
    trick(
        "tls",
        GUARD,
        "return reach(require('tls').connect({host, port, rejectUnauthorized: false}));",
    ),
    trick(
        "http2",
        GUARD,
        "const s = require('http2').connect(`http://${host}:${port}`); return new Promise((ok, no) => s.on('error', no).on('connect', () => { s.destroy(); ok(1); }));",
    ),
    trick(
        "dgram",
        GUARD,
        "const s = require('dgram').createSocket('udp4'); return new Promise((ok, no) => { s.on('error', no); s.send('x', port, host, (e) => { s.close(); e ? no(e) : ok('sent'); }); });",
    ),
    trick(
        "dgram connected",
        GUARD,
        "const s = require('dgram').createSocket('udp4'); return new Promise((ok, no) => { s.on('error', no); s.connect(port, host, (e) => e ? no(e) : s.send('x', (e) => { s.close(); e ? no(e) : ok('sent'); })); });",
    ),
    trick(
        "dgram with a lookup of its own",
        GUARD,
        "const s = require('dgram').createSocket({type: 'udp4', lookup: (name, o, done) => done(null, name === 'a.test' ? host : name, 4)}); return new Promise((ok, no) => { s.on('error', no); s.send('x', port, 'a.test', (e) => { s.close(); e ? no(e) : ok('sent'); }); });",
    ),
    trick(
        "a second connect of one socket",
        GUARD,
        "const s = require('net').connect(80, cover); await new Promise((ok, no) => s.on('connect', ok).on('error', no)); s.destroy(); s.connect(port, host); return reach(s);",
    ),
    trick(
        "the runner's Module._load",
        GUARD,
        "return reach(module.constructor._load('net').connect(port, host));",
    ),
    trick(
        "createRequire",
        GUARD,
        "return reach(require('module').createRequire('/app/x.js')('net').connect(port, host));",
    ),
    trick(
        "import at run time",
        GUARD,
        "const {connect} = await import('net'); return reach(connect(port, host));",
    ),
    trick(
        "an agent's own connection",
        GUARD,
        "const {Agent, get} = require('http'); const agent = new Agent({keepAlive: true}); agent.createConnection = () => require('net').connect(port, host); return whole(get({host: cover, agent}));",
    ),
    trick(
        "another dispatcher of fetch",
        GUARD,
        "await fetch(`http://${cover}/`); const key = Symbol.for('undici.globalDispatcher.1'); const kept = globalThis[key]; globalThis[key] = new kept.constructor({connect: (o, done) => { const s = require('net').connect(port, host, () => done(null, s)); s.on('error', (e) => done(e)); }}); try { return (await fetch(`http://${cover}/x`)).status; } finally { globalThis[key] = kept; }",
    ),
    trick(
        "a redirect",
        GUARD,
        "return (await fetch(`http://${cover}/302/${host}/${port}`)).status;",
    ),
    trick(
        "a redirected POST",
        GUARD,
        "return (await fetch(`http://${cover}/307/${host}/${port}`, {method: 'POST', body: 'x'})).status;",
    ),
];

const LIES: &[Trick] = &[
    trick(
        "lookup says so",
        GUARD,
        "return reach(require('net').connect({port, host: 'a.test', lookup: (n, o, done) => o.all ? done(null, [{address: host, family: 4}]) : done(null, host, 4)}));",
    ),
    trick(
        "lookup calls twice",
        GUARD,
        "return reach(require('net').connect({port, host: 'a.test', lookup: (n, o, done) => { done(null, host, 4); done(null, host, 4); }}));",
    ),
    trick(
        "an address of lookup that changes",
        GUARD,
        "let n = 0; const one = {get address() { return n++ ? host : cover; }, family: 4}; const s = require('net').connect({port, host: 'a.test', lookup: (_, o, done) => done(null, [one])}); return reach(s);",
    ),
    trick(
        "a text of lookup that changes",
        "-13",
        "const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap'); let last; for (const first of [0, 1, 2]) { let n = 0; const lie = {toString: () => n++ < first ? '127.0.0.1' : host}; last = new TCP(constants.SOCKET).connect(new TCPConnectWrap(), lie, port); } if (last) throw last;",
    ),
    trick(
        "getters that change",
        GUARD,
        "let n = 0; return reach(require('net').connect({port, get host() { return n++ < 1 ? 'localhost' : host; }, lookup: (name, o, done) => done(null, host, 4)}));",
    ),
    dirty(
        "Object.prototype.host",
        GUARD,
        "Object.prototype.host = host; try { return await reach(require('net').connect({port})); } finally { delete Object.prototype.host; }",
    ),
    dirty(
        "Object.prototype.lookup",
        GUARD,
        "Object.prototype.lookup = (n, o, done) => done(null, host, 4); try { return await reach(require('net').connect({port, host: 'a.test'})); } finally { delete Object.prototype.lookup; }",
    ),
    dirty(
        "a verdict in Object.prototype",
        GUARD,
        "const names = ['allowed', 'words', 'low', 'high', 'bits', 'verdict', 'getServers']; for (const n of names) Object.prototype[n] = true; try { return await reach(require('net').connect(port, host)); } finally { for (const n of names) delete Object.prototype[n]; }",
    ),
    dirty(
        "built-in functions that lie",
        GUARD,
        r"const all = [[String.prototype, 'charCodeAt', () => 56], [String.prototype, 'indexOf', () => -1], [String.prototype, 'slice', () => '8.8.8.8'],
          [Math, 'floor', () => 8], [Array, 'isArray', () => false], [Reflect, 'apply', () => true], [Reflect, 'ownKeys', () => []], [WeakSet.prototype, 'has', () => true],
          [Function.prototype, 'call', () => undefined], [globalThis, 'Uint16Array', Array], [Array.prototype, 'push', () => 0]];
        const kept = all.map(([o, n]) => o[n]); const socket = new (require('net').Socket)();
        try { for (let i = 0; i < all.length; i += 1) all[i][0][all[i][1]] = all[i][2]; socket.connect(port, host); }
        finally { for (let i = 0; i < all.length; i += 1) all[i][0][all[i][1]] = kept[i]; }
        return reach(socket);",
    ),
    dirty(
        "name servers of dns",
        GUARD,
        "const dns = require('dns'); dns.setServers([`${host}:${port}`]); dns.resolve4('a.test', () => {});",
    ),
    trick(
        "name servers of a Resolver",
        GUARD,
        "const r = new (require('dns').promises.Resolver)({timeout: 100, tries: 1}); r.setServers([`${host}:${port}`]); r.resolve4('a.test').catch(() => {});",
    ),
    trick(
        "name servers of the binding",
        GUARD,
        "const {ChannelWrap, QueryReqWrap} = process.binding('cares_wrap'); const c = new ChannelWrap(100, 1); let n = 0; c.setServers([[4, {toString: () => n++ ? '127.0.0.1' : host}, port]]); const q = new QueryReqWrap(); q.oncomplete = () => {}; c.queryA(q, 'a.test');",
    ),
];

const DEEP: &[Trick] = &[
    trick(
        "tcp_wrap",
        "-13",
        "const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap'); const code = new TCP(constants.SOCKET).connect(new TCPConnectWrap(), host, port); if (code) throw code;",
    ),
    trick(
        "udp_wrap",
        "-13",
        "const {UDP, SendWrap} = process.binding('udp_wrap'); const u = new UDP(); u.bind('0.0.0.0', 0, 0); const code = u.send(new SendWrap(), [Buffer.from('x')], 1, port, host, true); if (code < 0) throw code;",
    ),
    trick(
        "udp_wrap connected",
        "-13",
        "const {UDP, SendWrap} = process.binding('udp_wrap'); const u = new UDP(); u.bind('0.0.0.0', 0, 0); let code = u.connect(host, port); if (!code) code = u.send(new SendWrap(), [Buffer.from('x')], 1, true); if (code < 0) throw code;",
    ),
    trick(
        "tcp_wrap in another context",
        "-13",
        "const code = require('vm').runInNewContext(\"const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap'); new TCP(constants.SOCKET).connect(new TCPConnectWrap(), host, port)\", {process, host, port}); if (code) throw code;",
    ),
    trick(
        "net in another context",
        GUARD,
        "return reach(require('vm').runInNewContext('require(\"net\").connect(port, host)', {require, host, port}));",
    ),
    dirty(
        "the binding's methods put back",
        "-13",
        r"const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap'); const P = TCP.prototype;
        for (const f of [() => { delete P.connect; }, () => { P.connect = P.connect6; }, () => Object.defineProperty(P, 'connect', {value: 1}), () => Object.setPrototypeOf(P, null)]) try { f(); } catch {}
        class Own extends TCP {} const codes = [new Own(constants.SOCKET), Object.setPrototypeOf(new TCP(constants.SOCKET), P)].map((t) => t.connect(new TCPConnectWrap(), host, port));
        if (codes.some((c) => c)) throw codes.join();",
    ),
    dirty(
        "the guard loaded again with another list",
        GUARD,
        r"const fs = require('fs'); const real = fs.readFileSync; fs.readFileSync = (f, ...more) => String(f).endsWith('egress.txt') ? 'deny 192.0.2.0/24\nallow 2000::/3\n' : real(f, ...more);
        for (const name of Object.keys(require.cache)) delete require.cache[name];
        try { require('/app/guard.cjs'); return await reach(require('net').connect(port, host)); } finally { fs.readFileSync = real; }",
    ),
    dirty(
        "connect without the guard's names",
        GUARD,
        r"const net = require('net'); const [key] = Object.getOwnPropertySymbols(net._normalizeArgs([]));
        net.Socket.prototype.connect = function (port, host) {
          const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap'); this._handle = new TCP(constants.SOCKET); this._handle[Symbol('owner')] = this; this.connecting = true;
          const r = new TCPConnectWrap(); r.oncomplete = (status) => status ? this.destroy(new Error(String(status))) : this.emit('connect');
          const code = this._handle.connect(r, host, port); if (code) this.destroy(new Error(String(code))); return this; };
        return reach(new net.Socket().connect(port, host));",
    ),
    trick(
        "a Worker",
        GUARD,
        "const {Worker} = require('worker_threads'); return new Promise((ok, no) => new Worker(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true}).on('error', no).on('exit', ok));",
    ),
    trick(
        "a Worker with arguments and an environment of its own",
        GUARD,
        "const {Worker, SHARE_ENV} = require('worker_threads'); const go = (o) => new Promise((ok, no) => new Worker(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true, ...o}).on('error', no).on('exit', ok)); await go({execArgv: ['--no-warnings'], env: SHARE_ENV}); return go({execArgv: [], env: {}});",
    ),
    trick(
        "a Worker's own constructor",
        GUARD,
        "const {Worker} = require('worker_threads'); const w0 = new Worker('0', {eval: true}); await new Promise((ok) => w0.on('exit', ok)); const W = Object.getPrototypeOf(w0).constructor; return new Promise((ok, no) => new W(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true}).on('error', no).on('exit', ok));",
    ),
    trick(
        "connect of a Worker's socket",
        GUARD,
        "const {Worker} = require('worker_threads'); return new Promise((ok, no) => new Worker(`const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap'); const c = new TCP(constants.SOCKET).connect(new TCPConnectWrap(), '${host}', ${port}); setTimeout(() => { if (c) throw new Error('SSRF guard blocked: ' + c); }, 100)`, {eval: true}).on('error', no).on('exit', ok));",
    ),
];

/// What no code in the same process can stop.
const PAST: &[Trick] = &[
    trick(
        "node in a child process",
        "ECONNREFUSED",
        "await require('util').promisify(require('child_process').execFile)(process.execPath, ['-e', `require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`]);",
    ),
    trick(
        "a shell's curl that posts",
        "curl: (7)",
        "require('child_process').execSync(`curl -sS -m 5 --data x http://${host}:${port}/`, {stdio: 'pipe'});",
    ),
    trick(
        "fork",
        "ECONNREFUSED",
        "require('fs').writeFileSync('/tmp/child.js', `require('net').connect(${port}, '${host}').on('connect', () => process.exit(0)).on('error', (e) => process.exit(e.code === 'ECONNREFUSED' ? 7 : 8))`); const c = require('child_process').fork('/tmp/child.js'); const code = await new Promise((ok) => c.on('exit', ok)); if (code) throw code === 7 ? 'ECONNREFUSED' : code;",
    ),
    trick(
        "spawn_sync",
        "status 7",
        "const o = process.binding('spawn_sync').spawn({file: 'curl', args: ['curl', '-sS', '-m', '5', `http://${host}:${port}/`], envPairs: [`PATH=${process.env.PATH}`], stdio: [{type: 'pipe', readable: true, writable: false}, {type: 'pipe', readable: false, writable: true}, {type: 'pipe', readable: false, writable: true}]}); if (o.status) throw `status ${o.status}`;",
    ),
    trick(
        "datagrams of a child process",
        "",
        "await require('util').promisify(require('child_process').execFile)(process.execPath, ['-e', `const s = require('dgram').createSocket('udp4'); s.send('x', ${port}, '${host}', () => s.close())`]);",
    ),
    trick(
        "NODE_OPTIONS for a child process",
        "ECONNREFUSED",
        "require('fs').writeFileSync('/tmp/first.js', `require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`); await require('util').promisify(require('child_process').execFile)(process.execPath, ['-e', '0'], {env: {NODE_OPTIONS: '--require /tmp/first.js'}});",
    ),
    dirty(
        "NODE_OPTIONS for a Worker",
        "-111",
        "require('fs').writeFileSync('/tmp/first.js', `const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap'); const r = new TCPConnectWrap(); r.oncomplete = (status) => { if (status) throw new Error(String(status)); process.exit(0); }; const code = new TCP(constants.SOCKET).connect(r, '${host}', ${port}); if (code) throw new Error('at once ' + code);`); const {Worker} = require('worker_threads'); return new Promise((ok, no) => new Worker('', {eval: true, env: {NODE_OPTIONS: '--require /tmp/first.js'}}).on('error', no).on('exit', ok));",
    ),
    dirty(
        "a Worker class imported under an assembled name",
        "ECONNREFUSED",
        "const {Worker} = await import(['worker', 'threads'].join('_')); return new Promise((ok, no) => new Worker(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true}).on('error', no).on('exit', ok));",
    ),
    dirty(
        "the native method out of the guard's closure",
        "status -111",
        r"const {Session} = require('inspector'); const session = new Session(); session.connect();
        const post = (method, params) => new Promise((ok, no) => session.post(method, params, (e, r) => e ? no(new Error(e.message)) : ok(r)));
        globalThis.connect = process.binding('tcp_wrap').TCP.prototype.connect;
        const {result: {objectId}} = await post('Runtime.evaluate', {expression: 'connect'});
        const {internalProperties} = await post('Runtime.getProperties', {objectId, ownProperties: true});
        const scopes = internalProperties.find((p) => p.name === '[[Scopes]]').value.objectId; let native;
        for (const scope of (await post('Runtime.getProperties', {objectId: scopes, ownProperties: true})).result) {
          if (!scope.value || !scope.value.objectId) continue;
          const found = (await post('Runtime.getProperties', {objectId: scope.value.objectId, ownProperties: true})).result.find((p) => p.name === 'native');
          if (found) native = found.value.objectId;
        }
        await post('Runtime.callFunctionOn', {objectId: native, functionDeclaration: 'function () { globalThis.native = this; }'});
        const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap'); const request = new TCPConnectWrap();
        const ended = new Promise((ok) => { request.oncomplete = ok; });
        const code = globalThis.native.call(new TCP(constants.SOCKET), request, host, port) || await ended;
        if (code) throw `status ${code}`;",
    ),
];

/// Without a host that could tell.
const REFUSED: &[Refused] = &[
    refused(
        "multicast",
        &[GUARD],
        "const s = require('dgram').createSocket('udp4'); return new Promise((ok, no) => { s.on('error', no); s.bind(0, () => { s.setMulticastTTL(4); s.send('x', 5353, '224.0.0.251', (e) => e ? no(e) : ok('sent')); }); });",
    ),
    refused(
        "broadcast",
        &[GUARD],
        "const s = require('dgram').createSocket('udp4'); return new Promise((ok, no) => { s.on('error', no); s.bind(0, () => { s.setBroadcast(true); s.send('x', 5353, '255.255.255.255', (e) => e ? no(e) : ok('sent')); }); });",
    ),
    refused(
        "an addon in /tmp",
        &["Operation not permitted", "failed to map segment"],
        r"const fs = require('fs'); const from = fs.readFileSync('/proc/self/maps', 'utf8').match(/\/\S*(?:libc|musl)\S*\.so\S*/)[0];
        fs.writeFileSync('/tmp/addon.node', fs.readFileSync(from), {mode: 0o755}); process.dlopen({exports: {}}, '/tmp/addon.node');",
    ),
    refused(
        "a program in /tmp",
        &["EACCES"],
        "const fs = require('fs'); fs.copyFileSync(fs.realpathSync('/bin/sh'), '/tmp/program'); fs.chmodSync('/tmp/program', 0o755); require('child_process').execFileSync('/tmp/program');",
    ),
    refused(
        "WebAssembly has no imports of its own",
        &["LinkError", "Import", "import"],
        "return new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 2, 7, 1, 1, 97, 1, 98, 0, 0])));",
    ),
    refused(
        "sockets of WASI",
        &["is not a function", "undefined", "not a constructor"],
        "const {WASI} = require('wasi'); return new WASI({}).wasiImport.sock_open();",
    ),
];

fn deploy(grid: &Grid) -> Service {
    grid.create("tricks-n", "node18", STAGE, json!({"max_replicas": 1}))
}

#[test]
fn nodes_ways_to_connect_are_guarded() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).guarded(CALLS, &WITNESS);
}

#[test]
fn lies_of_node_code_are_not_believed() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).guarded(LIES, &WITNESS);
}

#[test]
fn beneath_nodes_modules_the_guard_stands_too() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).guarded(DEEP, &WITNESS);
}

#[test]
fn the_firewall_stops_what_gets_past_nodes_guard() {
    let grid = Grid::start();
    Stage::new(&grid, &deploy(&grid)).unguarded(PAST);
}

#[test]
fn node_code_is_refused_what_it_does_not_need() {
    let grid = Grid::start();
    all_refused(&grid, &deploy(&grid), REFUSED);
}

/// Tries what a module can do before any request: connects while it is loaded, by names that it
/// imported.
const MODULE: &str = r#"
import net, {connect, Socket} from "node:net";
import {get} from "http";
import {Worker} from "worker_threads";
import {createSocket} from "dgram";
import {Resolver} from "dns/promises";
const tell = (e) => `${e.code} ${e.message}`;
const settle = (start) => new Promise((ok) => { try { start(ok); } catch (e) { ok(tell(e)); } });
const reach = (socket, ok) => socket.on("error", (e) => ok(tell(e))).once("connect", () => { socket.destroy(); ok("connected"); });
const all = (host, port) => Promise.all([
  settle((ok) => reach(connect(port, host), ok)),
  settle((ok) => reach(net.createConnection(port, host), ok)),
  settle((ok) => reach(new Socket().connect({port, host}), ok)),
  settle((ok) => get({host, port}, (r) => { r.resume(); ok("connected"); }).on("error", (e) => ok(tell(e)))),
  settle((ok) => new Worker(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true}).on("error", (e) => ok(tell(e))).on("exit", () => ok("connected"))),
  settle((ok) => createSocket("udp4").send("x", port, host, (e) => ok(e ? tell(e) : "connected"))),
  settle((ok) => { new Resolver().setServers([`${host}:${port}`]); ok("connected"); }),
]);
const early = await Promise.all([all("PUBLIC", 80), all("PRIVATE", 80)]);
export const handler = async ({body}) => body.early ? early : all(body.host, body.port);
"#;

#[test]
fn a_module_that_connects_while_it_loads_is_guarded() {
    let grid = Grid::start();
    let (private, public) =
        (super::Host::at("10.66.0.1".parse().expect("an address")), super::Host::public());
    let (there, _canary) = (super::Canary::at(&public, 80), super::Canary::at(&private, 80));
    let code = MODULE
        .replace("PUBLIC", &public.address().to_string())
        .replace("PRIVATE", &private.address().to_string());
    let service = grid.create("tricks-esm", "node18", &code, json!({"max_replicas": 1}));
    let early = run(&grid, &service, "while it loads", &json!({"early": true}));
    let later = json!([
        run(&grid, &service, "later", &json!({"host": public.address(), "port": 80})),
        run(&grid, &service, "later", &json!({"host": private.address(), "port": 80})),
    ]);
    for said in [early, later] {
        for (open, closed) in
            said[0].as_array().expect("a list").iter().zip(said[1].as_array().expect("a list"))
        {
            assert_eq!(open, "connected", "{said}");
            let told = closed.as_str().unwrap_or_default();
            assert!(told.contains(GUARD) || told.contains("EACCES"), "{said}");
        }
    }
    wait_until("those who got through", || {
        there.tcp.seen().len() >= 10 && there.udp.seen().len() >= 2
    });
    assert_eq!(private.packets(), 0);
}
