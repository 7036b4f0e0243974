// Requests beyond the limits: each gets its own answer, and good ones are served right after it.

import { check, group } from 'k6';
import { Counter } from 'k6/metrics';
import { call, code, create, hello, number, patience, remove } from './lib/grid.js';

const vus = number('VUS', 2);
const iterations = number('ITERATIONS', 2);
// As the Grid that is called is set: MAX_FUNCTION_BODY_BYTES. How long its FUNCTION_TIMEOUT_SECONDS are, shows.
const bodyBytes = number('BODY_BYTES', 1048576);

const many = {};
for (let index = 0; index < 120; index += 1) many[`X-Many-${index}`] = 'x';

// `of`: the service that is called.
const cases = [
  { of: 'quick', what: 'a body at the limit', method: 'POST', size: bodyBytes, status: 200 },
  { of: 'quick', what: 'a body over the limit', method: 'POST', size: bodyBytes + 1, status: 413, code: 'body_too_large' },
  { of: 'quick', what: 'a long target', below: `/${'x'.repeat(8192)}`, status: 414, code: 'target_too_long' },
  { of: 'quick', what: 'large headers', headers: { 'X-Large': 'x'.repeat(33000) }, status: 431, code: 'headers_too_large' },
  { of: 'quick', what: 'many headers', headers: many, status: 431, code: 'headers_too_large' },
  { of: 'quick', what: 'another host', host: 'nobody.localhost', status: 404, code: 'not_found' },
  { of: 'none', what: 'another function', status: 404, code: 'not_found' },
  { of: 'quick', what: 'a method that no function gets', method: 'TRACE', status: 405, code: 'method_not_allowed', header: 'Allow' },
  { of: 'slow', what: 'a function that takes too long', status: 504, code: 'timeout' },
];

const refused = new Counter('refused');

export const options = {
  ...patience,
  scenarios: { limits: { executor: 'per-vu-iterations', vus, iterations, maxDuration: '30m' } },
  thresholds: {
    checks: ['rate==1'],
    refused: [`count==${vus * iterations * cases.filter((one) => one.code).length}`],
    'http_req_failed{kind:function}': ['rate==0'],
  },
};

export function setup() {
  const services = create({
    quick: { function_code: hello, max_replicas: 2 },
    slow: { function_code: 'exports.handler = () => new Promise(() => {});', max_replicas: vus },
  });
  services.none = { ...services.quick, path: '/fn/nothing-is-here' };
  return services;
}
export const teardown = ({ quick, slow }) => remove({ quick, slow });

export default function (services) {
  for (const one of cases) {
    group(one.what, () => {
      const answer = call(services[one.of], {
        ...one, body: one.size ? 'x'.repeat(one.size) : null, expected: [one.status], tags: { name: one.what },
      });
      if (one.code && answer.status === one.status) refused.add(1);
      check(answer, {
        [`${one.what}: ${one.status}`]: (a) => a.status === one.status,
        [`${one.what}: ${one.code || 'the function’s answer'}`]: (a) => (one.code ? code(a) === one.code : a.body === 'hello'),
        ...(one.header && { [`${one.what}: ${one.header}`]: (a) => Boolean(a.headers[one.header]) }),
      });
      check(call(services.quick), { 'a good one is served after it': (a) => a.status === 200 && a.body === 'hello' });
    });
  }
}
