// The egress guard as user code meets it: every way out, every spelling, names, redirects, errors.
// Without a network "allowed" shows as the kernel's own refusal.
'use strict';

const assert = require('node:assert/strict');
const dgram = require('node:dgram');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const test = require('node:test');
const { UNREACHABLE, assertAllowed, assertBlocked, guarded, startGuarded } = require('./guard-harness.cjs');

const WAYS = {
  'fetch': "await fetch(`http://${HOST}:${PORT}/`);",
  'fetch of a Request': "await fetch(new Request(`http://${HOST}:${PORT}/`, { method: 'POST', body: 'x' }));",
  'fetch, https': "await fetch(`https://${HOST}:${PORT}/`);",
  'fetch with a dispatcher of its own': `
    try { await fetch('data:,'); } catch {}
    const { constructor: Agent } = globalThis[Symbol.for('undici.globalDispatcher.1')];
    await fetch(\`http://\${HOST}:\${PORT}/\`, { dispatcher: new Agent({ connect: { timeout: 1000 } }) });`,
  'the global dispatcher': `
    try { await fetch('data:,'); } catch {}
    const dispatcher = globalThis[Symbol.for('undici.globalDispatcher.1')];
    await new Promise((resolve, reject) => dispatcher.dispatch({ origin: \`http://\${HOST}:\${PORT}\`, path: '/', method: 'GET' },
      { onConnect() {}, onHeaders() { resolve('headers'); }, onData() {}, onComplete() {}, onError: reject }));`,
  'http.get': "await emitted(require('http').get(`http://${HOST}:${PORT}/`));",
  'http.request': "await emitted(require('http').request({ host: HOST, port: PORT, method: 'POST' }).end('x'));",
  'http.ClientRequest': "const { ClientRequest } = require('http'); await emitted(new ClientRequest({ host: HOST, port: PORT }).end());",
  'http without an agent': "await emitted(require('http').get({ host: HOST, port: PORT, agent: false }));",
  'http with a keep-alive agent': "const http = require('http'); await emitted(http.get({ host: HOST, port: PORT, agent: new http.Agent({ keepAlive: true }) }));",
  'http with createConnection': "await emitted(require('http').get({ host: 'a.example', createConnection: () => require('net').connect(PORT, HOST) }));",
  'an agent class of its own': `
    const http = require('http');
    class Own extends http.Agent { createConnection(options, done) { return super.createConnection({ ...options, host: HOST, port: PORT }, done); } }
    await emitted(http.get({ host: '8.8.8.8', agent: new Own() }));`,
  'an http proxy': "await emitted(require('http').get({ host: HOST, port: PORT, path: 'http://example.com/', headers: { host: 'example.com' } }));",
  'a CONNECT proxy': "await emitted(require('http').request({ host: HOST, port: PORT, method: 'CONNECT', path: 'example.com:443' }).end());",
  'https.get': "await emitted(require('https').get(`https://${HOST}:${PORT}/`));",
  'https with an agent': "const https = require('https'); await emitted(https.request({ host: HOST, port: PORT, servername: 'a.example', agent: new https.Agent() }).end());",
  'net.connect': "await emitted(require('net').connect(PORT, HOST));",
  'net.connect with options': "await emitted(require('net').createConnection({ host: HOST, port: PORT }));",
  'net.Socket': "await emitted(new (require('net').Socket)().connect({ host: HOST, port: PORT }));",
  'net.Socket with a family': "await emitted(new (require('net').Stream)().connect({ host: HOST, port: PORT, family: 4 }));",
  'happy eyeballs': "await emitted(require('net').connect({ host: HOST, port: PORT, autoSelectFamily: true }));",
  'a local address': "await emitted(require('net').connect({ host: HOST, port: PORT, localAddress: '0.0.0.0' }));",
  'tls.connect': "await emitted(require('tls').connect({ host: HOST, port: PORT, servername: 'a.example' }));",
  'tls over a socket': "const socket = require('net').connect(PORT, HOST); require('tls').connect({ socket }).on('error', () => {}); await emitted(socket);",
  'http2': "await emitted(require('http2').connect(`http://${HOST}:${PORT}`));",
  'http2 over tls': "await emitted(require('http2').connect(`https://${HOST}:${PORT}`));",
  'dgram send': "await new Promise((resolve, reject) => require('dgram').createSocket('udp4').send('x', PORT, HOST, (error) => (error ? reject(error) : resolve('sent'))));",
  'dgram connect': "const socket = require('dgram').createSocket('udp4'); await new Promise((resolve, reject) => socket.connect(PORT, HOST, (error) => (error ? reject(error) : resolve('connected'))));",
  'a patched net.Socket': `
    const { Socket } = require('net');
    const { connect } = Socket.prototype;
    Socket.prototype.connect = function (...args) { return connect.apply(this, args); };
    try { await emitted(require('net').connect(PORT, HOST)); } finally { Socket.prototype.connect = connect; }`,
};

