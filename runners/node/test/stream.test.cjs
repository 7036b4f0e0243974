// Bodies that are produced while they are sent, seen from outside of the process: what is shared
// with the Python runner is in cases/stream.json.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const net = require('node:net');
const test = require('node:test');
const { encode, startRunner, until } = require('./harness.cjs');

const START = '\x1eGRID START ';
const END = '\x1eGRID END ';
const id = (name) => ({ headers: [['x-grid-request-id', name]] });

/** A function's way to wait for the test: `await told('name')` until the test calls `tell`. */
const TOLD = `
  const fs = require('fs');
  const told = async (name) => {
    while (!fs.existsSync(__dirname + '/' + name)) await new Promise((resolve) => setTimeout(resolve, 2));
  };
`;
const tell = (runner, name) => fs.writeFileSync(`${runner.dir}/${name}`, '');

const STEPS = `${TOLD}
  exports.handler = async function* (event) {
    if (event.path === '/plain') { yield { statusCode: 200, headers: { 'content-length': 1 } }; return; }
    try {
      for (let i = 1; ; i += 1) {
        console.log('makes', i);
        yield 'data: ' + i + '\\n\\n';
        await told('go' + i);
        if (i === 3) return;
      }
    } finally {
      console.log('closed');
    }
  };`;

const PRODUCERS = {
  'an async generator': STEPS,
  'a Readable': `${TOLD}
    const { Readable } = require('stream');
    exports.handler = async () => {
      let i = 0;
      const body = new Readable({
        async read() {
          if (i) await told('go' + i);
          if (i === 3) return this.push(null);
          i += 1;
          this.push('data: ' + i + '\\n\\n');
        },
        destroy(error, done) { console.log('closed'); done(error); },
      });
      return { statusCode: 200, body };
    };`,
  'a web stream': `${TOLD}
    exports.handler = async () => {
      let i = 0;
      return new ReadableStream({
        async pull(controller) {
          if (i) await told('go' + i);
          if (i === 3) { console.log('closed'); return controller.close(); }
          i += 1;
          controller.enqueue('data: ' + i + '\\n\\n');
        },
        cancel() { console.log('closed'); },
      }, { highWaterMark: 0 });
    };`,
  'streamifyResponse': `${TOLD}
    exports.handler = awslambda.streamifyResponse(async (event, stream) => {
      try {
        for (let i = 1; i <= 3; i += 1) {
          await new Promise((resolve, reject) => stream.write('data: ' + i + '\\n\\n', (error) => (error ? reject(error) : resolve())));
          await told('go' + i);
        }
        stream.end();
      } finally {
        console.log('closed');
      }
    });`,
};

async function chunk(wire) {
  return (await wire.readChunk()).toString();
}

for (const [kind, code] of Object.entries(PRODUCERS)) {
  test(`${kind}: each piece arrives before the next one is made`, async (t) => {
    const runner = await startRunner(t, code);
    runner.wire.send(encode(id('r1')));
    assert.equal((await runner.wire.readHead()).outcome, 'ok');
    for (let i = 1; i <= 3; i += 1) {
      assert.equal(await chunk(runner.wire), `data: ${i}\n\n`);
      tell(runner, `go${i}`);
    }
    assert.equal(await chunk(runner.wire), '');
    await until(() => runner.stdout.endsWith(`closed\n${END}r1\n`), 'the end of the log');
    assert.equal((await runner.wire.ask({ target: '/health' })).status, 200);
  });

  test(`${kind}: is closed when the client has left`, async (t) => {
    const runner = await startRunner(t, code);
    runner.wire.send(encode(id('r1')));
    await runner.wire.readHead();
    assert.equal(await chunk(runner.wire), 'data: 1\n\n');
    runner.wire.socket.destroy();
    const wire = await runner.edge.accept();
    tell(runner, 'go1');
    await until(() => runner.stdout.includes(`closed\n${END}r1\n`), 'the end of the log');
    assert.ok(!runner.stdout.includes('makes 3'));
    ['go2', 'go3'].forEach((name) => tell(runner, name));
    assert.deepEqual((await wire.ask({})).chunks.map(String), [1, 2, 3].map((i) => `data: ${i}\n\n`));
    assert.equal(runner.stderr, '');
  });

  test(`${kind}: the runner dials again while the stream of the lost connection still runs`, async (t) => {
    const runner = await startRunner(t, code);
    runner.wire.send(encode(id('r1')));
    await runner.wire.readHead();
    runner.wire.socket.destroy();
    const wire = await runner.edge.accept();
    wire.send(encode({}));
    ['go1', 'go2', 'go3'].forEach((name) => tell(runner, name));
    assert.deepEqual((await wire.read()).chunks.map(String), [1, 2, 3].map((i) => `data: ${i}\n\n`));
  });

  test(`${kind}: is closed after its first piece for HEAD`, async (t) => {
    const runner = await startRunner(t, code);
    tell(runner, 'go1');
    for (let i = 1; i <= 3; i += 1) {
      const answer = await runner.wire.ask({ method: 'HEAD', ...id(`r${i}`) });
      assert.deepEqual(answer.headers['transfer-encoding'], ['chunked']);
      await until(() => runner.stdout.endsWith(`closed\n${END}r${i}\n`), 'the end of the log');
    }
    assert.equal(runner.stderr, '');
  });
}

