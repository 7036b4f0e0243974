// What the scenarios share: the settings, services of their own, and calls to them.

import { sleep } from 'k6';
import http from 'k6/http';

const text = (name, fallback) => __ENV[name] || fallback;
export const number = (name, fallback) => {
  const value = Number(text(name, fallback));
  if (!(value > 0)) throw new Error(`${name} is ${__ENV[name]}: it must be a number above 0`);
  return value;
};

export const settings = {
  base: text('BASE_URL', 'http://127.0.0.1:8080').replace(/\/$/, ''),
  admin: text('ADMIN_URL', 'http://127.0.0.1:8000').replace(/\/$/, ''),
  token: text('SMSLY_TOKEN', ''),
  duration: text('DURATION', '30s'),
  vus: number('VUS', 8),
};

/** For `options`: services are built, and may have to fall asleep. */
export const patience = { setupTimeout: '300s', teardownTimeout: '120s' };

/** The seconds of `90s`, `5m` or `1h30m`. */
export function seconds(duration) {
  const units = { h: 3600, m: 60, s: 1, ms: 0.001 };
  const parts = [...duration.matchAll(/([\d.]+)(ms|h|m|s)/g)];
  if (parts.map((part) => part[0]).join('') !== duration || !parts.length) throw new Error(`no duration: ${duration}`);
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit], 0);
}

export function admin(method, path, body = null) {
  const answer = http.request(method, `${settings.admin}/api/v1/${path}`, body && JSON.stringify(body), {
    headers: { Authorization: `Token ${settings.token}`, 'Content-Type': 'application/json' },
    tags: { kind: 'admin', name: `${method} ${path.split('/')[0]}` },
  });
  if (answer.status < 200 || answer.status > 299) {
    throw new Error(`${method} ${path}: ${answer.status} ${answer.error} ${answer.body}`);
  }
  return answer.body ? answer.json() : null;
}

/** Makes services and waits until they are live; makes none when one of them fails. `wanted`: fields by a short name. */
export function create(wanted) {
  const made = {};
  try {
    const run = Date.now().toString(36);
    for (const [name, fields] of Object.entries(wanted)) {
      const record = admin('POST', 'services/', {
        name: `k6-${name}-${run}`,
        deploy_type: 'FUNCTION',
        function_runtime: 'node18',
        min_replicas: 1,
        max_replicas: 1,
        ...fields,
      });
      made[name] = { id: record.id, host: record.public_domain, path: `/fn/${record.function_name}`, name };
    }
    for (const service of Object.values(made)) live(service);
    return made;
  } catch (error) {
    remove(made);
    throw error;
  }
}

export function remove(services) {
  for (const service of Object.values(services)) admin('DELETE', `services/${service.id}/`);
}

/** Waits for the newest deployment to be live, and to have the replicas that it always has. */
function live(service) {
  until(service, 60, 'live', (record) => {
    if (record.status === 'failed') {
      const { error } = admin('GET', `services/${service.id}/deployments/${record.latest_deployment}/`);
      throw new Error(`${service.name} was not deployed: ${error}`);
    }
    const serves = ['ready', 'idle'];
    const ready = record.replicas.filter((r) => r.deployment === record.latest_deployment && serves.includes(r.state));
    return record.status === 'live' && ready.length >= record.min_replicas;
  });
}

/** Waits until no container of it is left. */
export function asleep(service, most) {
  until(service, most, 'asleep; start Grid with a small GRID_IDLE_SECONDS', (record) => !record.replicas.length);
}

function until(service, most, what, reached) {
  const end = Date.now() + most * 1000;
  for (;;) {
    const record = admin('GET', `services/${service.id}/`);
    if (reached(record)) return;
    if (Date.now() > end) {
      const seen = JSON.stringify({ status: record.status, problem: record.problem, replicas: record.replicas });
      throw new Error(`${service.name} is not ${what} (after ${most} s): ${seen}`);
    }
    sleep(0.1);
  }
}

/** Calls a function. `below` follows its path; `expected` are the statuses that are no failure. */
export function call(service, { method = 'GET', below = '', body = null, headers = {}, expected = [200], tags = {}, host } = {}) {
  return http.request(method, `${settings.base}${service.path}${below}`, body, {
    headers: { Host: host || service.host, ...headers },
    responseCallback: http.expectedStatuses(...expected),
    tags: { kind: 'function', name: service.name, ...tags },
    timeout: '330s', // a function may take 300
  });
}

/** The `code` of an answer that Grid gives itself. */
export function code(answer) {
  try {
    return answer.json('code');
  } catch (_) {
    return undefined; // no JSON
  }
}

/** Milliseconds of one part of `Server-Timing`. */
export function timing(answer, part) {
  const found = new RegExp(`(?:^|[ ,])${part};dur=([\\d.]+)`).exec(answer.headers['Server-Timing'] || '');
  return found ? Number(found[1]) : 0;
}

export const hello = 'exports.handler = async () => ({ statusCode: 200, body: "hello" });';