const EVENTS = {
  'dgram send without a callback': "const socket = require('dgram').createSocket('udp4'); socket.send('x', PORT, HOST); await emitted(socket);",
  'dgram connect without a callback': "const socket = require('dgram').createSocket('udp4'); socket.connect(PORT, HOST); await emitted(socket);",
  'dgram multicast': "const socket = require('dgram').createSocket('udp4'); socket.send('x', PORT, '239.1.2.3', () => {}); socket.send('x', PORT, HOST); await emitted(socket);",
};

const SERVERS = {
  'dns.setServers': "require('dns').setServers([`${HOST}:5353`]);",
  'dns.promises.setServers': "require('dns').promises.setServers([HOST]);",
  'dns.Resolver': "new (require('dns').Resolver)().setServers(['8.8.8.8', HOST]);",
  'dns.promises.Resolver': "new (require('dns').promises.Resolver)().setServers([HOST]);",
};

test('every way out', guarded, async (t) => {
  const runner = await startGuarded(t);
  for (const [name, code] of Object.entries(WAYS)) {
    await t.test(name, async () => {
      assertBlocked(await runner.run(code, { host: '10.1.2.3', port: 81 }), '10.1.2.3');
      assertAllowed(await runner.run(code, { host: '8.8.8.8', port: 81 }));
    });
  }
  for (const [name, code] of Object.entries(EVENTS)) {
    await t.test(name, async () => assertBlocked(await runner.run(code, { host: '10.1.2.3', port: 81 }), '10.1.2.3'));
  }
  for (const [name, code] of Object.entries(SERVERS)) {
    await t.test(name, async () => {
      for (const host of ['10.1.2.3', '127.0.0.1', '169.254.169.253']) assertBlocked(await runner.run(code, { host }), host);
      assert.deepEqual(await runner.run(code, { host: '1.1.1.1' }), { value: null });
    });
  }
  await t.test('the error of a connection has its port', async () => {
    assertBlocked(await runner.run(WAYS['net.connect'], { host: '10.1.2.3', port: 81 }), '10.1.2.3', { port: 81, hostname: undefined });
  });
  await t.test('udp6', async () => {
    const code = "await new Promise((resolve, reject) => require('dgram').createSocket('udp6').send('x', PORT, HOST, (error) => (error ? reject(error) : resolve())));";
    assertBlocked(await runner.run(code, { host: '::ffff:10.1.2.3', port: 53 }), '10.1.2.3');
    assertBlocked(await runner.run(code, { host: 'ff02::fb', port: 53 }), 'ff02::fb');
    assertAllowed(await runner.run(code, { host: '2606:4700:4700::1111', port: 53 }));
  });
  await t.test('the servers of the container itself may be set again', async () => {
    assert.deepEqual(await runner.run("const dns = require('dns'); dns.setServers(new dns.Resolver().getServers());"), { value: null });
  });
});

test('nothing reaches a listener on loopback', guarded, async (t) => {
  let arrived = 0;
  const tcp = net.createServer((socket) => { arrived += 1; socket.destroy(); });
  await new Promise((resolve) => tcp.listen(0, '127.0.0.1', resolve));
  const { port } = tcp.address();
  const udp = dgram.createSocket('udp4').on('message', () => { arrived += 1; });
  await new Promise((resolve) => udp.bind(port, '127.0.0.1', resolve));
  t.after(() => { tcp.close(); udp.close(); });
  const runner = await startGuarded(t);
  for (const [name, code] of Object.entries({ ...WAYS, ...EVENTS })) {
    await t.test(name, async () => assertBlocked(await runner.run(code, { host: '127.0.0.1', port }), '127.0.0.1'));
  }
  // The test's own connection and packet are the first that arrive.
  await new Promise((resolve) => net.connect(port, '127.0.0.1').on('close', resolve).resume());
  const got = new Promise((resolve) => udp.once('message', resolve));
  udp.send('x', port, '127.0.0.1');
  await got;
  assert.equal(arrived, 2);
});

