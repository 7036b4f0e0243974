// The runner as a process: calling home, connections, markers, and how it ends.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const test = require('node:test');
const { Edge, encode, startRunner, until } = require('./harness.cjs');

const HELLO = "exports.handler = async (event) => ({ statusCode: 200, body: event.path });";
const START = '\x1eGRID START ';
const END = '\x1eGRID END ';
const id = (name) => ({ headers: [['x-grid-request-id', name]] });

test('a thousand requests on one connection', async (t) => {
  const { wire } = await startRunner(t, HELLO);
  for (let i = 0; i < 1000; i += 1) {
    const answer = await wire.ask({ target: `/fn/hello/${i}` });
    assert.equal(answer.text(), `/${i}`);
  }
});

test('dials again when the connection ends', async (t) => {
  const runner = await startRunner(t, HELLO);
  for (let i = 0; i < 3; i += 1) {
    runner.wire.socket.destroy();
    runner.wire = await runner.edge.accept();
    assert.equal((await runner.wire.ask({})).status, 200);
  }
});

test('dials again when the edge starts again', async (t) => {
  const runner = await startRunner(t, HELLO);
  runner.edge.close();
  await until(() => !fs.existsSync(runner.socket), 'the socket to go');
  runner.edge = await Edge.listen(runner.socket);
  runner.wire = await runner.edge.accept();
  assert.equal((await runner.wire.ask({})).text(), '/');
});

test('dials again while a request of the lost connection still runs', async (t) => {
  const runner = await startRunner(t, `
    let release;
    exports.handler = async (event) => {
      if (event.path === '/slow') return new Promise((resolve) => { release = resolve; process.stdout.write('slow runs\\n'); });
      return 1;
    };
    setInterval(() => { if (release && require('fs').existsSync(__dirname + '/go')) release(2); }, 5);`);
  runner.wire.send(encode({ target: '/fn/hello/slow' }));
  await until(() => runner.stdout.includes('slow runs'), 'the handler');
  runner.wire.socket.destroy();
  const wire = await runner.edge.accept();
  wire.send(encode({}));
  fs.writeFileSync(`${runner.dir}/go`, '');
  assert.equal((await wire.read()).json(), 1);
});

test('holds one connection to the edge', async (t) => {
  const runner = await startRunner(t, HELLO);
  for (let i = 0; i < 20; i += 1) await runner.wire.ask({});
  assert.equal(runner.edge.arrived.length, 0);
});

test('serves the port, one request at a time across all connections', async (t) => {
  const runner = await startRunner(t, `
    let running = 0;
    exports.handler = async () => {
      running += 1;
      const most = running;
      await new Promise((resolve) => setTimeout(resolve, 5));
      running -= 1;
      return most;
    };`);
  const wires = [runner.wire, await runner.connectPort(), await runner.connectPort()];
  for (let round = 0; round < 5; round += 1) {
    const answers = await Promise.all(wires.map((wire) => wire.ask({})));
    assert.deepEqual(answers.map((answer) => answer.json()), [1, 1, 1]);
  }
});

test('health is answered while a request runs', async (t) => {
  const runner = await startRunner(t, 'exports.handler = () => new Promise(() => { console.log("runs"); });');
  runner.wire.send(encode({}));
  await until(() => runner.stdout.includes('runs'), 'the handler');
  const port = await runner.connectPort();
  assert.deepEqual((await port.ask({ target: '/health' })).json(), { status: 'ok' });
});

test('works without an edge, as in a plain docker run', async (t) => {
  const runner = await startRunner(t, HELLO, { edge: false, env: { GRID_ORPHAN_SECONDS: '0.01' } });
  const port = await runner.connectPort();
  assert.equal((await port.ask({ target: '/fn/hello/x' })).text(), '/x');
  assert.equal((await port.ask({ target: '/ready' })).status, 200);
});

test('takes orders from the edge alone', async (t) => {
  const runner = await startRunner(t, 'exports.handler = () => process.env.COLOUR || null;');
  const port = await runner.connectPort();
  const order = { method: 'POST', target: '/ready', body: '{"env": {"COLOUR": "red"}}' };
  assert.equal((await port.ask(order)).status, 404);
  assert.equal((await port.ask({ method: 'POST', target: '/invoke', body: '{"event": {}}' })).status, 404);
  assert.equal((await runner.wire.ask({ ...order, body: '{"env": {"COLOUR": "blue"}}' })).status, 200);
  assert.equal((await port.ask({})).json(), 'blue');
});