for (const kind of ['a Readable', 'a web stream']) {
  test(`${kind}: is closed while it waits, without another piece`, async (t) => {
    const runner = await startRunner(t, PRODUCERS[kind]);
    runner.wire.send(encode(id('r1')));
    await runner.wire.readHead();
    assert.equal(await chunk(runner.wire), 'data: 1\n\n');
    runner.wire.socket.destroy();
    await until(() => runner.stdout.includes(`closed\n${END}r1\n`), 'the end of the log');
  });
}

test('the log of a stream has its marks, also of what fails', async (t) => {
  const runner = await startRunner(t, "exports.handler = async function* () { console.log('a'); yield '1'; console.log('b'); throw new TypeError('boom'); };");
  const answer = await runner.wire.ask(id('r1'));
  assert.equal(answer.cut, true);
  await until(() => runner.stdout.includes(END) && runner.stderr.includes(END), 'the log');
  assert.equal(runner.stdout, `${START}r1\na\nb\n${END}r1\n`);
  assert.match(runner.stderr, /^\x1eGRID START r1\nTypeError: boom\n\s+at .*index\.js:1[^]*\nThe response was cut off after 1 bytes\.\n\x1eGRID END r1\n$/);
  assert.doesNotMatch(runner.stderr, /stream\.cjs/);
});

test('hundreds of streams and other answers on one connection', async (t) => {
  const { wire } = await startRunner(t, `
    exports.handler = async (event) => (event.path === '/plain' ? 1 : (async function* () { yield 'a'; yield event.path; }()));`);
  for (let i = 0; i < 300; i += 1) {
    assert.deepEqual((await wire.ask({ target: `/fn/hello/${i}` })).chunks.map(String), ['a', `/${i}`]);
    assert.equal((await wire.ask({ target: '/fn/hello/plain' })).json(), 1);
  }
});

test('pipelined streams are answered in order', async (t) => {
  const { wire } = await startRunner(t, "exports.handler = async function* (event) { yield event.path; yield 'b'; };");
  wire.send(Buffer.concat(['/a', '/b', '/c'].map((path) => encode({ target: `/fn/hello${path}` }))));
  for (const path of ['/a', '/b', '/c']) assert.equal((await wire.read()).text(), `${path}b`);
});

test('pipelined streams of a client that has left end as well', async (t) => {
  const runner = await startRunner(t, STEPS);
  const port = await runner.connectPort();
  port.send(Buffer.concat([encode(id('r1')), encode(id('r2'))]));
  await port.readHead();
  assert.equal(await chunk(port), 'data: 1\n\n');
  port.socket.destroy();
  ['go1', 'go2', 'go3'].forEach((name) => tell(runner, name));
  assert.equal((await runner.wire.ask(id('r3'))).chunks.length, 3);
});

test('one request at a time, until the stream has ended; health is answered meanwhile', async (t) => {
  const runner = await startRunner(t, STEPS);
  const port = await runner.connectPort();
  runner.wire.send(encode(id('r1')));
  await runner.wire.readHead();
  await chunk(runner.wire);
  port.send(encode({ target: '/fn/hello/plain', ...id('r2') }));
  const other = await runner.connectPort();
  for (let i = 0; i < 5; i += 1) assert.equal((await other.ask({ target: '/health' })).status, 200);
  assert.equal(port.buffer.length, 0);
  ['go1', 'go2', 'go3'].forEach((name) => tell(runner, name));
  assert.equal((await runner.wire.readChunks()).cut, false);
  assert.equal((await port.read()).status, 200);
});

