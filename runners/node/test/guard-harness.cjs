// For tests of the egress guard: a real runner whose handler runs code that it is given.
'use strict';

const assert = require('node:assert/strict');
const os = require('node:os');
const { startRunner } = require('./harness.cjs');

/** Code under test names public addresses too; where packets could leave, it must not run. */
const alone = Object.values(os.networkInterfaces()).flat().every((one) => one.internal);
const guarded = { skip: alone ? false : 'needs a network namespace without a way out (docker run --network none)' };

const CODE = `
const AsyncFunction = (async () => {}).constructor;
const { stringify } = JSON;

/** Rejects with the emitter's error; resolves when it got through. */
const emitted = (emitter) => new Promise((resolve, reject) => {
  emitter.on('error', reject);
  for (const name of ['connect', 'secureConnect', 'response', 'message']) emitter.on(name, () => resolve(name));
});

const describe = (error) => (error === null || typeof error !== 'object' ? { thrown: String(error) } : {
  name: error.constructor.name, message: error.message, code: error.code, statusCode: error.statusCode,
  address: error.address, port: error.port, hostname: error.hostname,
  cause: error.cause ? describe(error.cause) : undefined,
});

exports.handler = async (event) => {
  const work = new AsyncFunction('require', 'module', 'emitted', 'HOST', 'PORT', event.body.code);
  let answer;
  try {
    const value = await work(require, module, emitted, event.body.host, event.body.port);
    answer = { value: value === undefined ? null : value };
  } catch (error) {
    if (event.body.escape) throw error;
    answer = { error: describe(error) };
  }
  return { statusCode: 200, body: stringify(answer) };
};`;

/** A runner; `run(code)` gives the answer to a request in which the handler runs `code`. */
async function startGuarded(t, options) {
  const runner = await startRunner(t, CODE, options);
  runner.ask = (code, more) => runner.wire.ask({ method: 'POST', body: JSON.stringify({ code, ...more }) });
  runner.run = async (code, more) => {
    const answer = await runner.ask(code, more);
    assert.equal(answer.status, 200, answer.text());
    return answer.json();
  };
  return runner;
}

/** The guard's error, in full. */
function assertBlocked({ error, value }, address, more = {}) {
  assert.ok(error, `it went through: ${JSON.stringify(value)}`);
  assert.equal(error.message, `SSRF guard blocked outbound request to ${address}`);
  const { name, code, statusCode } = error;
  assert.deepEqual({ name, code, statusCode, address: error.address }, { name: 'Error', code: 'SSRF_BLOCKED', statusCode: 452, address });
  for (const key of Object.keys(more)) assert.equal(error[key], more[key], key);
}

/** What the kernel says where there is no way out; the second one where it has no IPv6 address to send from. */
const UNREACHABLE = ['ENETUNREACH', 'EADDRNOTAVAIL'];

/** It was let through, and the kernel had no way for it. */
function assertAllowed({ error, value }) {
  assert.ok(error, `it connected: ${JSON.stringify(value)}`);
  assert.ok(UNREACHABLE.includes((error.cause || error).code), JSON.stringify(error));
}

module.exports = { UNREACHABLE, assertAllowed, assertBlocked, guarded, startGuarded };
