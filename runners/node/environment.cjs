// What the edge hands over before the module is loaded: environment variables, and which of them
// are secrets. Loaded when there are some.
'use strict';

const { Failure } = require('./failure.cjs');
const { remember } = require('./secrets.cjs');

// User code may replace what it finds in the global object.
const { JSON: { parse }, process } = globalThis;

/** Holds 64 KiB of which JSON writes each byte with six. */
const MAX_BYTES = 524288;
const NAME = /^[^=\0]+$/;

function invalid(message) {
  return new Failure('invalid_request', message, 400);
}

function isObject(value) {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

function read(body) {
  if (body.length > MAX_BYTES) throw new Failure('invalid_request', `${MAX_BYTES} bytes are allowed`, 413);
  let given;
  try {
    given = parse(body.toString());
  } catch (error) {
    throw invalid(`not JSON: ${error.message}`);
  }
  if (!isObject(given)) throw invalid('not an object');
  const { env = {}, secrets = [] } = given;
  if (!isObject(env)) throw invalid('env is not an object');
  for (const [name, value] of Object.entries(env)) {
    if (!NAME.test(name)) throw invalid('a name in env cannot be one of a variable');
    if (typeof value !== 'string' || value.includes('\0')) throw invalid(`env.${name} cannot be the value of a variable`);
  }
  if (!Array.isArray(secrets)) throw invalid('secrets is not an array');
  return { env, secrets };
}

/** Sets the variables of a body of `POST /ready`, once it is known that nothing has been loaded. */
function set({ env, secrets }) {
  const own = (name) => Object.prototype.hasOwnProperty.call(env, name);
  remember(secrets.filter((name) => typeof name === 'string' && own(name)).map((name) => env[name]));
  for (const [name, value] of Object.entries(env)) {
    // What the runner goes by is not the function's to change.
    if (!name.startsWith('GRID_')) process.env[name] = value;
  }
}

module.exports = { MAX_BYTES, read, set };
