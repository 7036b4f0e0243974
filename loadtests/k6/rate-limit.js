// One client that calls faster than it may, over one connection: 429 for what is too much, and nothing else amiss.
// The Grid that is called must have a rate limit; RATE and BURST say which. A limit of the service itself is set by
// SERVICE_FIELDS, JSON that is added to the fields of the service.

import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';
import { call, code, create, hello, number, patience, remove, seconds, settings } from './lib/grid.js';

const rate = number('RATE', 10); // requests per second
const burst = number('BURST', 20);
const most = burst + rate * seconds(settings.duration);

const allowed = new Counter('allowed');
const limited = new Counter('limited');

export const options = {
  ...patience,
  // One VU: one connection, and one address.
  scenarios: { limit: { executor: 'constant-vus', vus: 1, duration: settings.duration } },
  thresholds: {
    checks: ['rate==1'],
    'http_req_failed{kind:function}': ['rate==0'],
    // What is let through is the burst and the rate: no more, beside the last second, and not much less.
    allowed: [`count<=${Math.ceil(most * 1.05 + rate)}`, `count>=${Math.floor(most * 0.7)}`],
    limited: ['count>0'],
  },
};

export const setup = () => create({ limit: { function_code: hello, ...JSON.parse(__ENV.SERVICE_FIELDS || '{}') } });
export const teardown = remove;

// The draft has changed its form: one header with parameters, or three of them.
const told = ({ headers }) => Boolean(headers.Ratelimit || headers['Ratelimit-Limit']);
const pause = ({ headers }) => (/^\d+$/.test(headers['Retry-After']) ? Number(headers['Retry-After']) : NaN);

let first = true;
let reported = false;
export default function (services) {
  const answer = call(services.limit, { expected: [200, 429] });
  const fresh = first;
  first = false;
  if (answer.status !== 429) {
    allowed.add(1);
    check(answer, { 'is the function’s': (a) => a.status === 200 && a.body === 'hello' });
    return;
  }
  limited.add(1);
  check(answer, {
    '429: rate_limited': (a) => code(a) === 'rate_limited',
    '429: is JSON': (a) => /^application\/json/.test(a.headers['Content-Type']),
    '429: Retry-After': (a) => pause(a) >= 1,
    '429: RateLimit': told,
    'on the connection that was there': (a) => fresh || a.timings.connecting === 0,
  });
  if (!reported) {
    reported = true;
    sleep(pause(answer) || 1);
    const after = call(services.limit, { expected: [200, 429] });
    if (after.status === 200) allowed.add(1);
    check(after, {
      'is served after Retry-After': (a) => a.status === 200,
      'on the connection that was there': (a) => a.timings.connecting === 0,
    });
  }
  sleep(0.01); // refusals are cheap: do not fill the disk with them
}
