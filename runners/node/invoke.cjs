// One function request from event to answer: markers, loading, the call, failures.
'use strict';

const log = require('./log.cjs');
const { Failure, fromThrown, oneLine } = require('./failure.cjs');
const { load } = require('./loader.cjs');
const { makeContext } = require('./context.cjs');
const { gridEvent } = require('./event.cjs');
const { streamHead, toAnswer } = require('./result.cjs');

// User code may replace what it finds in the global object.
const { stringify } = JSON;

/** The mark of AWS on handlers that have gone through `awslambda.streamifyResponse`. */
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');

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

/** A handler for AWS Lambda's response streaming: it has begun when this returns. */
function callStreaming(handler, event, context, settings) {
  const source = require('./lambda-stream.cjs').begin(handler, event, context);
  const head = (piece) => streamHead(piece, settings.lambda);
  return { status: 200, headers: new Map(), body: Buffer.alloc(0), stream: source, source, head };
}

/** The answer to a request. Of one that is `sent` already only the end is missing, or its being cut off. */
async function invoke(settings, request, outlet) {
  log.start(request.requestId);
  let answer;
  try {
    const handler = await ready(settings);
    const event = settings.lambda ? require('./lambda.cjs').lambdaEvent(request) : gridEvent(request);
    const context = makeContext(settings, request);
    if (handler.call[STREAMING] === 'response') answer = callStreaming(handler, event, context, settings);
    else {
      const result = await call(handler, event, context);
      failRunning = null;
      answer = toAnswer(result, settings);
    }
    answer.outcome = 'ok';
    if (answer.stream) {
      const onInterrupt = (interrupt) => { failRunning = interrupt; };
      answer = await require('./stream.cjs').stream(answer, { settings, request, outlet, onInterrupt });
    }
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
