// The egress guard against code that does not want it: patches, pollution, changing values, fresh
// bindings; and how the runner ends without a list.
'use strict';

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');
const { startRunner } = require('./harness.cjs');
const { UNREACHABLE, assertBlocked, guarded, startGuarded } = require('./guard-harness.cjs');

const TRY = `
  const net = require('net');
  const tried = (host) => new Promise((resolve) => net.connect({ host, port: 81 }).on('error', resolve).on('connect', () => resolve({ code: 'CONNECTED' })));`;

/** `code` may do its worst; afterwards a denied address must be denied and a public one allowed. */
async function holds(t, code) {
  const runner = await startGuarded(t);
  const denied = await runner.run(`${TRY} ${code}\n; const error = await tried('10.1.2.3'); return [error.code, error.address];`);
  assert.ok(denied.value, JSON.stringify(denied));
  assert.deepEqual(denied.value, ['SSRF_BLOCKED', '10.1.2.3']);
  const allowed = await runner.run(`${TRY} return (await tried('8.8.8.8')).code;`);
  assert.deepEqual(allowed, { value: 'ENETUNREACH' });
}

/** Code that leaves the runner in order. */
const ATTEMPTS = {
  'a new method in the binding': "const { TCP } = process.binding('tcp_wrap'); try { TCP.prototype.connect = function () { return 0; }; } catch {}",
  'a method defined in the binding': "const { TCP } = process.binding('tcp_wrap'); try { Object.defineProperty(TCP.prototype, 'connect', { value() { return 0; } }); } catch {}",
  'a deleted method': "const { TCP } = process.binding('tcp_wrap'); delete TCP.prototype.connect; delete TCP.prototype.connect6;",
  'the guard loaded again': `
    const dir = require('path').dirname(process.argv[1]);
    for (const file of Object.keys(require.cache)) delete require.cache[file];
    require(dir + '/guard-policy.cjs').parsePolicy = () => () => ({ allowed: true });
    require(dir + '/guard.cjs');`,
  'the exports of the policy': `
    for (const module of Object.values(require.cache)) if (module.filename.includes('guard')) module.exports = { parsePolicy: () => () => ({ allowed: true, address: '' }), guardWorkersOf() {}, watchWorkers() {} };
    delete require.cache[require('path').dirname(process.argv[1]) + '/guard.cjs'];
    require(require('path').dirname(process.argv[1]) + '/guard.cjs');`,
  'a formatter of stacks': "Error.prepareStackTrace = () => 'none';",
  'a net module without names': "net._normalizeArgs = () => []; net.isIP = () => 0; require('dns').lookup = (h, o, done) => done(null, '8.8.8.8', 4);",
  'a patched process': "process.binding = () => ({ TCP: class {} });",
};