test('every spelling of an address', guarded, async (t) => {
  const spellings = JSON.parse(fs.readFileSync(path.join(__dirname, '..', '..', 'egress', 'spellings.json'), 'utf8'));
  const runner = await startGuarded(t);
  const judged = (answer, expected, what) => {
    const { error } = answer;
    if (expected === 'allowed') assertAllowed(answer);
    else if (expected === 'rejected') {
      assert.ok(error, what);
      assert.notEqual(error.code, 'SSRF_BLOCKED', what);
      assert.ok(!UNREACHABLE.includes((error.cause || error).code), what);
    } else {
      assert.ok([].concat(expected).includes(error && error.address), `${what}: ${JSON.stringify(answer)}`);
      assertBlocked(answer, error.address);
    }
  };
  for (const { name, url, node, fetch: byFetch = node } of spellings) {
    await t.test(`${name}: ${JSON.stringify(url)}`, async () => {
      judged(await runner.run("await emitted(require('http').get(HOST));", { host: url }), node, 'http.get');
      judged(await runner.run('await fetch(HOST);', { host: url }), byFetch, 'fetch');
    });
  }
});

test('line breaks are refused before anything is sent', guarded, async (t) => {
  const runner = await startGuarded(t);
  const places = {
    'a host': "await emitted(require('http').get({ host: '8.8.8.8\\r\\nx: y', lookup: (h, o, done) => done(null, '8.8.8.8', 4) }));",
    'a path': "await emitted(require('http').get({ host: '8.8.8.8', path: '/\\r\\nx: y' }));",
    'a header': "await emitted(require('http').get({ host: '8.8.8.8', headers: { a: 'b\\r\\nx: y' } }));",
    'a method': "await emitted(require('http').get({ host: '8.8.8.8', method: 'GET /\\r\\n' }));",
    'a header of fetch': "await fetch('http://8.8.8.8/', { headers: { a: 'b\\r\\nx: y' } });",
  };
  for (const [name, code] of Object.entries(places)) {
    await t.test(name, async () => {
      const { error } = await runner.run(code);
      assert.ok(['TypeError', 'NodeError', 'Error'].includes(error.name), JSON.stringify(error));
      assert.match(error.code || error.message, /ERR_INVALID_(CHAR|ARG_VALUE|HTTP_TOKEN)|ERR_UNESCAPED_CHARACTERS|invalid/i);
    });
  }
});

