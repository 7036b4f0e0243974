// The egress guard: loading this file makes every connection of this thread go through the policy.
//
// The check stands in the bindings, beneath everything that Node offers: net, tls, http, https,
// http2, fetch and dgram all connect and send through TCP.prototype and UDP.prototype, and the
// address that is checked there is the text that the kernel gets: no name is resolved after it, so
// redirects, proxies, custom `lookup` functions and changing DNS answers need no rule of their own.
// Above it there are only conveniences, which user code may replace: `net` refuses a name as soon as
// one of its addresses is denied, also when Grid's resolver has withheld it, and `fetch` rejects with
// the guard's error itself.
//
// Left to the kernel (the firewall of the functions' network), because no code in the same process
// can stop it: child processes, native addons, the inspector, code that runs before the guard
// (NODE_OPTIONS), a Worker class got by an `import` that was put together at run time, DNS queries
// to the container's own resolver, and the container's own loopback for all of these. Unix-domain
// sockets are not egress.
'use strict';

const fs = require('fs');
const net = require('net');
const path = require('path');
const { parsePolicy } = require('./guard-policy.cjs');
const { whyNotFound } = require('./guard-withheld.cjs');
const { watchWorkers } = require('./guard-worker.cjs');

const {
  Array: { isArray },
  Error,
  Reflect: { apply, defineProperty, getOwnPropertyDescriptor, ownKeys },
  TypeError,
  WeakSet,
  process,
} = globalThis;
const { Socket, _normalizeArgs: normalizeArgs } = net;
const { destroy } = Socket.prototype;
const uncurry = (method) => Function.prototype.call.bind(method);
const addTo = uncurry(WeakSet.prototype.add);
const isIn = uncurry(WeakSet.prototype.has);

// What libuv answers on Linux.
const UV_EACCES = -13;
const UV_EINVAL = -22;

// ---- the error ------------------------------------------------------------------------

const errors = new WeakSet();

