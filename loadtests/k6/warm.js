// One function that is awake, called as fast as the VUs can.

import { check } from 'k6';
import { call, create, hello, number, patience, remove, settings } from './lib/grid.js';

export const options = {
  ...patience,
  scenarios: { warm: { executor: 'constant-vus', vus: settings.vus, duration: settings.duration } },
  thresholds: {
    checks: ['rate==1'],
    'http_req_failed{kind:function}': ['rate==0'],
    'http_req_duration{kind:function}': [`p(95)<${number('P95_MS', 250)}`],
    'http_reqs{kind:function}': [`count>=${settings.vus}`],
  },
};

export const setup = () => create({ warm: { function_code: __ENV.CODE || hello } });
export const teardown = remove;

export default function (services) {
  const answer = call(services.warm);
  check(answer, {
    'is 200': (a) => a.status === 200,
    'is the function’s': (a) => a.body === 'hello',
    'has a request id': (a) => Boolean(a.headers['X-Request-Id']),
  });
}