test('names', guarded, async (t) => {
  const runner = await startGuarded(t);
  const by = (lookup, more = ', autoSelectFamily: false') => `
    let calls = 0;
    const lookup = (host, options, done) => { calls += 1; process.nextTick(() => (${lookup})(host, options, done)); };
    const connect = () => emitted(require('net').connect({ host: 'a.example', port: 81, lookup${more} }));`;

  await t.test('localhost can be looked up, not connected to', async () => {
    const { value } = await runner.run("return require('dns').promises.lookup('localhost', { all: true });");
    assert.ok(value.some(({ address }) => address === '127.0.0.1'));
    const answer = await runner.run("await emitted(require('net').connect(81, 'localhost'));");
    assert.ok(['127.0.0.1', '::1'].includes(answer.error.address));
    assertBlocked(answer, answer.error.address, { hostname: 'localhost', port: 81 });
  });
  await t.test('a lookup that answers a denied address', async () => {
    const code = `${by("(h, o, done) => done(null, '10.1.2.3', 4)")} await connect();`;
    assertBlocked(await runner.run(code), '10.1.2.3', { hostname: 'a.example', port: 81 });
  });
  await t.test('a lookup that answers a mapped address', async () => {
    assertBlocked(await runner.run(`${by("(h, o, done) => done(null, '::ffff:10.1.2.3', 6)")} await connect();`), '10.1.2.3');
  });
  await t.test('the address that was looked up is the one that is connected to', async () => {
    const { error } = await runner.run(`${by("(h, o, done) => done(null, '8.8.4.4', 4)")} await connect();`);
    assert.deepEqual([error.code, error.address], ['ENETUNREACH', '8.8.4.4']);
  });
  await t.test('rebinding: each connection is checked, and resolves once', async () => {
    const { value } = await runner.run(`${by("(h, o, done) => done(null, calls === 1 ? '8.8.8.8' : '10.1.2.3', 4)")}
      const codes = [];
      for (let i = 0; i < 3; i += 1) codes.push(await connect().catch((error) => error.code));
      return { codes, calls };`);
    assert.deepEqual(value, { codes: ['ENETUNREACH', 'SSRF_BLOCKED', 'SSRF_BLOCKED'], calls: 3 });
  });
  for (const answer of ["[{ address: '8.8.8.8', family: 4 }, { address: '10.1.2.3', family: 4 }]", "[{ address: '10.1.2.3', family: 4 }, { address: '2606:4700::1', family: 6 }]",
    "[{ address: '2606:4700::1', family: 6 }, { address: '64:ff9b::a01:203', family: 6 }]"]) {
    await t.test(`one denied address among public ones: ${answer}`, async () => {
      assertBlocked(await runner.run(`${by(`(h, o, done) => done(null, ${answer})`, ', autoSelectFamily: true')} await connect();`), '10.1.2.3');
      // Node's own lookup, as the user may have replaced it.
      const replaced = `const dns = require('dns'); const before = dns.lookup; dns.lookup = (h, o, done) => process.nextTick(done, null, ${answer});
        try { await emitted(require('net').connect(81, 'a.example')); } finally { dns.lookup = before; }`;
      assertBlocked(await runner.run(replaced), '10.1.2.3');
    });
  }
  await t.test('public addresses only', async () => {
    const { error } = await runner.run(`${by("(h, o, done) => done(null, [{ address: '8.8.8.8', family: 4 }, { address: '2606:4700::1', family: 6 }])", ', autoSelectFamily: true')} await connect();`);
    assert.notEqual(error.code, 'SSRF_BLOCKED');
    assert.match(error.code, /ENETUNREACH/);
  });
  await t.test('an address that is another one the second time', async () => {
    const sly = "{ family: 4, get address() { this.n = (this.n || 0) + 1; return this.n === 1 ? '8.8.8.8' : '10.1.2.3'; } }";
    const { error } = await runner.run(`${by(`(h, o, done) => done(null, [${sly}])`, ', autoSelectFamily: true')} await connect();`);
    assert.match(`${error.code} ${error.message}`, /SSRF_BLOCKED|EACCES/);
  });
  await t.test('a literal does not ask the lookup, and is checked', async () => {
    const { value } = await runner.run(`${by("(h, o, done) => done(null, '8.8.8.8', 4)")}
      return emitted(require('net').connect({ host: '10.1.2.3', port: 81, lookup })).catch((error) => [error.code, calls]);`);
    assert.deepEqual(value, ['SSRF_BLOCKED', 0]);
  });
  await t.test('errors and nonsense of a lookup stay what they are', async () => {
    assert.equal((await runner.run(`${by("(h, o, done) => done(Object.assign(new Error('x'), { code: 'ENOTFOUND' }))")} await connect();`)).error.code, 'ENOTFOUND');
    assert.equal((await runner.run(`${by("(h, o, done) => done(null, 'nonsense', 4)")} await connect();`)).error.code, 'ERR_INVALID_IP_ADDRESS');
    assert.equal((await runner.run("require('net').connect({ host: 'a.example', port: 81, lookup: 1 });")).error.code, 'ERR_INVALID_ARG_TYPE');
  });
  await t.test('a null byte in a name: refused, or what the resolver made of it is checked', async () => {
    const { error } = await runner.run("await emitted(require('net').connect({ host: '10.1.2.3\\0.example.com', port: 80 }));");
    assert.match(error.code, /^(ERR_INVALID_ARG_VALUE|SSRF_BLOCKED)$/);
  });
  await t.test('a lookup of dgram', async () => {
    const code = (address) => `const socket = require('dgram').createSocket({ type: 'udp4', lookup: (h, o, done) => process.nextTick(done, null, h === '0.0.0.0' ? h : '${address}', 4) });
      await new Promise((resolve, reject) => socket.send('x', 53, 'a.example', (error) => (error ? reject(error) : resolve())));`;
    assertBlocked(await runner.run(code('10.1.2.3')), '10.1.2.3', { hostname: 'a.example' });
    assertAllowed(await runner.run(code('8.8.8.8')));
  });
  await t.test('a lookup of fetch, http and https', async () => {
    const lookup = "lookup: (h, o, done) => process.nextTick(done, null, '10.1.2.3', 4)";
    for (const kind of ['http', 'https']) {
      assertBlocked(await runner.run(`await emitted(require('${kind}').get({ host: 'a.example', ${lookup} }));`), '10.1.2.3', { hostname: 'a.example' });
    }
    assertBlocked(await runner.run(`try { await fetch('data:,'); } catch {}
      const { constructor: Agent } = globalThis[Symbol.for('undici.globalDispatcher.1')];
      await fetch('http://a.example/', { dispatcher: new Agent({ connect: { ${lookup} } }) });`), '10.1.2.3', { hostname: 'a.example' });
  });
});

