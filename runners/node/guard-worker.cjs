// Brings the egress guard into worker threads: each has fresh bindings, so each loads the guard
// before its own code. Loading `worker_threads` costs more than the whole guard; so it is patched
// when it is first asked for.
'use strict';

const Module = require('module');

const { syncBuiltinESMExports } = Module;
const { Proxy, Reflect: { apply, construct, defineProperty }, Array: { isArray } } = globalThis;
const GUARD = require.resolve('./guard.cjs');

let patched = false;

/** The options of a Worker, with the guard loaded before anything else that they load. */
function withGuard(options) {
  const given = options.execArgv;
  // Node's own complaint about what is not an array.
  if (given !== undefined && given !== null && !isArray(given)) return options;
  const execArgv = ['--require', GUARD];
  for (let i = 0; given && i < given.length; i += 1) {
    defineProperty(execArgv, i + 2, { __proto__: null, value: given[i], writable: true, enumerable: true, configurable: true });
  }
  return { __proto__: options, execArgv };
}

/** Replaces `Worker` for `require` and for `import`. */
function guardWorkers() {
  if (patched) return;
  patched = true;
  const threads = require('worker_threads');
  const { Worker } = threads;
  const Guarded = new Proxy(Worker, {
    __proto__: null,
    construct(target, args, newTarget) {
      // Only these two: a third one is internal to Node.
      const options = args[1] === undefined ? {} : args[1];
      const usable = typeof options === 'object' && options !== null;
      return construct(target, [args[0], usable ? withGuard(options) : options], newTarget);
    },
  });
  // From here on the class itself can only be reached through the guarded one.
  defineProperty(Worker.prototype, 'constructor', { __proto__: null, value: Guarded, writable: false });
  defineProperty(threads, 'Worker', { __proto__: null, value: Guarded, writable: false });
  syncBuiltinESMExports();
}

/** Patches `worker_threads` when `require` first loads it. */
function watchWorkers() {
  const load = Module._load;
  Module._load = function _load(request, parent, isMain) {
    const name = typeof request === 'string' ? request : `${request}`;
    if (name === 'worker_threads' || name === 'node:worker_threads') guardWorkers();
    return apply(load, this, [name, parent, isMain]);
  };
}

/** Patches `worker_threads` at once for code that may load it without `require`. */
function guardWorkersOf(code) {
  if (/\b(?:import|getBuiltinModule)\b/.test(code)) guardWorkers();
}

module.exports = { guardWorkersOf, watchWorkers };
