// The handler's second argument, and the clock that it goes by.
'use strict';

// User code may fake these later.
const { setTimeout, clearTimeout } = globalThis;
const now = () => process.uptime() * 1000;

/** Waits for a promise until a deadline (as `now` counts) at the most; its rejection passes. */
async function atMostUntil(deadline, promise) {
  let timer;
  const late = new Promise((resolve) => { timer = setTimeout(resolve, Math.max(0, deadline - now())); });
  try {
    await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const SNAKE = {
  requestId: 'request_id',
  awsRequestId: 'aws_request_id',
  functionName: 'function_name',
  functionVersion: 'function_version',
  memoryLimitInMB: 'memory_limit_in_mb',
  invokedFunctionArn: 'invoked_function_arn',
  logGroupName: 'log_group_name',
  logStreamName: 'log_stream_name',
  getRemainingTimeInMillis: 'get_remaining_time_in_millis',
};

function makeContext(settings, { requestId, functionName, deadline }) {
  const context = {
    requestId,
    awsRequestId: requestId,
    functionName,
    functionVersion: settings.deployment,
    memoryLimitInMB: settings.memoryMb,
    invokedFunctionArn: `grid:function:${functionName}`,
    logGroupName: functionName,
    logStreamName: settings.deployment,
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, Math.floor(deadline - now())),
  };
  for (const name in SNAKE) context[SNAKE[name]] = context[name];
  return context;
}

module.exports = { atMostUntil, makeContext, now };
