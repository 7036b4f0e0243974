// Beneath and beside Node's modules.

//= tcp_wrap | -13
const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap');
const code = new TCP(constants.SOCKET).connect(new TCPConnectWrap(), host, port);
if (code) throw code;

//= udp_wrap | -13
const {UDP, SendWrap} = process.binding('udp_wrap');
const u = new UDP();
u.bind('0.0.0.0', 0, 0);
const code = u.send(new SendWrap(), [Buffer.from('x')], 1, port, host, true);
if (code < 0) throw code;

//= udp_wrap connected | -13
const {UDP, SendWrap} = process.binding('udp_wrap');
const u = new UDP();
u.bind('0.0.0.0', 0, 0);
let code = u.connect(host, port);
if (!code) code = u.send(new SendWrap(), [Buffer.from('x')], 1, true);
if (code < 0) throw code;

//= tcp_wrap in another context | -13
const code = require('vm').runInNewContext(
  `const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap');
  new TCP(constants.SOCKET).connect(new TCPConnectWrap(), host, port)`,
  {process, host, port},
);
if (code) throw code;

//= net in another context | SSRF guard blocked
return reach(require('vm').runInNewContext('require("net").connect(port, host)', {require, host, port}));

//= the binding's methods put back | -13 | fresh
const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap');
const P = TCP.prototype;
for (const f of [
  () => {
    delete P.connect;
  },
  () => {
    P.connect = P.connect6;
  },
  () => Object.defineProperty(P, 'connect', {value: 1}),
  () => Object.setPrototypeOf(P, null),
])
  try {
    f();
  } catch {}
class Own extends TCP {}
const codes = [new Own(constants.SOCKET), Object.setPrototypeOf(new TCP(constants.SOCKET), P)].map((t) =>
  t.connect(new TCPConnectWrap(), host, port),
);
if (codes.some((c) => c)) throw codes.join();

//= the guard loaded again with another list | SSRF guard blocked | fresh
const fs = require('fs');
const real = fs.readFileSync;
fs.readFileSync = (f, ...more) =>
  String(f).endsWith('egress.txt') ? 'deny 192.0.2.0/24\nallow 2000::/3\n' : real(f, ...more);
for (const name of Object.keys(require.cache)) delete require.cache[name];
try {
  require('/app/guard.cjs');
  return await reach(require('net').connect(port, host));
} finally {
  fs.readFileSync = real;
}

//= connect without the guard's names | SSRF guard blocked | fresh
const net = require('net');
net.Socket.prototype.connect = function (port, host) {
  const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap');
  this._handle = new TCP(constants.SOCKET);
  this._handle[Symbol('owner')] = this;
  this.connecting = true;
  const r = new TCPConnectWrap();
  r.oncomplete = (status) => (status ? this.destroy(new Error(String(status))) : this.emit('connect'));
  const code = this._handle.connect(r, host, port);
  if (code) this.destroy(new Error(String(code)));
  return this;
};
return reach(new net.Socket().connect(port, host));

//= a Worker | SSRF guard blocked
const {Worker} = require('worker_threads');
return new Promise((ok, no) =>
  new Worker(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true})
    .on('error', no)
    .on('exit', ok),
);

//= a Worker with arguments and an environment of its own | SSRF guard blocked
const {Worker, SHARE_ENV} = require('worker_threads');
const go = (o) =>
  new Promise((ok, no) =>
    new Worker(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {
      eval: true,
      ...o,
    })
      .on('error', no)
      .on('exit', ok),
  );
await go({execArgv: ['--no-warnings'], env: SHARE_ENV});
return go({execArgv: [], env: {}});

//= a Worker's own constructor | SSRF guard blocked
const {Worker} = require('worker_threads');
const w0 = new Worker('0', {eval: true});
await new Promise((ok) => w0.on('exit', ok));
const W = Object.getPrototypeOf(w0).constructor;
return new Promise((ok, no) =>
  new W(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true})
    .on('error', no)
    .on('exit', ok),
);

//= tcp_wrap of a Worker | code -13
const {Worker} = require('worker_threads');
return new Promise((ok, no) =>
  new Worker(
    `const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap');
      const code = new TCP(constants.SOCKET).connect(new TCPConnectWrap(), '${host}', ${port});
      if (code) throw new Error('code ' + code);`,
    {eval: true},
  )
    .on('error', no)
    .on('exit', ok),
);