/** Code that breaks much else too, so that only the bindings are tried after it, in a process without the runner. */
const POLLUTIONS = {
  'patched strings and numbers': `
    String.prototype.charCodeAt = () => 56; String.prototype.indexOf = () => -1; String.prototype.slice = () => '8.8.8.8'; String.prototype.split = () => [];
    String.prototype.includes = () => false; String.prototype.startsWith = () => false; String.prototype.valueOf = () => '8.8.8.8'; Number.prototype.toString = () => '8';`,
  'patched arrays': `
    Array.isArray = () => false;
    Array.prototype.push = () => 0; Array.prototype.some = () => false; Array.prototype.every = () => true; Array.prototype.find = () => undefined;
    Array.prototype.includes = () => false; Array.prototype.map = () => []; Array.prototype.indexOf = () => -1; Array.prototype.filter = () => [];`,
  'a patched iterator of arrays': `
    Array.prototype[Symbol.iterator] = function* () { for (let i = 0; i < this.length; i += 1) yield this[i] === '10.1.2.3' ? '8.8.8.8' : this[i]; };`,
  'setters under the indexes of arrays': `
    for (const index of [0, 1, 2, 3]) Object.defineProperty(Array.prototype, index, { configurable: true, get() { return '8.8.8.8'; }, set() {} });`,
  'patched regular expressions, maps, sets, JSON': `
    RegExp.prototype.exec = () => null; RegExp.prototype.test = () => false; Map.prototype.get = () => undefined; Map.prototype.has = () => false;
    Set.prototype.has = () => false; WeakSet.prototype.has = () => false; WeakSet.prototype.add = () => {}; JSON.parse = () => ({}); Math.floor = () => 8;`,
  'patched functions and reflection': `
    Function.prototype.call = () => null; Function.prototype.apply = () => null; Function.prototype.bind = () => () => null;
    Reflect.apply = () => 0; Reflect.defineProperty = () => true; Reflect.ownKeys = () => []; Object.defineProperty = () => ({}); Object.create = () => ({});`,
  'patched typed arrays and errors': `
    globalThis.Uint16Array = class extends Array {}; globalThis.Error = class Error { constructor() { return {}; } }; globalThis.Array = { isArray: () => false };
    const typed = Object.getPrototypeOf(Int8Array.prototype); typed.every = () => true; typed.some = () => false;`,
  'members of every object': `
    for (const [name, value] of Object.entries({ allowed: true, words: [0], bits: 0, low: 1, high: 0, address: '8.8.8.8', lookup: (h, o, done) => done(null, '8.8.8.8', 4), all: true, noDeprecation: true })) {
      Object.defineProperty(Object.prototype, name, { value, writable: true, configurable: true });
    }`,
  'accessors of every object': `
    for (const name of ['code', 'statusCode', 'allowed', 'value', 'writable', 'configurable']) {
      Object.defineProperty(Object.prototype, name, { __proto__: null, get: () => undefined, set() {}, configurable: true });
    }`,
  'a socket that does not want to end': "require('net').Socket.prototype.destroy = function () { return this; }; require('stream').Duplex.prototype.destroy = require('net').Socket.prototype.destroy;",
};

test('attempts to get around it', guarded, async (t) => {
  for (const [name, code] of Object.entries(ATTEMPTS)) await t.test(name, async (sub) => holds(sub, code));
});

test('patches of what everything is made of', guarded, async (t) => {
  const guard = path.join(__dirname, '..', 'guard.cjs');
  for (const [name, code] of Object.entries(POLLUTIONS)) {
    await t.test(name, () => {
      const child = `
        require(${JSON.stringify(guard)});
        const { writeSync } = require('fs');
        const { TCP, TCPConnectWrap } = process.binding('tcp_wrap');
        const { UDP, SendWrap } = process.binding('udp_wrap');
        const [first, second, third, fourth] = [new TCP(0), new TCP(0), new UDP(), new UDP()];
        const requests = [new TCPConnectWrap(), new TCPConnectWrap(), new SendWrap(), new SendWrap()];
        const [one, two, three, four] = requests;
        const data = [Buffer.from('x')];
        ${code}
        const a = first.connect(one, '10.1.2.3', 81);
        const b = second.connect(two, '8.8.8.8', 81);
        const c = third.send(three, data, 1, 53, '10.1.2.3', false);
        const d = fourth.send6(four, data, 1, 53, '::ffff:10.1.2.3', false);
        writeSync(1, a + ' ' + b + ' ' + c + ' ' + d);
        process.reallyExit(0);`;
      const { stdout, stderr } = spawnSync(process.execPath, ['-e', child]);
      assert.equal(String(stdout), '-13 -101 -13 -13', String(stderr));
    });
  }
});

