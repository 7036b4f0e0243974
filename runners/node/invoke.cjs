// One function request from event to answer: markers, loading, the call, failures.
'use strict';

const log = require('./log.cjs');
const { Failure, fromThrown, oneLine } = require('./failure.cjs');
const { load } = require('./loader.cjs');
const { makeContext, now } = require('./context.cjs');
const { gridEvent } = require('./event.cjs');
const { streamHead, toAnswer } = require('./result.cjs');
const { hide } = require('./secrets.cjs');

// User code may replace what it finds in the global object.
const { stringify } = JSON;

/** The mark of AWS on handlers that have gone through `awslambda.streamifyResponse`. */
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');

let loading = null;
let loadingMs = 0;
let failRunning = null;

/** Sets what the edge hands over; once the module is loaded it is what it is. */
function prepare(environment) {
  if (!loading) require('./environment.cjs').set(environment);
}

/** Loads once; later calls get the same handler or the same failure. */
function ready(settings) {
  if (!loading) {
    const begun = now();
    loading = load(settings.functionDir, settings.handler, log.stack);
    loading.catch(() => {}).then(() => { loadingMs = now() - begun; });
  }
  return loading;
}

/** How long the module took to load, in milliseconds. */
function initMs() {
  return loadingMs;
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

/** What a thrown value is to the caller. It is in the log then. */
function noteFailure(thrown) {
  failRunning = null;
  const failure = fromThrown(thrown);
  if (failure === thrown) log.note(`${failure.kind}: ${failure.message}`);
  else log.stack(thrown);
  return failure;
}

function failed(failure) {
  const body = Buffer.from(stringify({ error: failure.kind, message: oneLine(hide(failure.message)) }));
  return { status: failure.status, outcome: 'error', headers: new Map([['content-type', ['application/json']]]), body };
}

/** A handler for AWS Lambda's response streaming: it has begun when this returns. */
function callStreaming(handler, event, context, settings) {
  const source = require('./lambda-stream.cjs').begin(handler, event, context);
  const head = (piece) => streamHead(piece, settings.lambda);
  return { status: 200, headers: new Map(), body: Buffer.alloc(0), stream: source, source, head };
}

/** What the handler answers to an event. Of what is `sent` already only the end is missing, or its being cut off. */
async function answerTo(handler, event, settings, request, outlet) {
  const context = makeContext(settings, request);
  let answer;
  if (handler.call[STREAMING] === 'response') answer = callStreaming(handler, event, context, settings);
  else {
    const result = await call(handler, event, context);
    failRunning = null;
    answer = toAnswer(result, settings);
  }
  answer.outcome = 'ok';
  if (!answer.stream) return answer;
  const onInterrupt = (interrupt) => { failRunning = interrupt; };
  return require('./stream.cjs').stream(answer, { settings, request, outlet, onInterrupt });
}

/** The answer to a request; see `answerTo`. */
async function invoke(settings, request, outlet) {
  log.start(request.requestId);
  let answer;
  try {
    const handler = await ready(settings);
    const event = settings.lambda ? require('./lambda.cjs').lambdaEvent(request) : gridEvent(request);
    answer = await answerTo(handler, event, settings, request, outlet);
  } catch (thrown) {
    answer = failed(noteFailure(thrown));
  }
  const flushed = log.end();
  if (flushed) await flushed;
  return answer;
}

module.exports = { answerTo, initMs, invoke, noteFailure, prepare, ready, uncaught };