// A public server cannot be had here; one behind a Unix socket stands for it.
const PUBLIC = `
  const http = require('http');
  const net = require('net');
  const file = require('path').join(require('os').tmpdir(), \`public-\${process.pid}-\${Math.random()}.sock\`);
  const server = http.createServer((req, res) => {
    const [, status, ...to] = req.url.split('!');
    res.writeHead(Number(status || 200), to.length ? { location: decodeURIComponent(to.join('!')) } : {}).end('answered');
  });
  await new Promise((resolve) => server.listen(file, resolve));
  server.unref();
  try { await fetch('data:,'); } catch {}
  const { constructor: Agent } = globalThis[Symbol.for('undici.globalDispatcher.1')];
  const dispatcher = new Agent({ connect(options, done) {
    const socket = options.hostname === 'public.example' ? net.connect({ path: file }) : net.connect({ host: options.hostname, port: options.port || 80 });
    socket.once('connect', () => done(null, socket)).once('error', done);
  } });`;

test('redirects and connections that are kept', guarded, async (t) => {
  const runner = await startGuarded(t);
  for (const status of [301, 302, 303, 307, 308]) {
    for (const to of ['http://10.1.2.3/', 'https://10.1.2.3/', 'http://[::ffff:10.1.2.3]/', 'http://167838211/']) {
      await t.test(`fetch follows ${status} to ${to}`, async () => {
        const more = status === 307 ? ", method: 'POST', body: 'x'" : '';
        const code = `${PUBLIC} await fetch('http://public.example/!${status}!${encodeURIComponent(to)}', { dispatcher${more} });`;
        assertBlocked(await runner.run(code), '10.1.2.3');
      });
    }
  }
  await t.test('the second hop', async () => {
    const inner = encodeURIComponent('http://10.1.2.3/');
    const code = `${PUBLIC} await fetch('http://public.example/!302!' + encodeURIComponent('http://public.example/!302!${inner}'), { dispatcher });`;
    assertBlocked(await runner.run(code), '10.1.2.3');
  });
  await t.test('to a public address', async () => {
    assertAllowed(await runner.run(`${PUBLIC} await fetch('http://public.example/!302!' + encodeURIComponent('http://8.8.8.8/'), { dispatcher });`));
  });
  await t.test('a vetted connection is of no use for another host', async () => {
    const { value } = await runner.run(`${PUBLIC}
      const first = await (await fetch('http://public.example/', { dispatcher })).text();
      const second = await fetch('http://10.1.2.3/', { dispatcher }).catch((error) => error.code);
      const third = await (await fetch('http://public.example/', { dispatcher })).text();
      return [first, second, third];`);
    assert.deepEqual(value, ['answered', 'SSRF_BLOCKED', 'answered']);
  });
  await t.test('http over a Unix socket works, and its redirect is checked', async () => {
    const { value } = await runner.run(`${PUBLIC}
      const to = await new Promise((resolve, reject) => http.get({ socketPath: file, path: '/!302!' + encodeURIComponent('http://10.1.2.3/') },
        (res) => resolve(res.headers.location)).on('error', reject));
      return [to, await emitted(http.get(to)).catch((error) => error.message)];`);
    assert.deepEqual(value, ['http://10.1.2.3/', 'SSRF guard blocked outbound request to 10.1.2.3']);
  });
});

