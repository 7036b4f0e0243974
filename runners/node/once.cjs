// `POST /invoke`: one call of the handler with an event that is given whole, and all that is known
// about it afterwards. Loaded when it is asked for.
'use strict';

const fs = require('fs');
const { isUtf8 } = require('buffer');
const log = require('./log.cjs');
const { Failure, oneLine } = require('./failure.cjs');
const { Outlet } = require('./outlet.cjs');
const { answerTo, initMs, noteFailure, ready } = require('./invoke.cjs');
const { gridEvent, put } = require('./event.cjs');
const { hide } = require('./secrets.cjs');
const { now } = require('./context.cjs');

// User code may replace what it finds in the global object.
const { Date, JSON: { parse, stringify }, Map } = globalThis;

const MAX_MESSAGE_BYTES = 4096;
const MAX_STACK_CHARS = 16384;
/** Control characters that JSON writes with six bytes each. */
const COSTLY = /[\x00-\x08\x0b\x0c\x0e-\x1f]/;

/** Takes a stream's pieces for an answer that is sent whole. */
class Basket extends Outlet {
  pieces = [];
  answer = null;
  keeps = true;
  isHead = false;

  begin(answer, bytes) {
    this.answer = answer;
    return this.write(bytes);
  }

  write(bytes) {
    // The memory may be used again for the next piece.
    this.pieces.push(Buffer.from(bytes));
    return Promise.resolve();
  }
}

function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function read(body, settings, arrived) {
  let given;
  try {
    given = parse(body.toString());
  } catch (error) {
    throw new Failure('invalid_request', `not JSON: ${error.message}`, 400);
  }
  if (!isObject(given) || given.event === undefined) throw new Failure('invalid_request', 'there is no event', 400);
  const about = isObject(given.request) ? given.request : {};
  const text = (value, fallback) => (typeof value === 'string' && value ? value : fallback);
  const left = Number.isFinite(about.deadline_ms) ? about.deadline_ms : settings.timeoutMs;
  const functionName = text(about.function, settings.functionName);
  const request = {
    // An empty GET, for what the event lacks.
    method: 'GET',
    protocol: 'HTTP/1.1',
    scheme: 'http',
    path: `/fn/${functionName}`,
    rest: '/',
    query: '',
    headers: new Map(),
    body: Buffer.alloc(0),
    sourceIp: '',
    time: Date.now(),
    requestId: text(about.request_id) || require('crypto').randomUUID(),
    functionName,
    deadline: arrived + left,
  };
  return { event: given.event, request };
}

/** The event with the top-level members that every event has. */
function complete(event, request, settings) {
  if (!isObject(event)) return event;
  const empty = settings.lambda ? require('./lambda.cjs').lambdaEvent(request) : gridEvent(request);
  for (const name of Object.keys(empty)) {
    if (!Object.prototype.hasOwnProperty.call(event, name)) put(event, name, empty[name]);
  }
  return event;
}

function bodyOf(bytes) {
  if (isUtf8(bytes)) {
    const text = bytes.toString();
    if (!COSTLY.test(text)) return { body: text, isBase64Encoded: false };
  }
  return { body: bytes.toString('base64'), isBase64Encoded: true };
}

function success({ status, headers, body }) {
  const joined = {};
  const all = {};
  for (const [name, values] of headers) {
    put(joined, name, values.join(', '));
    put(all, name, values);
  }
  return { ok: true, statusCode: status, headers: joined, multiValueHeaders: all, ...bodyOf(body) };
}

function stackOf(thrown) {
  try {
    return thrown instanceof Error ? hide(log.stackText(thrown)).slice(0, MAX_STACK_CHARS) : null;
  } catch {
    return null; // a hostile proxy
  }
}

function failed(failure, thrown) {
  const message = oneLine(hide(failure.message), MAX_MESSAGE_BYTES);
  const stack = stackOf(failure === thrown ? failure.cause : thrown);
  return { ok: false, error: { type: failure.kind, message, stack }, statusCode: failure.status };
}

/** The most memory that this process has had at one time, in MiB; null where nobody tells. */
function peakMemory() {
  try {
    const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(fs.readFileSync('/proc/self/status', 'latin1'));
    return Math.ceil(Number(kib) / 1024);
  } catch {
    return null;
  }
}

const rounded = (ms) => Math.round(ms * 1000) / 1000;

/** The answer to `POST /invoke` with this body, which came at `arrived`. */
async function once(settings, body, arrived, res) {
  const { event, request } = read(body, settings, arrived);
  const basket = new Basket(res);
  log.start(request.requestId);
  let report;
  let begun = null;
  try {
    const handler = await ready(settings);
    begun = now();
    let answer = await answerTo(handler, complete(event, request, settings), settings, request, basket);
    if (answer.sent) {
      if (!answer.whole) return answer; // nobody waits for it
      answer = { ...basket.answer, body: Buffer.concat(basket.pieces) };
    }
    report = success(answer);
  } catch (thrown) {
    report = failed(noteFailure(thrown), thrown);
  }
  report.init_ms = rounded(initMs());
  report.duration_ms = begun === null ? 0 : rounded(now() - begun);
  report.max_memory_mb = peakMemory();
  const flushed = log.end();
  if (flushed) await flushed;
  return { status: 200, headers: new Map([['content-type', ['application/json']]]), body: Buffer.from(stringify(report)) };
}

module.exports = { once };
