// Turns what the handler returned into an answer, or says which field is wrong and why.
'use strict';

const { Failure, oneLine, show } = require('./failure.cjs');

// User code may replace what it finds in the global object.
const { stringify } = JSON;

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;
const DROPPED = /^(?:connection|content-length|keep-alive|transfer-encoding|upgrade|trailer|te|proxy-.*|x-grid-.*)$/;
const BODILESS = new Set([204, 205, 304]);
const EMPTY = Buffer.alloc(0);

function invalid(message) {
  return new Failure('invalid_result', message);
}

function found(value) {
  return oneLine(show(value), 120);
}

function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function isMissing(value) {
  return value === undefined || value === null;
}

/** Whether a value is a body that comes in pieces: a stream, an async iterable, an iterator. */
function isStream(value) {
  return value !== null && typeof value === 'object' && (
    typeof value[Symbol.asyncIterator] === 'function'
    || typeof value.getReader === 'function'
    || (typeof value.next === 'function' && typeof value[Symbol.iterator] === 'function'));
}

function toJson(value, field) {
  let text;
  try {
    text = stringify(value === undefined ? null : value);
  } catch (error) {
    const reason = error instanceof Error ? String(error.message).split('\n')[0] : found(error);
    throw invalid(`${field} cannot be written as JSON: ${reason}`);
  }
  if (text === undefined) throw invalid(`${field} cannot be written as JSON: it is ${found(value)}`);
  return Buffer.from(text);
}

function headerText(value, field) {
  if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
    throw invalid(`${field} must be text, a number or a boolean, not ${found(value)}`);
  }
  const text = String(value);
  const bad = CONTROL.exec(text);
  if (bad) throw invalid(`${field} must not hold control characters such as ${stringify(bad[0])}`);
  // Node sends Latin-1; text beyond it goes out as the bytes of its UTF-8.
  return /[^\x00-\xff]/.test(text) ? Buffer.from(text).toString('latin1') : text;
}

/** Adds the members of `headers` or `multiValueHeaders` to the map of names to values. */
function addHeaders(into, headers, field, arraysOnly) {
  if (isMissing(headers)) return;
  if (!isObject(headers)) throw invalid(`${field} must be an object, not ${found(headers)}`);
  const own = new Map();
  for (const name of Object.keys(headers)) {
    const value = headers[name];
    if (!NAME.test(name)) throw invalid(`${field}: ${found(name)} is not a valid header name`);
    if (isMissing(value)) continue;
    if (arraysOnly && !Array.isArray(value)) throw invalid(`${field}["${name}"] must be an array, not ${found(value)}`);
    const values = (Array.isArray(value) ? value : [value])
      .filter((one) => !isMissing(one))
      .map((one) => headerText(one, `${field}["${name}"]`));
    const lower = name.toLowerCase();
    if (!DROPPED.test(lower)) own.set(lower, (own.get(lower) || []).concat(values));
  }
  for (const [name, values] of own) into.set(name, values);
}

function addCookies(into, cookies) {
  if (isMissing(cookies)) return;
  if (!Array.isArray(cookies)) throw invalid(`cookies must be an array of text, not ${found(cookies)}`);
  const values = cookies.map((cookie, index) => {
    if (typeof cookie !== 'string') throw invalid(`cookies[${index}] must be text, not ${found(cookie)}`);
    return headerText(cookie, `cookies[${index}]`);
  });
  if (values.length) into.set('set-cookie', (into.get('set-cookie') || []).concat(values));
}

function decodeBase64(body) {
  if (typeof body !== 'string') throw invalid(`body must be base64 text because isBase64Encoded is true, not ${found(body)}`);
  const text = body.replace(/[\r\n]+/g, '');
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) {
    throw invalid('body must be base64 text because isBase64Encoded is true, but it is not valid base64');
  }
  return Buffer.from(text, 'base64');
}

/** `{bytes, type}`: the body and the content type that fits when the response names none; or `{stream}`. */
function encodeBody(result, lambda) {
  const { body } = result;
  const flag = result.isBase64Encoded;
  if (!isMissing(flag) && typeof flag !== 'boolean') throw invalid(`isBase64Encoded must be true or false, not ${found(flag)}`);
  if (isMissing(body)) return { bytes: EMPTY };
  if (isStream(body)) {
    if (flag) throw invalid('isBase64Encoded must not be true for a body that is a stream');
    return { bytes: EMPTY, stream: body };
  }
  if (lambda && typeof body !== 'string') throw invalid(`body must be text in the format lambda-v2, not ${found(body)}`);
  if (flag) return { bytes: decodeBase64(body), type: 'application/octet-stream' };
  if (typeof body === 'string') return { bytes: Buffer.from(body), type: 'text/plain; charset=utf-8' };
  if (ArrayBuffer.isView(body)) {
    return { bytes: Buffer.from(body.buffer, body.byteOffset, body.byteLength), type: 'application/octet-stream' };
  }
  return { bytes: toJson(body, 'body'), type: 'application/json' };
}

function response(result, lambda) {
  const status = result.statusCode;
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    throw invalid(`statusCode must be an integer from 200 to 599, not ${found(status)}`);
  }
  const headers = new Map();
  addHeaders(headers, result.headers, 'headers', false);
  addHeaders(headers, result.multiValueHeaders, 'multiValueHeaders', true);
  addCookies(headers, result.cookies);
  let { bytes, type, stream } = encodeBody(result, lambda);
  const bodiless = BODILESS.has(status);
  if (bodiless) bytes = EMPTY;
  if (bytes.length && !headers.has('content-type')) headers.set('content-type', [type]);
  return { status, headers, body: bytes, stream, bodiless };
}

/** The answer that the first piece of a stream announces; null when that is a piece of the body. */
function streamHead(piece, lambda) {
  if (!isObject(piece) || ArrayBuffer.isView(piece) || !('statusCode' in piece)) return null;
  if (!isMissing(piece.body)) throw invalid('body must be absent in the response that a stream begins with: its other pieces are the body');
  return response(piece, lambda);
}

function ofStream(stream, settings) {
  return { status: 200, headers: new Map(), body: EMPTY, stream, head: (piece) => streamHead(piece, settings.lambda) };
}

function ofJson(value) {
  return { status: 200, headers: new Map([['content-type', ['application/json']]]), body: toJson(value, 'the result') };
}

/**
 * The answer `{status, headers: Map of arrays, body: Buffer}` for a handler's result. With a
 * `stream` the body is still to come from it, and `head` may make an answer of its first piece.
 */
function toAnswer(result, settings) {
  let answer;
  try {
    if (isStream(result)) answer = ofStream(result, settings);
    else if (isObject(result) && 'statusCode' in result) answer = response(result, settings.lambda);
    else answer = ofJson(result);
  } catch (error) {
    if (isObject(result)) require('./stream.cjs').discard(result);
    if (error instanceof Failure) throw error;
    throw invalid(`the result cannot be read: ${error && error.message}`);
  }
  if (answer.body.length > settings.maxResponseBytes) {
    throw new Failure('response_too_large', `the response body has ${answer.body.length} bytes; ${settings.maxResponseBytes} are allowed`);
  }
  return answer;
}

module.exports = { isStream, streamHead, toAnswer };
