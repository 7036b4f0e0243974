// One function request from event to answer: markers, loading, the call, failures.
'use strict';

const log = require('./log.cjs');
const { Failure, fromThrown, oneLine } = require('./failure.cjs');
const { load } = require('./loader.cjs');
const { makeContext } = require('./context.cjs');
const { gridEvent } = require('./event.cjs');
const { toAnswer } = require('./result.cjs');

// User code may replace what it finds in the global object.
const { stringify } = JSON;

let loading = null;
let failRunning = null;

/** Loads once; later calls get the same handler or the same failure. */
function ready(settings) {
  if (!loading) {
    loading = load(settings.functionDir, settings.handler, log.stack);
    loading.catch(() => {});
  }
  return loading;
}

/** An error that nobody caught: it is logged, and it ends the running request. */
function uncaught(thrown) {
  if (failRunning) failRunning(thrown);
  else log.stack(thrown);
}

/** A returned promise and the callback race: whichever settles first wins. */
function call({ owner, call: handler }, event, context) {
  return new Promise((resolve, reject) => {
    failRunning = reject;
    const callback = (error, result) => {
      if (error === undefined || error === null) resolve(result);
      else reject(error);
    };
    const returned = handler.call(owner, event, context, callback);
    if (returned !== null && typeof returned === 'object' && typeof returned.then === 'function') {
      Promise.resolve(returned).then(resolve, reject);
    } else if (returned !== undefined || handler.length < 3) resolve(returned);
  });
}

function failed(failure) {
  const body = Buffer.from(stringify({ error: failure.kind, message: oneLine(failure.message) }));
  return { status: failure.status, outcome: 'error', headers: new Map([['content-type', ['application/json']]]), body };
}

async function invoke(settings, request) {
  log.start(request.requestId);
  let answer;
  try {
    const handler = await ready(settings);
    const event = settings.lambda ? require('./lambda.cjs').lambdaEvent(request) : gridEvent(request);
    const result = await call(handler, event, makeContext(settings, request));
    failRunning = null;
    answer = toAnswer(result, settings);
    answer.outcome = 'ok';
  } catch (thrown) {
    failRunning = null;
    const failure = fromThrown(thrown);
    if (failure === thrown) log.note(`${failure.kind}: ${failure.message}`);
    else log.stack(thrown);
    answer = failed(failure);
  }
  const flushed = log.end();
  if (flushed) await flushed;
  return answer;
}

module.exports = { invoke, ready, uncaught };
