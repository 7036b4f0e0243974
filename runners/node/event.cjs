// A request as the handler's first argument, in the format `grid`.
'use strict';

const { isUtf8 } = require('buffer');

// User code may replace what it finds in the global object.
const { Date, JSON: { parse }, URLSearchParams } = globalThis;

const HOP_BY_HOP = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding', 'upgrade',
]);

/** Sets an own member whatever its name is (`__proto__` too). */
function put(object, name, value) {
  if (name === '__proto__') {
    Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
  } else object[name] = value;
}

/** Bytes outside ASCII arrive as Latin-1 characters; in a target they become `%XX`. */
function escapeTarget(target) {
  return target.replace(/[\x80-\xff]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** `{path, query, rest}` of a function's target, or null when it is not one. */
function splitTarget(target) {
  const mark = target.indexOf('?');
  const path = mark < 0 ? target : target.slice(0, mark);
  const match = /^\/fn\/[^/]+(.*)$/s.exec(path);
  if (!match) return null;
  return { path, query: mark < 0 ? '' : target.slice(mark + 1), rest: match[1] || '/' };
}

/** Names with all their values, in the order of arrival. */
function groupHeaders(rawHeaders) {
  const grouped = new Map();
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i].toLowerCase();
    const values = grouped.get(name);
    if (values) values.push(rawHeaders[i + 1]);
    else grouped.set(name, [rawHeaders[i + 1]]);
  }
  return grouped;
}

function isClientHeader(name) {
  return !HOP_BY_HOP.has(name) && !name.startsWith('x-grid-');
}

/** Form-decoded query: a map of name to values, null when it holds no name. */
function parseQuery(query) {
  if (query === '') return null;
  const grouped = new Map();
  // The `&` keeps a leading `?` of the query, which URLSearchParams would drop.
  for (const [name, value] of new URLSearchParams(`&${query}`)) {
    const values = grouped.get(name);
    if (values) values.push(value);
    else grouped.set(name, [value]);
  }
  return grouped.size ? grouped : null;
}

/** `{text, base64}`: the body as text, or as base64 when it is not UTF-8; null when empty. */
function bodyText(bytes) {
  if (bytes.length === 0) return { text: null, base64: false };
  if (isUtf8(bytes)) return { text: bytes.toString('utf8'), base64: false };
  return { text: bytes.toString('base64'), base64: true };
}

function parseBody({ text, base64 }) {
  if (text === null || base64) return text;
  try {
    return parse(text);
  } catch {
    return text;
  }
}

function domainName(headers) {
  const host = headers.get('host');
  return host ? host[0].replace(/:\d*$/, '') : '';
}

function gridEvent(request) {
  const headers = {};
  const multiValueHeaders = {};
  for (const [name, values] of request.headers) {
    if (!isClientHeader(name) || name === 'host' || name === 'content-length') continue;
    put(headers, name, values.join(name === 'cookie' ? '; ' : ', '));
    put(multiValueHeaders, name, values);
  }
  const query = parseQuery(request.query);
  let last = null;
  let all = null;
  if (query) {
    last = {};
    all = {};
    for (const [name, values] of query) {
      put(last, name, values[values.length - 1]);
      put(all, name, values);
    }
  }
  const body = bodyText(request.body);
  return {
    httpMethod: request.method,
    path: request.rest,
    headers,
    multiValueHeaders,
    queryStringParameters: last,
    multiValueQueryStringParameters: all,
    body: parseBody(body),
    rawBody: body.text,
    isBase64Encoded: body.base64,
    requestContext: {
      requestId: request.requestId,
      stage: '$default',
      httpMethod: request.method,
      path: request.path,
      protocol: request.protocol,
      scheme: request.scheme,
      domainName: domainName(request.headers),
      functionName: request.functionName,
      time: new Date(request.time).toISOString(),
      timeEpoch: request.time,
      identity: { sourceIp: request.sourceIp, userAgent: headers['user-agent'] || '' },
    },
  };
}

module.exports = {
  bodyText, domainName, escapeTarget, gridEvent, groupHeaders, isClientHeader, parseQuery, put, splitTarget,
};
