// Functions that sleep, each woken by one call, again and again. Each VU has a function of its own.
// Falling asleep takes GRID_IDLE_SECONDS of the Grid that is measured: start it with 1 or 2 for this.

import { check } from 'k6';
import exec from 'k6/execution';
import { Counter, Trend } from 'k6/metrics';
import { asleep, call, create, hello, number, patience, remove, timing } from './lib/grid.js';

const vus = number('VUS', 2);
const iterations = number('ITERATIONS', 5);
const most = number('ASLEEP_WITHIN_SECONDS', 60);

const answered = new Trend('cold_answer', true);
const woken = new Trend('cold_wake', true);
const starts = new Counter('cold_starts');

export const options = {
  ...patience,
  scenarios: { cold: { executor: 'per-vu-iterations', vus, iterations, maxDuration: '1h' } },
  thresholds: {
    checks: ['rate==1'],
    'http_req_failed{kind:function}': ['rate==0'],
    cold_answer: [`p(95)<${number('P95_MS', 2000)}`],
    cold_starts: [`count>=${vus * iterations}`],
  },
};

export function setup() {
  const wanted = {};
  for (let index = 0; index < vus; index += 1) {
    const runtime = index % 2 ? 'python3.9' : 'node18';
    const code = index % 2 ? 'def handler(event, context):\n    return {"statusCode": 200, "body": "hello"}' : hello;
    wanted[`cold${index}`] = { function_runtime: runtime, function_code: code, min_replicas: 0 };
  }
  return create(wanted);
}
export const teardown = remove;

export default function (services) {
  const service = services[`cold${(exec.vu.idInTest - 1) % vus}`];
  asleep(service, most);
  const answer = call(service);
  const wake = timing(answer, 'wake');
  answered.add(answer.timings.duration);
  woken.add(wake);
  if (wake > 0) starts.add(1);
  check(answer, {
    'is 200': (a) => a.status === 200,
    'is the function’s': (a) => a.body === 'hello',
    'had to wake one': () => wake > 0,
  });
}
