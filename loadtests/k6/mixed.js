// Everything at once, as on a platform in use: calls of several kinds, failing functions, and deployments meanwhile.

import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';
import { admin, call, code, create, number, patience, remove, settings } from './lib/grid.js';

const share = (part) => Math.max(1, Math.round(settings.vus * part));
const load = (run, vus) => ({ executor: 'constant-vus', exec: run, vus, duration: settings.duration, gracefulStop: '60s' });
const answers = (version) => `exports.handler = async () => ({ statusCode: 200, body: "version ${version}" });`;
const order = JSON.stringify({ order: 7, text: 'x'.repeat(1000) });

const deployed = new Counter('deployed');

export const options = {
  ...patience,
  scenarios: {
    read: load('read', share(0.4)),
    write: load('write', share(0.2)),
    wait: load('wait', share(0.2)),
    fail: load('failing', share(0.2)),
    deploy: load('deploy', 1),
  },
  thresholds: {
    checks: ['rate==1'],
    'http_req_failed{kind:function}': ['rate==0'],
    'http_req_duration{name:read}': [`p(95)<${number('P95_MS', 1000)}`],
    'http_req_duration{name:write}': [`p(95)<${number('P95_MS', 1000)}`],
    'http_req_duration{name:wait}': [`p(95)<${number('WAIT_P95_MS', 5000)}`],
    ...Object.fromEntries(['read', 'write', 'wait', 'fail'].map((kind) => [`http_reqs{name:${kind}}`, ['count>0']])),
    deployed: ['count>0'],
  },
};

export const setup = () =>
  create({
    read: { function_code: answers(0), max_replicas: 2 },
    write: {
      function_runtime: 'python3.9',
      function_code: 'def handler(event, context):\n    return {"statusCode": 201, "body": {"got": len(event["body"]["text"])}}',
    },
    // Sleeps at first, and needs several replicas.
    wait: {
      function_code: 'exports.handler = () => new Promise((done) => setTimeout(done, 100, { statusCode: 200, body: "waited" }));',
      min_replicas: 0,
      max_replicas: 3,
    },
    fail: { function_code: 'exports.handler = async () => { throw new Error("a secret of the function"); };' },
  });
export const teardown = remove;

export function read(services) {
  const answer = call(services.read);
  check(answer, { 'read: a version, whole': (a) => a.status === 200 && /^version \d+$/.test(a.body) });
}

export function write(services) {
  const answer = call(services.write, {
    method: 'POST', body: order, headers: { 'Content-Type': 'application/json' }, expected: [201],
  });
  check(answer, { 'write: the body arrived': (a) => a.status === 201 && a.json('got') === 1000 });
}

export function wait(services) {
  const answer = call(services.wait);
  check(answer, { 'wait: waited': (a) => a.status === 200 && a.body === 'waited' });
}

export function failing(services) {
  const answer = call(services.fail, { expected: [502] });
  check(answer, {
    'fail: 502 function_error': (a) => a.status === 502 && code(a) === 'function_error',
    'fail: tells nothing': (a) => !String(a.body).includes('secret'),
  });
  sleep(0.1);
}

let version = 0;
export function deploy(services) {
  version += 1;
  admin('PATCH', `services/${services.read.id}/`, { function_code: answers(version) });
  const wanted = `version ${version}`;
  const end = Date.now() + 60000;
  while (call(services.read).body !== wanted && Date.now() < end) sleep(0.1);
  const after = [1, 2, 3].map(() => call(services.read).body);
  if (check(after, { 'deploy: the new version, and nothing older after it': (all) => all.every((body) => body === wanted) })) {
    deployed.add(1);
  }
  sleep(1);
}