test('an edge that starts again changes nothing by handing over again', async (t) => {
  const runner = await startRunner(t, 'exports.handler = () => process.env.COLOUR;');
  for (const colour of ['blue', 'red']) {
    const order = { method: 'POST', target: '/ready', body: `{"env": {"COLOUR": "${colour}"}}` };
    assert.equal((await runner.wire.ask(order)).status, 200);
    assert.equal((await runner.wire.ask({})).json(), 'blue');
    runner.wire.socket.destroy();
    runner.wire = await runner.edge.accept();
  }
});

test('a stream is closed when nobody waits for the invocation any more', async (t) => {
  const runner = await startRunner(t, `
    exports.handler = async function* () {
      try {
        for (;;) { yield 'x'; console.log('piece'); await new Promise((resolve) => setTimeout(resolve, 1)); }
      } finally { console.log('closed'); }
    };`);
  runner.wire.send(encode({ method: 'POST', target: '/invoke', body: '{"event": {}}' }));
  await until(() => runner.stdout.includes('piece'), 'the handler');
  runner.wire.socket.destroy();
  await until(() => runner.stdout.includes('closed'), 'the end of the stream');
});

test('a taken port does not end the runner', async (t) => {
  const first = await startRunner(t, HELLO);
  await first.connectPort();
  const second = await startRunner(t, HELLO, { env: { PORT: String(first.port) } });
  await until(() => second.stderr.includes('does not listen'), 'the note');
  assert.equal((await second.wire.ask({})).status, 200);
});

test('ends when no edge is reachable for long', async (t) => {
  const runner = await startRunner(t, HELLO, { env: { GRID_ORPHAN_SECONDS: '1' } });
  assert.equal((await runner.wire.ask({})).status, 200);
  runner.edge.close();
  assert.deepEqual(await runner.exit(), { status: 0, signal: null });
});

test('SIGTERM ends it with code 0', async (t) => {
  const idle = await startRunner(t, HELLO);
  await idle.wire.ask({});
  idle.child.kill('SIGTERM');
  assert.deepEqual(await idle.exit(), { status: 0, signal: null });
  const busy = await startRunner(t, 'exports.handler = () => new Promise(() => { console.log("runs"); });');
  busy.wire.send(encode({}));
  await until(() => busy.stdout.includes('runs'), 'the handler');
  busy.child.kill('SIGTERM');
  assert.deepEqual(await busy.exit(), { status: 0, signal: null });
});

test('process.exit in a handler ends the connection and keeps the code', async (t) => {
  const runner = await startRunner(t, 'exports.handler = () => { process.stdout.write("bye"); process.exit(7); };');
  runner.wire.send(encode(id('r1')));
  await runner.wire.closed();
  assert.equal(runner.wire.buffer.length, 0);
  assert.deepEqual(await runner.exit(), { status: 7, signal: null });
  assert.equal(runner.stdout, `${START}r1\nbye\n${END}r1\n`);
});

test('markers stand around the output of each request, on both streams', async (t) => {
  const runner = await startRunner(t, `
    console.log('loading');
    exports.handler = async (event) => {
      console.log('out', event.path);
      console.error('err', event.path);
      process.stdout.write('cut off');
      process.stderr.write(Buffer.from('cut off'));
      return 1;
    };`);
  await runner.wire.ask({ target: '/fn/hello/1', ...id('r1') });
  await runner.wire.ask({ target: '/fn/hello/2', ...id('r2') });
  await until(() => runner.stdout.includes(`${END}r2\n`) && runner.stderr.includes(`${END}r2\n`), 'the markers');
  assert.equal(runner.stdout, `${START}r1\nloading\nout /1\ncut off\n${END}r1\n${START}r2\nout /2\ncut off\n${END}r2\n`);
  assert.equal(runner.stderr, `${START}r1\nerr /1\ncut off\n${END}r1\n${START}r2\nerr /2\ncut off\n${END}r2\n`);
});

test('much output keeps its order and its markers', async (t) => {
  const runner = await startRunner(t, "exports.handler = async () => { for (let i = 0; i < 20000; i += 1) console.log('line ' + i + ' ' + 'x'.repeat(80)); return 1; };");
  await runner.wire.ask(id('r1'));
  await until(() => runner.stdout.endsWith(`${END}r1\n`), 'the end');
  const lines = runner.stdout.trimEnd().split('\n');
  assert.equal(lines.length, 20002);
  lines.slice(1, -1).forEach((line, i) => assert.ok(line.startsWith(`line ${i} `)));
});