test('beneath net', guarded, async (t) => {
  const runner = await startGuarded(t);
  const raw = (call) => `
    const { TCP, TCPConnectWrap } = process.binding('tcp_wrap');
    const { UDP, SendWrap } = process.binding('udp_wrap');
    const changing = { n: 0, toString() { this.n += 1; return this.n === 1 ? '8.8.8.8' : '10.1.2.3'; } };
    return ${call};`;
  const EACCES = -13;
  const ENETUNREACH = -101;
  const results = {
    "new TCP(0).connect(new TCPConnectWrap(), '10.1.2.3', 81)": EACCES,
    "new TCP(0).connect(new TCPConnectWrap(), '8.8.8.8', 81)": ENETUNREACH,
    "new TCP(0).connect6(new TCPConnectWrap(), '::1', 81)": EACCES,
    "new TCP(0).connect6(new TCPConnectWrap(), '::ffff:127.0.0.1', 81)": EACCES,
    "new TCP(0).connect(new TCPConnectWrap(), 'localhost', 81)": -22,
    "new TCP(0).connect(new TCPConnectWrap(), '8.8.8.8\\0', 81)": -22,
    "TCP.prototype.connect.call(new TCP(0), new TCPConnectWrap(), new String('10.1.2.3'), 81)": EACCES,
    "[new TCP(0).connect(new TCPConnectWrap(), changing, 81), changing.n].join()": `${ENETUNREACH},1`,
    "new UDP().connect('10.1.2.3', 53)": EACCES,
    "new UDP().connect('8.8.8.8', 53)": ENETUNREACH,
    "new UDP().connect6('::1', 53)": EACCES,
    "new UDP().send(new SendWrap(), [Buffer.from('x')], 1, 53, '10.1.2.3', false)": EACCES,
    "new UDP().send(new SendWrap(), [Buffer.from('x')], 1, 53, '8.8.8.8', false)": ENETUNREACH,
    "new UDP().send6(new SendWrap(), [Buffer.from('x')], 1, 53, '::1', false)": EACCES,
    "[new UDP().send(new SendWrap(), [Buffer.from('x')], 1, 53, changing, false), changing.n].join()": `${ENETUNREACH},1`,
  };
  for (const [call, expected] of Object.entries(results)) {
    await t.test(call, async () => assert.deepEqual(await runner.run(raw(call)), { value: expected }));
  }
  await t.test('the methods cannot be replaced', async () => {
    const { value } = await runner.run(`
      const { TCP } = process.binding('tcp_wrap');
      const { UDP } = process.binding('udp_wrap');
      const { ChannelWrap } = process.binding('cares_wrap');
      const failures = [];
      for (const [prototype, names] of [[TCP.prototype, ['connect', 'connect6']], [UDP.prototype, ['send', 'send6', 'connect', 'connect6', 'lookup']], [ChannelWrap.prototype, ['setServers']]]) {
        for (const name of names) {
          const before = prototype[name];
          const own = Object.getOwnPropertyDescriptor(prototype, name);
          try { prototype[name] = () => 0; } catch {}
          if (own.configurable || delete prototype[name] || prototype[name] !== before) failures.push(name);
        }
      }
      return failures;`);
    assert.deepEqual(value.filter((name) => name !== 'lookup'), []);
  });
  await t.test('a context of vm has the same bindings', async () => {
    const { value } = await runner.run(`
      const vm = require('vm');
      return vm.runInNewContext("const { TCP, TCPConnectWrap } = process.binding('tcp_wrap'); new TCP(0).connect(new TCPConnectWrap(), '10.1.2.3', 81)", { process });`);
    assert.equal(value, EACCES);
  });
  await t.test('modules that are loaded again are the same', async () => {
    for (const load of ["module.constructor._load('net')", "require('module').createRequire('/x.js')('node:net')", "process.mainModule.require('net')"]) {
      assertBlocked(await runner.run(`await emitted(${load}.connect(81, HOST));`, { host: '10.1.2.3' }), '10.1.2.3');
    }
  });
});

test('options that change while they are read', guarded, async (t) => {
  const runner = await startGuarded(t);
  const changing = (turn, name, first, then) => `Object.defineProperty({ port: 81, autoSelectFamily: false, lookup: undefined, ${name === 'host' ? '' : "host: 'a.example'"} }, '${name}',
    { enumerable: true, get() { this.n = (this.n || 0) + 1; return this.n <= ${turn} ? ${first} : ${then}; } })`;
  for (let turn = 1; turn <= 6; turn += 1) {
    for (const options of [changing(turn, 'host', "'8.8.8.8'", "'10.1.2.3'"), changing(turn, 'path', "'/nowhere.sock'", 'undefined').replace("'a.example'", "'10.1.2.3'"),
      changing(turn, 'lookup', "(h, o, done) => done(null, '8.8.8.8', 4)", "(h, o, done) => done(null, '10.1.2.3', 4)")]) {
      await t.test(options.replace(/\s+/g, ' '), async () => {
        const { error } = await runner.run(`await emitted(require('net').connect(${options}));`);
        assert.ok(['SSRF_BLOCKED', 'ENOENT', ...UNREACHABLE].includes(error && error.code), JSON.stringify(error));
      });
    }
  }
  await t.test('a host that is an object', async () => {
    const { error } = await runner.run("await emitted(require('http').get({ host: { toString: () => '10.1.2.3' } }));");
    assert.equal(error.code, 'ERR_INVALID_ARG_TYPE');
  });
});

