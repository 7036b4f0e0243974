// The Node runner of Grid Functions: dials the edge, listens on port 8000, and answers
// /health, /ready and /fn/<name> one function request at a time (see PROTOCOL.md).
'use strict';

const net = require('net');
const fs = require('fs');
const path = require('path');

// User code may fake these later.
const { JSON: { stringify }, process, setTimeout } = globalThis;
const epoch = Date.now;
const uptime = () => process.uptime() * 1000;

function number(name, fallback) {
  const value = Number(process.env[name] || NaN);
  return Number.isFinite(value) && value >= 0 ? value : fallback;
}

const settings = {
  functionDir: path.resolve(process.env.GRID_FUNCTION_DIR || '/app/function'),
  socket: process.env.GRID_SOCKET || '/run/grid/edge.sock',
  port: number('PORT', 8000),
  handler: process.env.GRID_HANDLER || 'handler',
  lambda: process.env.GRID_EVENT_FORMAT === 'lambda-v2',
  functionName: process.env.GRID_FUNCTION_NAME || 'function',
  deployment: process.env.GRID_DEPLOYMENT || '$LATEST',
  memoryMb: process.env.GRID_MEMORY_MB || '128',
  timeoutMs: number('GRID_TIMEOUT_SECONDS', 30) * 1000,
  maxResponseBytes: number('GRID_MAX_RESPONSE_BYTES', 6291456),
  orphanMs: number('GRID_ORPHAN_SECONDS', 600) * 1000,
};

// ---- the call-home connection --------------------------------------------------------

const FAST_RETRY_MS = 20;
const SLOW_RETRY_MS = 200;
const FAST_PERIOD_MS = 60000;
let lostAt = uptime();
let dialled = null;
const homes = new WeakSet();

function dial() {
  let connected = false;
  const socket = net.connect({ path: settings.socket });
  socket.on('error', () => {});
  socket.on('connect', () => {
    connected = true;
    homes.add(socket);
    if (server) server.emit('connection', socket);
    else dialled = socket;
  });
  socket.on('close', () => {
    if (connected) lostAt = uptime();
    const alone = uptime() - lostAt;
    if (settings.orphanMs > 0 && alone >= settings.orphanMs) process.exit(0);
    setTimeout(dial, alone < FAST_PERIOD_MS ? FAST_RETRY_MS : SLOW_RETRY_MS);
  });
}

let server = null;
const callsHome = fs.existsSync(path.dirname(settings.socket));
if (callsHome) dial();

// ---- requests: everything below loads while the edge accepts the connection ------------

// Nothing of the function may run without the guard.
try {
  require('./guard.cjs');
} catch (error) {
  fs.writeSync(2, `The runner ends: the egress guard cannot be installed: ${error.message}\n`);
  process.exit(1);
}

const http = require('http');
const log = require('./log.cjs');
const { escapeTarget, groupHeaders, splitTarget } = require('./event.cjs');
const { invoke, prepare, ready, uncaught } = require('./invoke.cjs');
const { Outlet } = require('./outlet.cjs');
const { oneLine } = require('./failure.cjs');
const { hide } = require('./secrets.cjs');
const { isCalledBack } = require('./recalls.cjs');

function sendJson(res, status, value) {
  new Outlet(res).send({ status, headers: new Map([['content-type', ['application/json']]]), body: Buffer.from(stringify(value)) });
}

function sendFailure(res, status, failure) {
  sendJson(res, status, { error: failure.kind, message: oneLine(hide(failure.message), 4096) });
}

async function answerReady(res, body) {
  try {
    if (body) prepare(require('./environment.cjs').read(body));
  } catch (failure) {
    sendFailure(res, failure.status, failure);
    return;
  }
  try {
    await ready(settings);
    sendJson(res, 200, { status: 'ready', calls_back: true });
  } catch (failure) {
    sendFailure(res, 503, failure);
  }
}

async function answerOnce(res, body, arrived) {
  const outlet = new Outlet(res);
  try {
    outlet.finish(await require('./once.cjs').once(settings, body, arrived, res));
  } catch (failure) {
    if (failure.kind !== 'invalid_request') throw failure;
    sendFailure(res, failure.status, failure);
  }
}

