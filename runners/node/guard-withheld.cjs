// Why a name was not found: Grid's resolver withholds a name that leads to a denied address, and
// has that address under a name of its own. Elsewhere that name does not exist, and nothing changes.
'use strict';

const { Reflect: { apply } } = globalThis;
const uncurry = (method) => Function.prototype.call.bind(method);
const endsWith = uncurry(String.prototype.endsWith);
const indexOf = uncurry(String.prototype.indexOf);

const NAMES = 'withheld.grid.internal';
const SUFFIX = `.${NAMES}`;
const LONGEST = 253;

/** What to ask for a name that was not found; null when the resolver cannot have withheld it. */
function questionOf(name) {
  const dot = typeof name === 'string' ? indexOf(name, '.') : -1;
  // Neither a single label nor an IPv6 address; an IPv4 address is never "not found".
  if (dot <= 0 || indexOf(name, ':') >= 0) return null;
  const question = endsWith(name, '.') ? `${name}${NAMES}` : `${name}${SUFFIX}`;
  return question.length > LONGEST || endsWith(name, SUFFIX) ? null : question;
}

/**
 * Calls `done` with the denied address that a name was withheld for, else with null. `error` is the
 * error of the name's lookup. It may be one of the user's, whose error must be about the same name:
 * it may have looked up another one, or mean something else.
 */
function whyNotFound(name, error, deniedAmong, done) {
  const own = error && error.code === 'ENOTFOUND' && error.hostname === name;
  const question = own ? questionOf(name) : null;
  if (question === null) {
    done(null);
    return;
  }
  const { lookup } = require('dns');
  const told = (failure, answer) => done(failure ? null : deniedAmong(answer));
  apply(lookup, undefined, [question, { __proto__: null, all: true }, told]);
}

module.exports = { whyNotFound };