const ESM = `
import { get, request } from 'http';
import { connect } from 'node:net';
import * as tls from 'tls';
import { Worker } from 'worker_threads';
const ways = {
  get: () => get('http://10.1.2.3/'), request: () => request('http://10.1.2.3/').end(), connect: () => connect(81, '10.1.2.3'), tls: () => tls.connect(443, '10.1.2.3'),
};
export const handler = async ({ path }) => {
  if (path === '/worker') {
    return new Promise((resolve, reject) => new Worker("require('net').connect(81, '10.1.2.3').on('error', (error) => require('worker_threads').parentPort.postMessage(error.code));", { eval: true })
      .on('message', resolve).on('error', reject));
  }
  return new Promise((resolve) => ways[path.slice(1)]().on('error', (error) => resolve(error.message)));
};`;

test('named imports of ESM', guarded, async (t) => {
  const runner = await startRunner(t, ESM);
  for (const way of ['get', 'request', 'connect', 'tls']) {
    const answer = await runner.wire.ask({ target: `/fn/hello/${way}` });
    assert.equal(answer.text(), '"SSRF guard blocked outbound request to 10.1.2.3"', way);
  }
  assert.equal((await runner.wire.ask({ target: '/fn/hello/worker' })).text(), '"SSRF_BLOCKED"');
});

const IN_WORKER = "const { parentPort } = require('worker_threads'); require('net').connect(81, '10.1.2.3').on('error', (error) => parentPort.postMessage(error.code));";
const WORKERS = {
  'eval': "new Worker(code, { eval: true })",
  'a file': "(fs.writeFileSync(file, code), new Worker(file))",
  'a URL': "(fs.writeFileSync(file, code), new Worker(require('url').pathToFileURL(file)))",
  'a data: URL': "new Worker(new URL('data:text/javascript,' + encodeURIComponent(\"import net from 'net'; import { parentPort } from 'worker_threads'; net.connect(81, '10.1.2.3').on('error', (error) => parentPort.postMessage(error.code));\")))",
  'execArgv of its own': "new Worker(code, { eval: true, execArgv: ['--no-warnings'] })",
  'execArgv that makes a property of process read-only': "new Worker(code, { eval: true, execArgv: ['--no-deprecation'] })",
  'empty execArgv': "new Worker(code, { eval: true, execArgv: [] })",
  'an environment of its own': "new Worker(code, { eval: true, env: { A: '1' } })",
  'the shared environment': "new Worker(code, { eval: true, env: threads.SHARE_ENV })",
  'options with accessors': "new Worker(code, { eval: true, get execArgv() { this.n = (this.n || 0) + 1; return this.n > 1 ? [] : undefined; } })",
  'a subclass': "new (class extends Worker {})(code, { eval: true })",
  'the constructor of the prototype': "new Worker.prototype.constructor(code, { eval: true })",
  'the constructor of an instance': "new (new Worker('', { eval: true }).constructor)(code, { eval: true })",
  'a class put back': "(() => { try { threads.Worker = Object.getPrototypeOf(class extends Worker {}); } catch {} return new threads.Worker(code, { eval: true }); })()",
  'a worker in a worker': "new Worker('const { Worker, parentPort } = require(\"worker_threads\"); new Worker(' + JSON.stringify(code) + ', { eval: true }).on(\"message\", (m) => parentPort.postMessage(m));', { eval: true })",
  'a module name of its own': "new (module.constructor._load({ toString: () => 'worker_threads' }).Worker)(code, { eval: true })",
};

