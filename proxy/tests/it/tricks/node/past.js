// What no code in the same process can stop.

//= node in a child process | ECONNREFUSED
await require('util').promisify(require('child_process').execFile)(process.execPath, [
  '-e',
  `require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`,
]);

//= a shell's curl that posts | curl: (7)
require('child_process').execSync(`curl -sS -m 5 --data x http://${host}:${port}/`, {stdio: 'pipe'});

//= fork | ECONNREFUSED
require('fs').writeFileSync(
  '/tmp/child.js',
  `const s = require('net').connect(${port}, '${host}').on('connect', () => process.exit(0));
  s.on('error', (e) => process.exit(e.code === 'ECONNREFUSED' ? 7 : 8));`,
);
const c = require('child_process').fork('/tmp/child.js');
const code = await new Promise((ok) => c.on('exit', ok));
if (code) throw code === 7 ? 'ECONNREFUSED' : code;

//= spawn_sync | status 7
const o = process.binding('spawn_sync').spawn({
  file: 'curl',
  args: ['curl', '-sS', '-m', '5', `http://${host}:${port}/`],
  envPairs: [`PATH=${process.env.PATH}`],
  stdio: [
    {type: 'pipe', readable: true, writable: false},
    {type: 'pipe', readable: false, writable: true},
    {type: 'pipe', readable: false, writable: true},
  ],
});
if (o.status) throw `status ${o.status}`;

//= datagrams of a child process |
await require('util').promisify(require('child_process').execFile)(process.execPath, [
  '-e',
  `const s = require('dgram').createSocket('udp4'); s.send('x', ${port}, '${host}', () => s.close())`,
]);

//= NODE_OPTIONS for a child process | ECONNREFUSED
require('fs').writeFileSync(
  '/tmp/first.js',
  `require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`,
);
await require('util').promisify(require('child_process').execFile)(process.execPath, ['-e', '0'], {
  env: {NODE_OPTIONS: '--require /tmp/first.js'},
});

//= NODE_OPTIONS for a Worker | -111 | fresh
require('fs').writeFileSync(
  '/tmp/first.js',
  `const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap');
  const request = new TCPConnectWrap();
  request.oncomplete = (status) => { if (status) throw new Error(String(status)); process.exit(0); };
  const code = new TCP(constants.SOCKET).connect(request, '${host}', ${port});
  if (code) throw new Error('at once ' + code);`,
);
const {Worker} = require('worker_threads');
return new Promise((ok, no) =>
  new Worker('', {eval: true, env: {NODE_OPTIONS: '--require /tmp/first.js'}}).on('error', no).on('exit', ok),
);

//= a Worker class imported under an assembled name | ECONNREFUSED | fresh
const {Worker} = await import(['worker', 'threads'].join('_'));
return new Promise((ok, no) =>
  new Worker(`require('net').connect(${port}, '${host}').on('connect', () => process.exit(0))`, {eval: true})
    .on('error', no)
    .on('exit', ok),
);

//= the native method out of the guard's closure | status -111 | fresh
const {Session} = require('inspector');
const session = new Session();
session.connect();
const post = (method, params) =>
  new Promise((ok, no) => session.post(method, params, (e, r) => (e ? no(new Error(e.message)) : ok(r))));
globalThis.connect = process.binding('tcp_wrap').TCP.prototype.connect;
const {
  result: {objectId},
} = await post('Runtime.evaluate', {expression: 'connect'});
const {internalProperties} = await post('Runtime.getProperties', {objectId, ownProperties: true});
const scopes = internalProperties.find((p) => p.name === '[[Scopes]]').value.objectId;
let native;
for (const scope of (await post('Runtime.getProperties', {objectId: scopes, ownProperties: true})).result) {
  if (!scope.value || !scope.value.objectId) continue;
  const found = (
    await post('Runtime.getProperties', {objectId: scope.value.objectId, ownProperties: true})
  ).result.find((p) => p.name === 'native');
  if (found) native = found.value.objectId;
}
await post('Runtime.callFunctionOn', {
  objectId: native,
  functionDeclaration: 'function () { globalThis.native = this; }',
});
const {TCP, TCPConnectWrap, constants} = process.binding('tcp_wrap');
const request = new TCPConnectWrap();
const ended = new Promise((ok) => {
  request.oncomplete = ok;
});
const code = globalThis.native.call(new TCP(constants.SOCKET), request, host, port) || (await ended);
if (code) throw `status ${code}`;