test('what the guard leaves alone', guarded, async (t) => {
  const runner = await startGuarded(t);
  await t.test('listening, on TCP and UDP', async () => {
    const { value } = await runner.run(`
      const server = require('net').createServer();
      await new Promise((resolve, reject) => server.on('error', reject).listen(0, '127.0.0.1', resolve));
      const socket = require('dgram').createSocket('udp4');
      await new Promise((resolve, reject) => { socket.on('error', reject); socket.bind(0, '127.0.0.1', resolve); });
      const addresses = [server.address().address, socket.address().address];
      server.close();
      socket.close();
      return addresses;`);
    assert.deepEqual(value, ['127.0.0.1', '127.0.0.1']);
  });
  await t.test('arguments that Node refuses itself', async () => {
    assert.equal((await runner.run("require('net').connect({});")).error.code, 'ERR_MISSING_ARGS');
    assert.equal((await runner.run("require('net').connect({ host: 1, port: 1 });")).error.code, 'ERR_INVALID_ARG_TYPE');
    assert.equal((await runner.run("require('net').connect({ host: '8.8.8.8', port: 70000 });")).error.code, 'ERR_SOCKET_BAD_PORT');
    assert.equal((await runner.run("require('dns').setServers('8.8.8.8');")).error.code, 'ERR_INVALID_ARG_TYPE');
    assert.equal((await runner.run("require('dns').setServers(['x']);")).error.code, 'ERR_INVALID_IP_ADDRESS');
    assert.equal((await runner.run('await fetch();')).error.name, 'TypeError');
  });
  await t.test('errors of fetch that are not its own', async () => {
    const { error } = await runner.run("await fetch('http://8.8.8.8/');");
    assert.deepEqual([error.name, error.message, error.cause.code], ['TypeError', 'fetch failed', 'ENETUNREACH']);
  });
  await t.test('fetch looks as before', async () => {
    const { value } = await runner.run("const { writable, enumerable, configurable } = Object.getOwnPropertyDescriptor(globalThis, 'fetch'); return [fetch.name, fetch.length, writable, enumerable, configurable];");
    assert.deepEqual(value, ['fetch', 1, true, true, true]);
  });
  await t.test('no warnings', async () => {
    const strict = await startGuarded(t, { env: { NODE_OPTIONS: '--pending-deprecation --trace-warnings' } });
    assert.deepEqual(await strict.run('return [process.noDeprecation === undefined, "noDeprecation" in process];'), { value: [true, false] });
    assert.equal(strict.stderr, '');
  });
  await t.test('deprecations that are off stay off', async () => {
    const quiet = await startGuarded(t, { env: { NODE_OPTIONS: '--no-deprecation' } });
    assert.deepEqual(await quiet.run("const { value, writable } = Object.getOwnPropertyDescriptor(process, 'noDeprecation'); return [value, writable];"), { value: [true, false] });
    assertBlocked(await quiet.run("await fetch('http://10.1.2.3/');"), '10.1.2.3');
  });
});

test('a blocked request that the handler does not catch is 452', guarded, async (t) => {
  const runner = await startGuarded(t);
  const escapes = {
    'a rejection': "await fetch('http://10.1.2.3/');",
    'an error event without a listener': "require('http').get('http://10.1.2.3/'); await new Promise(() => {});",
    'a rejection that nobody awaits': "fetch('http://10.1.2.3/'); await new Promise(() => {});",
    'a dgram error without a listener': "require('dgram').createSocket('udp4').send('x', 53, '10.1.2.3'); await new Promise(() => {});",
    'the cause of another error': "try { await fetch('http://10.1.2.3/'); } catch (cause) { throw new Error('mine', { cause }); }",
    'one of several errors': "await Promise.any([fetch('http://10.1.2.3/'), Promise.reject(new Error('x'))]);",
    'thrown at once': "require('dns').setServers(['10.1.2.3']);",
  };
  for (const [name, code] of Object.entries(escapes)) {
    await t.test(name, async () => {
      const answer = await runner.ask(code, { escape: true });
      assert.equal(answer.status, 452, answer.text());
      assert.equal(answer.outcome, 'error');
      assert.deepEqual(answer.json(), { error: 'ssrf_blocked', message: 'SSRF guard blocked outbound request to 10.1.2.3' });
    });
  }
  await t.test('it is logged', async () => assert.match(runner.stderr, /SSRF guard blocked outbound request to 10\.1\.2\.3/));
  await t.test('and does not show the guard', async () => assert.doesNotMatch(runner.stderr, /guard\.cjs/));
});