test('worker threads', guarded, async (t) => {
  const runner = await startGuarded(t);
  for (const [name, make] of Object.entries(WORKERS)) {
    await t.test(name, async () => {
      const answer = await runner.run(`
        const threads = require('worker_threads');
        const { Worker } = threads;
        const fs = require('fs');
        const file = require('path').join(require('os').tmpdir(), \`worker-\${process.pid}.js\`);
        const code = ${JSON.stringify(IN_WORKER)};
        const worker = ${make};
        const said = await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject).on('exit', (status) => reject(new Error('exit ' + status))));
        await worker.terminate();
        return said;`);
      assert.deepEqual(answer, { value: 'SSRF_BLOCKED' });
    });
  }
  await t.test('an allowed address', async () => {
    const code = `new Promise((resolve, reject) => new (require('worker_threads').Worker)(${JSON.stringify(IN_WORKER.replace('10.1.2.3', '8.8.8.8'))}, { eval: true }).on('message', resolve).on('error', reject))`;
    assert.deepEqual(await runner.run(`return ${code};`), { value: 'ENETUNREACH' });
  });
  await t.test('options that Node refuses', async () => {
    for (const [options, code] of [['{ eval: true, execArgv: 1 }', 'ERR_INVALID_ARG_TYPE'], ['null', undefined], ['{ eval: true, execArgv: ["--max-old-space-size=5"] }', 'ERR_WORKER_INVALID_EXEC_ARGV']]) {
      const { error } = await runner.run(`new (require('worker_threads').Worker)('1', ${options});`);
      assert.equal(error.code, code, JSON.stringify(error));
    }
  });
  await t.test('a dynamic import in CommonJS', async (sub) => {
    const dynamic = await startRunner(sub, `
      exports.handler = async () => {
        const { Worker } = await import('worker_threads');
        return new Promise((resolve, reject) => new Worker(${JSON.stringify(IN_WORKER)}, { eval: true }).on('message', resolve).on('error', reject));
      };`);
    assert.equal((await dynamic.wire.ask({})).text(), '"SSRF_BLOCKED"');
  });
});

test('no list, no runner', guarded, async (t) => {
  const from = path.join(__dirname, '..');
  const list = fs.readFileSync(path.join(from, '..', 'egress', 'ranges.txt'), 'utf8');
  const lists = {
    'it is missing': () => {},
    'it cannot be read': (file) => fs.mkdirSync(file),
    'it is empty': (file) => fs.writeFileSync(file, ''),
    'a line makes no sense': (file) => fs.writeFileSync(file, `${list}\ndeny everything\n`),
  };
  const laidOut = (sub, write) => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'grid-app-'));
    sub.after(() => fs.rmSync(dir, { recursive: true, force: true }));
    const app = path.join(dir, 'app');
    fs.mkdirSync(app);
    for (const file of fs.readdirSync(from).filter((name) => name.endsWith('.cjs'))) fs.copyFileSync(path.join(from, file), path.join(app, file));
    write(path.join(app, 'egress.txt'));
    return app;
  };
  for (const [name, write] of Object.entries(lists)) {
    await t.test(name, (sub) => {
      const app = laidOut(sub, write);
      const env = { PATH: process.env.PATH, GRID_SOCKET: path.join(app, 'none', 'edge.sock') };
      const { status, stderr } = spawnSync(process.execPath, [path.join(app, 'smsly-function-runner.cjs')], { env });
      assert.equal(status, 1);
      assert.match(String(stderr), /^The runner ends: the egress guard cannot be installed: cannot read the list of denied addresses: .+\n$/);
    });
  }
  await t.test('as in an image, beside the runner', (sub) => {
    const app = laidOut(sub, (file) => fs.writeFileSync(file, 'deny 8.8.8.8/32 for this test\nallow 2000::/3\n'));
    const code = `require(${JSON.stringify(path.join(app, 'guard.cjs'))}); require('net').connect(81, '8.8.8.8').on('error', (error) => console.log(error.message));`;
    assert.equal(String(spawnSync(process.execPath, ['-e', code]).stdout), 'SSRF guard blocked outbound request to 8.8.8.8\n');
  });
});
