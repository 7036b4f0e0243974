// A steady load for long, in two halves: the second must not be slower or worse than what the thresholds allow.

import { check, sleep } from 'k6';
import http from 'k6/http';
import { call, create, hello, number, patience, remove, seconds, settings } from './lib/grid.js';

const whole = seconds(__ENV.DURATION || '30m');
const half = Math.max(1, Math.round(whole / 2));
const rate = number('RATE', 50); // requests per second
const p99 = `p(99)<${number('P99_MS', 1000)}`;
const steady = (startTime) => ({
  executor: 'constant-arrival-rate',
  rate,
  timeUnit: '1s',
  duration: `${half}s`,
  startTime,
  preAllocatedVUs: settings.vus,
  maxVUs: 10 * settings.vus,
});

export const options = {
  ...patience,
  scenarios: {
    first: steady('0s'),
    second: steady(`${half}s`),
    ready: { executor: 'constant-vus', exec: 'ready', vus: 1, duration: `${2 * half}s` },
  },
  thresholds: {
    checks: ['rate==1'],
    'http_req_failed{kind:function}': [{ threshold: 'rate==0', abortOnFail: true, delayAbortEval: '10s' }],
    'http_req_duration{scenario:first}': [p99],
    'http_req_duration{scenario:second}': [p99],
    'http_reqs{kind:function}': [`count>=${Math.floor(0.95 * rate * 2 * half)}`],
    dropped_iterations: ['count==0'],
  },
};

export const setup = () =>
  create({
    node: { function_code: hello },
    python: {
      function_runtime: 'python3.9',
      function_code: 'def handler(event, context):\n    return {"statusCode": 200, "body": "hello"}',
    },
  });
export const teardown = remove;

export default function (services) {
  const answer = call(Math.random() < 0.5 ? services.node : services.python);
  check(answer, { 'is the function’s': (a) => a.status === 200 && a.body === 'hello' });
}

export function ready() {
  const answer = http.get(`${settings.admin}/readyz`, { tags: { kind: 'admin', name: 'readyz' } });
  check(answer, { 'Grid is ready': (a) => a.status === 200 });
  sleep(Math.min(5, half / 2));
}
