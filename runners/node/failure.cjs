// Failures of a function and how they are worded: one line, bounded, without the stack.
'use strict';

const { inspect } = require('util');

/** A failure that has one of the protocol's kinds. */
class Failure extends Error {
  constructor(kind, message, status = 502) {
    super(message);
    this.kind = kind;
    this.status = status;
  }
}

function oneLine(text, limit = 1024) {
  const line = text.replace(/[\x00-\x1f\x7f\u2028\u2029]+/g, ' ').trim();
  const bytes = Buffer.from(line);
  if (bytes.length <= limit) return line;
  return `${bytes.subarray(0, limit - 3).toString().replace(/\uFFFD+$/, '')}…`;
}

function show(value) {
  try {
    return inspect(value, { depth: 1, breakLength: Infinity });
  } catch {
    return 'a value that cannot be shown';
  }
}

/** What was thrown, for a person. */
function describe(thrown) {
  try {
    if (thrown instanceof Error || (thrown !== null && typeof thrown === 'object' && typeof thrown.message === 'string')) {
      const name = typeof thrown.name === 'string' && thrown.name ? thrown.name : 'Error';
      return thrown.message ? `${name}: ${thrown.message}` : name;
    }
    if (typeof thrown === 'string' && thrown) return thrown;
  } catch {
    // a hostile getter
  }
  return `threw ${show(thrown)}, not an error`;
}

/** The SSRF guard's error, also when it is the cause of another one, or one of several (AggregateError). */
function guardError(thrown, depth = 0) {
  if (depth === 5 || thrown === null || typeof thrown !== 'object') return null;
  if (thrown.code === 'SSRF_BLOCKED') return thrown;
  for (const inner of Array.isArray(thrown.errors) ? thrown.errors.slice(0, 10) : []) {
    const found = guardError(inner, depth + 1);
    if (found) return found;
  }
  return guardError(thrown.cause, depth + 1);
}

/** The failure for a value that escaped the handler. */
function fromThrown(thrown) {
  try {
    if (thrown instanceof Failure) return thrown;
    const guard = guardError(thrown);
    if (guard) return new Failure('ssrf_blocked', String(guard.message), 452);
  } catch {
    // a hostile getter
  }
  return new Failure('handler_error', describe(thrown));
}

module.exports = { Failure, describe, fromThrown, oneLine, show };