function set(target, name, value) {
  defineProperty(target, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
}

function blocked(address, port, hostname) {
  const error = new Error(`SSRF guard blocked outbound request to ${address}`);
  set(error, 'code', 'SSRF_BLOCKED');
  set(error, 'statusCode', 452);
  set(error, 'address', address);
  if (typeof port === 'number' || typeof port === 'string') set(error, 'port', +port);
  if (typeof hostname === 'string') set(error, 'hostname', hostname);
  addTo(errors, error);
  return error;
}

// ---- the policy -----------------------------------------------------------------------

/** In an image Grid puts the list beside the runner; in the repository it has a place of its own. */
function readList() {
  try {
    return fs.readFileSync(path.join(__dirname, 'egress.txt'), 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return fs.readFileSync(path.join(__dirname, '..', 'egress', 'ranges.txt'), 'utf8');
  }
}

function readPolicy() {
  try {
    return parsePolicy(readList());
  } catch (error) {
    throw new Error(`cannot read the list of denied addresses: ${error.message}`);
  }
}

const judge = readPolicy();

/** The address to name when this one is denied, else null; what is no address is Node's matter. */
function denied(address) {
  const verdict = typeof address === 'string' ? judge(address) : null;
  return verdict === null || verdict.allowed ? null : verdict.address;
}

/** The first denied address of an answer of `lookup`: one address, or an array of `{address}`. */
function deniedAmong(answer) {
  if (!isArray(answer)) return denied(answer);
  for (let i = 0; i < answer.length; i += 1) {
    const found = answer[i] ? denied(answer[i].address) : null;
    if (found !== null) return found;
  }
  return null;
}

// ---- the bindings ---------------------------------------------------------------------

function binding(name) {
  // With --pending-deprecation the call would warn about what the user did not do.
  const before = getOwnPropertyDescriptor(process, 'noDeprecation');
  // Defined, not assigned: with --no-deprecation it cannot be written to.
  set(process, 'noDeprecation', true);
  try {
    return process.binding(name);
  } finally {
    if (before) defineProperty(process, 'noDeprecation', before);
    else delete process.noDeprecation;
  }
}

/**
 * Puts `make(native)` in the place of a native method for good. The property is an accessor, so that
 * instances can still have a method of their own under its name, as dgram's udp6 handles do.
 */
function replace(prototype, name, make) {
  const native = prototype[name];
  if (typeof native !== 'function') throw new Error(`this version of Node has no method "${name}" to guard`);
  const guarded = make(native);
  defineProperty(prototype, name, {
    __proto__: null,
    get() { return guarded; },
    set(value) {
      if (this === prototype) throw new TypeError(`Cannot replace "${name}": it is guarded`);
      set(this, name, value);
    },
    enumerable: false,
    configurable: false,
  });
}

/** The net.Socket of a handle; Node keeps it under a symbol that it does not give away. */
function socketOf(handle) {
  const keys = ownKeys(handle);
  for (let i = 0; i < keys.length; i += 1) {
    if (typeof keys[i] === 'symbol' && handle[keys[i]] instanceof Socket) return handle[keys[i]];
  }
  return null;
}

function guardTcp({ TCP }) {
  const make = (native) => function connect(request, address, port) {
    // Only once: what is an object may have another text the next time.
    const text = `${address}`;
    const verdict = judge(text);
    if (verdict === null) return UV_EINVAL;
    if (verdict.allowed) return apply(native, this, [request, text, port]);
    const socket = socketOf(this);
    if (socket === null) return UV_EACCES;
    apply(destroy, socket, [blocked(verdict.address, port, socket._host)]);
    return 0;
  };
  replace(TCP.prototype, 'connect', make);
  replace(TCP.prototype, 'connect6', make);
}

/**
 * dgram resolves through `handle.lookup`, an own property; this is where its errors can be our own.
 * It resolves the address to bind to as well; a handle with an address of its own is past that.
 */
function checkedLookup(lookup, nameOf) {
  return function checked(name, callback) {
    const egress = nameOf(this, { __proto__: null }) === 0;
    return apply(lookup, this, [name, (error, address, family) => {
      const answer = (found) => {
        const failure = found === null ? error : blocked(found, undefined, name === found ? undefined : name);
        apply(callback, undefined, [failure, address, family]);
      };
      if (error && egress) whyNotFound(name, error, deniedAmong, answer);
      else answer(error || !egress ? null : denied(address));
    }]);
  };
}

function guardUdp({ UDP }) {
  const judged = (address, go) => {
    const text = `${address}`;
    const verdict = judge(text);
    if (verdict === null) return UV_EINVAL;
    return verdict.allowed ? go(text) : UV_EACCES;
  };
  const makeSend = (native) => function send(request, list, count, port, address, hasCallback) {
    // With four arguments it sends to where it is connected.
    if (arguments.length !== 6) return apply(native, this, arguments);
    return judged(address, (text) => apply(native, this, [request, list, count, port, text, hasCallback]));
  };
  const makeConnect = (native) => function connect(address, port) {
    return judged(address, (text) => apply(native, this, [text, port]));
  };
  replace(UDP.prototype, 'send', makeSend);
  replace(UDP.prototype, 'send6', makeSend);
  replace(UDP.prototype, 'connect', makeConnect);
  replace(UDP.prototype, 'connect6', makeConnect);
  const nameOf = uncurry(UDP.prototype.getsockname);
  defineProperty(UDP.prototype, 'lookup', {
    __proto__: null,
    get() { return undefined; },
    set(value) { set(this, 'lookup', typeof value === 'function' ? checkedLookup(value, nameOf) : value); },
    enumerable: false,
    configurable: false,
  });
}

/** c-ares has sockets of its own. The container's own DNS servers may be set again. */
function guardResolver({ ChannelWrap }) {
  const ownServers = uncurry(ChannelWrap.prototype.getServers);
  function isOwn(address, port) {
    const servers = ownServers(new ChannelWrap(-1, 4));
    for (let i = 0; i < servers.length; i += 1) {
      if (servers[i][0] === address && (servers[i][1] || 53) === port) return true;
    }
    return false;
  }
  replace(ChannelWrap.prototype, 'setServers', (native) => function setServers(servers) {
    if (!isArray(servers)) return apply(native, this, [servers]);
    const copy = [];
    for (let i = 0; i < servers.length; i += 1) {
      const family = servers[i][0];
      const text = `${servers[i][1]}`;
      const port = +servers[i][2];
      const found = denied(text);
      if (found !== null && !isOwn(text, port)) throw blocked(found, port);
      set(copy, i, [family, text, port]);
    }
    return apply(native, this, [copy]);
  });
}

// ---- above the bindings ---------------------------------------------------------------

/** Resolves once, with every address; refuses the name when one of them is denied. */
function lookupOf(options) {
  const own = options.lookup;
  return function lookup(host, wanted, callback) {
    const refuse = (found) => apply(callback, undefined, [blocked(found, options.port, host)]);
    const answered = (error, answer, family) => {
      const found = error ? null : deniedAmong(answer);
      if (found !== null) refuse(found);
      else if (!error && isArray(answer) && !wanted.all && answer.length > 0) {
        apply(callback, undefined, [null, answer[0].address, answer[0].family]);
      } else apply(callback, undefined, [error, answer, family]);
    };
    const explained = (error, answer, family) => {
      if (!error) answered(error, answer, family);
      else whyNotFound(host, error, deniedAmong, (found) => (found === null ? answered(error, answer, family) : refuse(found)));
    };
    if (typeof own === 'function') apply(own, options, [host, wanted, explained]);
    else require('dns').lookup(host, { __proto__: wanted, all: true }, explained);
  };
}

function guardNames() {
  const { connect } = Socket.prototype;
  const normalized = ownKeys(normalizeArgs([])).find((key) => typeof key === 'symbol');
  Socket.prototype.connect = function guardedConnect(...args) {
    const given = isArray(args[0]) && args[0][normalized] ? args[0] : normalizeArgs(args);
    const options = given[0];
    const { host, lookup } = options;
    const literal = typeof host === 'string' && judge(host) !== null;
    // A `lookup` that is no function gets Node's own complaint.
    const usable = lookup === undefined || lookup === null || typeof lookup === 'function';
    if (options.path || literal || !usable) return apply(connect, this, [given]);
    const checked = { __proto__: options, lookup: lookupOf(options) };
    return apply(connect, this, [normalizeArgs([checked, given[1]])]);
  };
}

/** The guard's error in a chain of causes. */
function ownError(thrown) {
  for (let depth = 0; depth < 5 && typeof thrown === 'object' && thrown !== null; depth += 1) {
    if (isIn(errors, thrown)) return thrown;
    thrown = thrown.cause;
  }
  return null;
}

function guardFetch() {
  const property = getOwnPropertyDescriptor(globalThis, 'fetch');
  if (!property || typeof property.value !== 'function') return;
  const native = property.value;
  const { fetch } = {
    async fetch(input, init = undefined) {
      try {
        return await native(input, init);
      } catch (error) {
        throw ownError(error) || error;
      }
    },
  };
  defineProperty(globalThis, 'fetch', { ...property, value: fetch });
}

// A second load, by user code that cleared `require.cache`, finds everything done.
const { TCP } = binding('tcp_wrap');
if (getOwnPropertyDescriptor(TCP.prototype, 'connect').configurable) {
  guardTcp({ TCP });
  guardUdp(binding('udp_wrap'));
  guardResolver(binding('cares_wrap'));
  guardNames();
  guardFetch();
  watchWorkers();
}