test('the stack goes to standard error, inside the markers and without the runner', async (t) => {
  const runner = await startRunner(t, "function inner() { throw new TypeError('boom'); }\nexports.handler = async () => inner();");
  await runner.wire.ask(id('r1'));
  await until(() => runner.stderr.includes(`${END}r1`), 'the marker');
  const inside = runner.stderr.slice(runner.stderr.indexOf(START), runner.stderr.indexOf(END));
  assert.match(inside, /TypeError: boom\n\s+at inner \(.*index\.js:1/);
  assert.doesNotMatch(inside, /invoke\.cjs/);
});

test('errors outside a request are logged and harmless', async (t) => {
  const runner = await startRunner(t, `
    exports.handler = async () => {
      setTimeout(() => { throw new Error('stray error'); }, 1);
      setTimeout(() => { Promise.reject(new Error('stray rejection')); }, 1);
      return 1;
    };`);
  assert.equal((await runner.wire.ask({})).json(), 1);
  await until(() => runner.stderr.includes('stray error') && runner.stderr.includes('stray rejection'), 'the log');
  assert.equal((await runner.wire.ask({})).json(), 1);
});

test('a rejection that nobody awaits does not spoil the answer that was given', async (t) => {
  const runner = await startRunner(t, "exports.handler = async () => { Promise.reject(new Error('forgotten')); return 1; };");
  assert.equal((await runner.wire.ask({})).json(), 1);
  await until(() => runner.stderr.includes('forgotten'), 'the log');
  assert.equal((await runner.wire.ask({})).json(), 1);
});

test('pipelined requests are answered in order', async (t) => {
  const { wire } = await startRunner(t, HELLO);
  wire.send(Buffer.concat(['/a', '/b', '/c'].map((path) => encode({ target: `/fn/hello${path}` }))));
  for (const path of ['/a', '/b', '/c']) assert.equal((await wire.read()).text(), path);
});

test('requests in single bytes and without a host', async (t) => {
  const { wire } = await startRunner(t, HELLO);
  wire.socket.setNoDelay(true);
  for (const byte of Buffer.from('POST /fn/hello/x HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}')) {
    wire.send(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal((await wire.read()).text(), '/x');
});

const GARBAGE = {
  'no HTTP at all': 'hello\r\n\r\n',
  'binary': Buffer.from([0, 255, 1, 13, 10, 13, 10]),
  'a header without a colon': 'GET /fn/x HTTP/1.1\r\nbroken\r\n\r\n',
  'a control character in a value': 'GET /fn/x HTTP/1.1\r\na: b\0c\r\n\r\n',
  'an invalid length': 'POST /fn/x HTTP/1.1\r\ncontent-length: +1\r\n\r\na',
  'two lengths': 'POST /fn/x HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab',
  'a length and chunks': 'POST /fn/x HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
  'an invalid chunk': 'POST /fn/x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n',
  'too long headers': `GET /fn/x HTTP/1.1\r\na: ${'b'.repeat(70000)}\r\n\r\n`,
};

for (const [name, bytes] of Object.entries(GARBAGE)) {
  test(`refuses ${name} and stays`, async (t) => {
    const runner = await startRunner(t, HELLO);
    runner.wire.send(bytes);
    assert.ok((await runner.wire.read()).status >= 400);
    await runner.wire.closed();
    const wire = await runner.edge.accept();
    assert.equal((await wire.ask({})).text(), '/');
    const port = await runner.connectPort();
    port.send(bytes);
    await port.closed();
    assert.equal((await wire.ask({})).text(), '/');
  });
}

test('headers of 60 KiB are fine', async (t) => {
  const { wire } = await startRunner(t, "exports.handler = (event) => event.headers['x-long'].length;");
  assert.equal((await wire.ask({ headers: [['x-long', 'b'.repeat(60000)]] })).json(), 60000);
});

test('a client that leaves before its turn costs nothing', async (t) => {
  const runner = await startRunner(t, `
    let calls = 0;
    exports.handler = async (event) => {
      calls += 1;
      if (event.path === '/slow') { console.log('runs'); while (!require('fs').existsSync(__dirname + '/go')) await new Promise((r) => setTimeout(r, 2)); }
      return calls;
    };`);
  runner.wire.send(encode({ target: '/fn/hello/slow' }));
  await until(() => runner.stdout.includes('runs'), 'the handler');
  const port = await runner.connectPort();
  port.send(encode({}));
  port.socket.destroy();
  // Another connection's answer shows that the runner has seen the end of the first.
  const other = await runner.connectPort();
  for (let i = 0; i < 5; i += 1) await other.ask({ target: '/health' });
  fs.writeFileSync(`${runner.dir}/go`, '');
  assert.equal((await runner.wire.read()).json(), 1);
  assert.equal((await runner.wire.ask({})).json(), 2);
});

test('a module that listens on the port itself is reported, not fatal', async (t) => {
  const runner = await startRunner(t, "require('http').createServer().listen(process.env.PORT);");
  await runner.connectPort();
  const answer = await runner.wire.ask({ target: '/ready' });
  assert.equal(answer.json().error, 'no_handler');
  assert.equal((await runner.wire.ask({ target: '/health' })).status, 200);
});
