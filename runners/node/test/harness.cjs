// Starts a real runner, plays the edge on a real Unix socket, and speaks raw HTTP/1.1 to it.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

const RUNNER = path.join(__dirname, '..', 'smsly-function-runner.cjs');
const PATIENCE_MS = 20000;

function bounded(promise, what) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited too long for ${what}`)), PATIENCE_MS);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

/** Polls until `check` gives something true. */
async function until(check, what) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** One connection on which requests are sent and answers read, both as raw bytes. */
class Wire {
  constructor(socket) {
    this.socket = socket;
    this.buffer = Buffer.alloc(0);
    this.ended = false;
    this.waiters = [];
    const wake = () => this.waiters.splice(0).forEach((resolve) => resolve());
    socket.on('data', (data) => { this.buffer = Buffer.concat([this.buffer, data]); wake(); });
    socket.on('close', () => { this.ended = true; wake(); });
    socket.on('end', () => { this.ended = true; wake(); });
    socket.on('error', () => {});
  }

  async more(what) {
    if (this.ended) throw new Error(`the connection ended instead of ${what}`);
    await bounded(new Promise((resolve) => this.waiters.push(resolve)), what);
  }

  send(bytes) {
    this.socket.write(bytes);
  }

  closed() {
    return until(() => this.ended, 'the end of a connection');
  }

  async readHead() {
    let end;
    while ((end = this.buffer.indexOf('\r\n\r\n')) < 0) await this.more('an answer');
    const [first, ...lines] = this.buffer.subarray(0, end).toString('latin1').split('\r\n');
    this.buffer = this.buffer.subarray(end + 4);
    const headers = {};
    for (const line of lines) {
      const name = line.slice(0, line.indexOf(':')).toLowerCase();
      (headers[name] = headers[name] || []).push(line.slice(name.length + 1).trim());
    }
    return { status: Number(first.split(' ')[1]), headers, outcome: (headers['x-grid-outcome'] || [])[0] };
  }

  async readBytes(length, what) {
    while (this.buffer.length < length) await this.more(what);
    const bytes = this.buffer.subarray(0, length);
    this.buffer = this.buffer.subarray(length);
    return bytes;
  }

  /** The next chunk, written as strictly as the edge wants it; empty for the last one. */
  async readChunk() {
    let end;
    while ((end = this.buffer.indexOf('\r\n')) < 0) await this.more('a chunk');
    const line = (await this.readBytes(end + 2, 'a chunk')).toString('latin1');
    if (!/^(?:0|[1-9a-f][0-9a-f]{0,7})\r\n$/.test(line)) throw new Error(`a chunk begins with ${JSON.stringify(line)}`);
    const bytes = await this.readBytes(parseInt(line, 16), 'a chunk');
    const crlf = (await this.readBytes(2, 'the end of a chunk')).toString();
    if (crlf !== '\r\n') throw new Error('a chunk does not end where it should');
    return bytes;
  }

  /** All chunks; `cut` when the connection ended before the last one. */
  async readChunks() {
    const chunks = [];
    for (;;) {
      let chunk;
      try {
        chunk = await this.readChunk();
      } catch (error) {
        if (!this.ended) throw error;
        return { chunks, cut: true };
      }
      if (!chunk.length) return { chunks, cut: false };
      chunks.push(chunk);
    }
  }

  async read(method = 'GET') {
    const answer = await this.readHead();
    let body = Buffer.alloc(0);
    if (method !== 'HEAD' && 'transfer-encoding' in answer.headers) {
      Object.assign(answer, await this.readChunks());
      body = Buffer.concat(answer.chunks);
    } else if (method !== 'HEAD') {
      body = await this.readBytes(Number((answer.headers['content-length'] || ['0'])[0]), 'a body');
    }
    return { ...answer, body, text: () => body.toString(), json: () => JSON.parse(body.toString()) };
  }

  ask(request) {
    this.send(encode(request));
    return this.read(request.method);
  }
}

function encode({ method = 'GET', target = '/fn/hello', headers = [], body, bodyBase64, bodyRepeat }) {
  let bytes = Buffer.alloc(0);
  if (body !== undefined) bytes = Buffer.from(body);
  if (bodyBase64 !== undefined) bytes = Buffer.from(bodyBase64, 'base64');
  if (bodyRepeat) bytes = Buffer.from(bodyRepeat.text.repeat(bodyRepeat.count));
  const all = headers.slice();
  const has = (name) => all.some(([key]) => key.toLowerCase() === name);
  if (!has('host')) all.unshift(['host', 'hello.example.com']);
  if (bytes.length && !has('content-length') && !has('transfer-encoding')) all.push(['content-length', String(bytes.length)]);
  const head = `${method} ${target} HTTP/1.1\r\n${all.map(([k, v]) => `${k}: ${v}\r\n`).join('')}\r\n`;
  return Buffer.concat([Buffer.from(head, 'latin1'), bytes]);
}

/** The edge's listener; `accept` gives the next connection that a runner dialled. */
class Edge {
  static async listen(file) {
    const edge = new Edge();
    edge.arrived = [];
    edge.wires = [];
    edge.server = net.createServer((socket) => {
      const wire = new Wire(socket);
      edge.wires.push(wire);
      edge.arrived.push(wire);
    });
    await new Promise((resolve, reject) => edge.server.once('error', reject).listen(file, resolve));
    return edge;
  }

  async accept() {
    await until(() => this.arrived.length, 'a runner to call home');
    return this.arrived.shift();
  }

  close() {
    this.server.close();
    for (const wire of this.wires) wire.socket.destroy();
  }
}

async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A runner process with `code` as its function; stopped and cleaned up when the test ends. */
async function startRunner(t, code, { env = {}, edge = true } = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'grid-'));
  fs.writeFileSync(path.join(dir, 'index.js'), code);
  fs.writeFileSync(path.join(dir, 'index.mjs'), code);
  const socket = edge ? path.join(dir, 'edge.sock') : path.join(dir, 'none', 'edge.sock');
  const runner = { dir, socket, stdout: '', stderr: '', port: await freePort() };
  if (edge) runner.edge = await Edge.listen(socket);
  const own = { PATH: process.env.PATH, GRID_FUNCTION_DIR: dir, GRID_SOCKET: socket, PORT: String(runner.port) };
  runner.child = spawn(process.execPath, [RUNNER], { env: { ...own, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  runner.child.stdout.on('data', (data) => { runner.stdout += data; });
  runner.child.stderr.on('data', (data) => { runner.stderr += data; });
  runner.exited = new Promise((resolve) => runner.child.on('close', (status, signal) => resolve({ status, signal })));
  runner.exit = () => bounded(runner.exited, 'the runner to end');
  runner.connectPort = () => until(() => new Promise((resolve) => {
    const client = net.connect(runner.port, '127.0.0.1');
    client.on('connect', () => resolve(new Wire(client)));
    client.on('error', () => resolve(null));
  }), 'the port');
  t.after(async () => {
    runner.child.kill('SIGKILL');
    await runner.exited;
    if (runner.edge) runner.edge.close();
    fs.rmSync(dir, { recursive: true, force: true });
  });
  if (edge) runner.wire = await runner.edge.accept();
  return runner;
}

module.exports = { Edge, encode, startRunner, until };
