// Loads the function's module once, as CommonJS or as ESM, and finds the handler in it.
'use strict';

const fs = require('fs');
const path = require('path');
const Module = require('module');
const { Failure, describe, oneLine, show } = require('./failure.cjs');
const { guardWorkersOf } = require('./guard-worker.cjs');

const PLACE = Symbol('place');
const ESM_SYNTAX = /^(Cannot use import statement|Unexpected token 'export'|Cannot use 'import\.meta'|await is only valid)/;

function compile(text, file) {
  const module = new Module(file, null);
  module.filename = file;
  module.paths = Module._nodeModulePaths(path.dirname(file));
  Module._cache[file] = module;
  try {
    // The third argument keeps newer versions of Node from guessing ESM themselves.
    module._compile(text, file, 'commonjs');
  } catch (error) {
    delete Module._cache[file];
    throw error;
  }
  module.loaded = true;
  return module.exports;
}

/** The SyntaxError of a text that does not parse as CommonJS, else null. */
function parseError(text, file) {
  try {
    require('vm').compileFunction(text, ['exports', 'require', 'module', '__filename', '__dirname'], { filename: file });
    return null;
  } catch (error) {
    return error;
  }
}

/** Node tells the line of an ESM syntax error only on a terminal: `index.mjs:3` or nothing. */
function placeOfParseError(file) {
  const check = require('child_process').spawnSync(process.execPath, ['--check', file], { env: {}, timeout: 2000 });
  const place = /index\.mjs:\d+/.exec(String(check.stderr));
  return place ? place[0] : '';
}

async function loadEsm(file, commonJsError) {
  try {
    return await import(require('url').pathToFileURL(file).href);
  } catch (error) {
    if (!(error instanceof SyntaxError) || String(error.stack).includes('index.mjs:')) throw error;
    // It parses as neither: tell the error of the kind of module that it was meant to be.
    if (!ESM_SYNTAX.test(commonJsError.message)) throw commonJsError;
    throw Object.assign(error, { [PLACE]: placeOfParseError(file) });
  }
}

/** What AWS Lambda has for handlers that stream; most functions never look at it. */
function provideAwsLambda() {
  const set = (value) => {
    Object.defineProperty(globalThis, 'awslambda', { value, configurable: true, writable: true });
    return value;
  };
  const get = () => set(require('./lambda-stream.cjs').awslambda);
  Object.defineProperty(globalThis, 'awslambda', { get, set, configurable: true });
}

async function loadModule(dir) {
  const file = path.join(dir, 'index.js');
  const text = fs.readFileSync(file, 'utf8').replace(/^\uFEFF/, '').replace(/^#!/, '//');
  guardWorkersOf(text);
  if (/\b(?:import|export|await)\b/.test(text)) {
    const error = parseError(text, file);
    if (error) return loadEsm(path.join(dir, 'index.mjs'), error);
  }
  return compile(text, file);
}

/** The loader's message: what is wrong, and the line when the stack tells it. */
function loadMessage(thrown, dir) {
  let text = describe(thrown);
  let place = '';
  if (thrown instanceof Error) {
    const missing = /^Cannot find (?:module|package) '([^']+)'/.exec(thrown.message);
    if (missing) text = `Cannot find module '${missing[1]}'`;
    const at = /\/(index\.m?js:\d+)/.exec(String(thrown.stack).split(dir).slice(1).join(dir));
    const found = at ? at[1] : thrown[PLACE];
    if (found) place = ` (${found})`;
    if (thrown.code === 'ENOENT' && thrown.path === path.join(dir, 'index.js')) {
      return `The function's code is missing: there is no ${thrown.path}`;
    }
  }
  return oneLine(text, 4000) + place;
}

function pick(owner, name) {
  if (owner === null || (typeof owner !== 'object' && typeof owner !== 'function')) return undefined;
  return owner[name];
}

function isUnnamedHandler(value, name) {
  return typeof value === 'function' && (name === 'handler' || name === 'default' || value.name === name);
}

function findHandler(exports, name) {
  const named = pick(exports, name);
  if (typeof named === 'function' && named !== Function.prototype[name]) return { owner: exports, call: named };
  if (isUnnamedHandler(exports, name)) return { owner: undefined, call: exports };
  const fallback = pick(exports, 'default');
  const inside = pick(fallback, name);
  if (typeof inside === 'function' && inside !== Function.prototype[name]) return { owner: fallback, call: inside };
  if (isUnnamedHandler(fallback, name)) return { owner: undefined, call: fallback };
  if (named !== undefined && typeof named !== 'function') {
    throw new Failure('no_handler', `No handler: the export "${name}" is not a function but ${oneLine(show(named), 200)}`);
  }
  const names = exports !== null && typeof exports === 'object' ? Object.keys(exports) : [];
  const listed = names.slice(0, 10).join(', ') + (names.length > 10 ? ', …' : '');
  throw new Failure('no_handler', `No handler: module exports no function "${name}" (it exports ${listed ? `: ${listed}` : 'nothing'})`.replace('exports :', 'exports:'));
}

/** `setting` is `name` or `module.name`; the answer is `{owner, call}`, else a Failure is thrown. */
async function load(dir, setting, onError) {
  let exports;
  try {
    provideAwsLambda();
    exports = await loadModule(dir);
  } catch (thrown) {
    onError(thrown);
    throw Object.assign(new Failure('load_failed', loadMessage(thrown, dir)), { cause: thrown });
  }
  return findHandler(exports, setting.slice(setting.lastIndexOf('.') + 1));
}

module.exports = { load };