function describeRequest(req, target, body) {
  const headers = groupHeaders(req.rawHeaders);
  const grid = (name) => (headers.get(`x-grid-${name}`) || [''])[0];
  const left = /^\d{1,12}$/.test(grid('deadline-ms')) ? Number(grid('deadline-ms')) : settings.timeoutMs;
  return {
    ...target,
    method: req.method,
    protocol: `HTTP/${req.httpVersion}`,
    headers,
    body,
    time: epoch(),
    requestId: grid('request-id') || require('crypto').randomUUID(),
    functionName: grid('function') || settings.functionName,
    sourceIp: grid('source-ip'),
    scheme: grid('scheme') || 'http',
    turn: Number(grid('turn')),
    leftMs: left,
  };
}

// One request at a time, whichever connection it came over.
let tail = Promise.resolve();
function inTurn(res, work) {
  tail = tail.then(async () => {
    if (res.destroyed) return;
    await work();
    // The edge takes an answer that it does not have for one that has not been given.
    if (homes.has(res.req.socket)) await left(res);
  }).catch((error) => {
    log.stack(error);
    res.destroy();
  });
}

/** Resolves when an answer has left the process, or cannot any more. */
function left(res) {
  if (res.writableFinished || res.destroyed) return null;
  return new Promise((resolve) => {
    res.once('finish', resolve);
    res.once('close', resolve);
  });
}

async function answerFunction(res, request) {
  const outlet = new Outlet(res);
  if (request.turn > 0 && homes.has(res.req.socket) && isCalledBack(request.turn)) {
    outlet.send({ status: 200, outcome: 'called-back', headers: new Map(), body: Buffer.alloc(0) });
    return;
  }
  request.deadline = uptime() + request.leftMs;
  outlet.finish(await invoke(settings, request, outlet));
}

function onRequest(req, res) {
  const arrived = uptime();
  const url = escapeTarget(req.url);
  const place = url.split('?', 1)[0];
  const isGet = req.method === 'GET' || req.method === 'HEAD';
  const isOrder = req.method === 'POST' && homes.has(req.socket) && (place === '/ready' || place === '/invoke');
  const target = splitTarget(url);
  const chunks = [];
  req.on('data', (chunk) => { if (target || isOrder) chunks.push(chunk); });
  req.on('error', () => {});
  req.on('end', () => {
    const body = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    if (target) {
      const request = describeRequest(req, target, body);
      inTurn(res, () => answerFunction(res, request));
    } else if (isGet && place === '/health') sendJson(res, 200, { status: 'ok' });
    else if (isGet && place === '/ready') inTurn(res, () => answerReady(res, null));
    else if (isOrder && place === '/ready') inTurn(res, () => answerReady(res, body));
    else if (isOrder) inTurn(res, () => answerOnce(res, body, arrived));
    else sendJson(res, 404, { error: 'not_found' });
  });
}

// ---- the process ----------------------------------------------------------------------

log.open();
process.on('uncaughtException', uncaught);
process.on('unhandledRejection', uncaught);
process.on('SIGTERM', () => process.exit(0));
process.on('exit', () => { log.end(); });

server = http.createServer({
  maxHeaderSize: 65536,
  requestTimeout: 0,
  headersTimeout: 0,
  keepAliveTimeout: 0,
  requireHostHeader: false,
}, onRequest);
server.timeout = 0;
server.maxHeadersCount = 0;
if (dialled) server.emit('connection', dialled);

server.on('error', (error) => {
  if (error.code === 'EADDRINUSE' || server.triedIpv4) {
    log.note(`The runner does not listen on port ${settings.port}: ${error.message}`);
    if (!callsHome) process.exit(1);
    return;
  }
  server.triedIpv4 = true;
  server.listen(settings.port, '0.0.0.0');
});
// The edge's first request comes before the port.
setImmediate(() => server.listen({ port: settings.port, host: '::', ipv6Only: false }));
