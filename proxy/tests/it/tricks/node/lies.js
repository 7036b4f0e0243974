// What says one thing and then another.

//= lookup says so | SSRF guard blocked
return reach(
  require('net').connect({
    port,
    host: 'a.test',
    lookup: (n, o, done) => (o.all ? done(null, [{address: host, family: 4}]) : done(null, host, 4)),
  }),
);

//= lookup calls twice | SSRF guard blocked
return reach(
  require('net').connect({
    port,
    host: 'a.test',
    lookup: (n, o, done) => {
      done(null, host, 4);
      done(null, host, 4);
    },
  }),
);

//= an address of lookup that changes | SSRF guard blocked
let n = 0;
const one = {
  get address() {
    return n++ ? host : cover;
  },
  family: 4,
};
const s = require('net').connect({port, host: 'a.test', lookup: (_, o, done) => done(null, [one])});
return reach(s);

//= an address whose text changes | -13
const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap');
let last;
for (const first of [0, 1, 2]) {
  let n = 0;
  const lie = {toString: () => (n++ < first ? '127.0.0.1' : host)};
  last = new TCP(constants.SOCKET).connect(new TCPConnectWrap(), lie, port);
}
if (last) throw last;

//= getters that change | SSRF guard blocked
let n = 0;
return reach(
  require('net').connect({
    port,
    get host() {
      return n++ < 1 ? 'localhost' : host;
    },
    lookup: (name, o, done) => done(null, host, 4),
  }),
);

//= Object.prototype.host | SSRF guard blocked | fresh
Object.prototype.host = host;
try {
  return await reach(require('net').connect({port}));
} finally {
  delete Object.prototype.host;
}

//= Object.prototype.lookup | SSRF guard blocked | fresh
Object.prototype.lookup = (n, o, done) => done(null, host, 4);
try {
  return await reach(require('net').connect({port, host: 'a.test'}));
} finally {
  delete Object.prototype.lookup;
}

//= a verdict in Object.prototype | SSRF guard blocked | fresh
const names = ['allowed', 'words', 'low', 'high', 'bits', 'verdict', 'getServers'];
for (const n of names) Object.prototype[n] = true;
try {
  return await reach(require('net').connect(port, host));
} finally {
  for (const n of names) delete Object.prototype[n];
}

//= built-in functions that lie | SSRF guard blocked | fresh
const all = [
  [String.prototype, 'charCodeAt', () => 56],
  [String.prototype, 'indexOf', () => -1],
  [String.prototype, 'slice', () => '8.8.8.8'],
  [Math, 'floor', () => 8],
  [Array, 'isArray', () => false],
  [Reflect, 'apply', () => true],
  [Reflect, 'ownKeys', () => []],
  [WeakSet.prototype, 'has', () => true],
  [Function.prototype, 'call', () => undefined],
  [globalThis, 'Uint16Array', Array],
  [Array.prototype, 'push', () => 0],
];
const kept = all.map(([o, n]) => o[n]);
const socket = new (require('net').Socket)();
try {
  for (let i = 0; i < all.length; i += 1) all[i][0][all[i][1]] = all[i][2];
  socket.connect(port, host);
} finally {
  for (let i = 0; i < all.length; i += 1) all[i][0][all[i][1]] = kept[i];
}
return reach(socket);

//= name servers of dns | SSRF guard blocked | fresh
const dns = require('dns');
dns.setServers([`${host}:${port}`]);
dns.resolve4('a.test', () => {});

//= name servers of a Resolver | SSRF guard blocked
const r = new (require('dns').promises.Resolver)({timeout: 100, tries: 1});
r.setServers([`${host}:${port}`]);
r.resolve4('a.test').catch(() => {});

//= name servers of the binding | SSRF guard blocked
const {ChannelWrap, QueryReqWrap} = process.binding('cares_wrap');
const c = new ChannelWrap(100, 1);
let n = 0;
c.setServers([[4, {toString: () => (n++ ? '127.0.0.1' : host)}, port]]);
const q = new QueryReqWrap();
q.oncomplete = () => {};
c.queryA(q, 'a.test');