test('a slow reader holds the function up: nothing piles up', async (t) => {
  const runner = await startRunner(t, `
    let made = 0;
    exports.handler = async (event) => {
      async function* pieces() {
        for (made = 1; made <= 400; made += 1) { require('fs').writeFileSync(__dirname + '/made', String(made)); yield Buffer.alloc(65536, 'x'); }
      }
      return { statusCode: 200, body: pieces() };
    };`, { env: { GRID_MAX_RESPONSE_BYTES: '100000000' } });
  const made = () => Number(fs.readFileSync(`${runner.dir}/made`, 'utf8') || 0);
  runner.wire.send(encode({}));
  await runner.wire.readHead();
  runner.wire.socket.pause();
  let [last, same] = [0, 0];
  await until(() => {
    const now = made();
    same = now === last ? same + 1 : 0;
    last = now;
    return same > 40;
  }, 'the function to be held up');
  assert.ok(last < 100, `${last} pieces of 64 KiB were made while nobody read`);
  runner.wire.socket.resume();
  const { chunks, cut } = await runner.wire.readChunks();
  assert.deepEqual([cut, chunks.length, new Set(chunks.map((one) => one.length)).size], [false, 400, 1]);
});

/** Everything that a client of HTTP/1.0 gets, and the error that its connection ended with. */
function askHttp10(runner) {
  return new Promise((resolve) => {
    const socket = net.connect(runner.port, '127.0.0.1');
    const got = { text: '', error: null };
    socket.on('data', (data) => { got.text += data.toString('latin1'); });
    socket.on('error', (error) => { got.error = error.code; });
    socket.on('close', () => resolve(got));
    socket.write('GET /fn/hello HTTP/1.0\r\nconnection: keep-alive\r\n\r\n');
  });
}

test('clients of HTTP/1.0 get the bytes up to the end of the connection', async (t) => {
  const runner = await startRunner(t, "exports.handler = async function* () { yield 'a'; yield 'b'; };");
  await runner.connectPort();
  const { text, error } = await askHttp10(runner);
  assert.match(text, /^HTTP\/1\.1 200 [^]*\r\nconnection: close\r\n\r\nab$/i);
  assert.doesNotMatch(text, /transfer-encoding|content-length/i);
  assert.equal(error, null);
});

test('clients of HTTP/1.0 see a failure in the middle as a reset', async (t) => {
  const runner = await startRunner(t, "exports.handler = async function* () { yield 'a'; await new Promise((r) => setTimeout(r, 20)); throw new Error('boom'); };");
  await runner.connectPort();
  assert.equal((await askHttp10(runner)).error, 'ECONNRESET');
});

test('process.exit in the middle cuts the answer and keeps the code', async (t) => {
  const runner = await startRunner(t, "exports.handler = async function* () { yield 'a'; process.exit(7); };");
  const answer = await runner.wire.ask({});
  assert.deepEqual([answer.text(), answer.cut], ['a', true]);
  assert.deepEqual(await runner.exit(), { status: 7, signal: null });
});

test('SIGTERM in the middle ends it with code 0', async (t) => {
  const runner = await startRunner(t, STEPS);
  runner.wire.send(encode({}));
  await runner.wire.readHead();
  runner.child.kill('SIGTERM');
  assert.deepEqual(await runner.exit(), { status: 0, signal: null });
});

test('an error in the cleaning up is logged and nothing else', async (t) => {
  const runner = await startRunner(t, "exports.handler = async function* () { try { yield 'a'; } finally { throw new Error('cleaning failed'); } };");
  assert.equal((await runner.wire.ask({ method: 'HEAD' })).status, 200);
  await until(() => runner.stderr.includes('cleaning failed'), 'the log');
});

test('a cleaning up that does not end is given up at the deadline', async (t) => {
  const runner = await startRunner(t, "exports.handler = async function* () { try { yield 'a'; } finally { await new Promise(() => {}); } };");
  for (let i = 0; i < 2; i += 1) {
    assert.equal((await runner.wire.ask({ method: 'HEAD', headers: [['x-grid-deadline-ms', '50']] })).status, 200);
  }
});

test('a stream of a file that is not sent does not stay open', async (t) => {
  const runner = await startRunner(t, `
    const fs = require('fs');
    exports.handler = async (event) => {
      if (event.path === '/count') return fs.readdirSync('/proc/self/fd').length;
      return { statusCode: event.path === '/none' ? 204 : 99, body: fs.createReadStream(__filename) };
    };`);
  const count = async () => (await runner.wire.ask({ target: '/fn/hello/count' })).json();
  const before = await count();
  for (let i = 0; i < 20; i += 1) {
    assert.equal((await runner.wire.ask({ target: '/fn/hello/none' })).status, 204);
    assert.equal((await runner.wire.ask({ target: '/fn/hello/bad' })).status, 502);
  }
  await until(async () => (await count()) <= before + 2, 'the files to be closed');
});
