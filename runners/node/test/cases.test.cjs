// Runs every shared contract case that has Node code.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { startRunner, until } = require('./harness.cjs');

const DIR = path.join(__dirname, '..', '..', 'cases');

function at(value, dotted) {
  return dotted.split('.').reduce((inner, key) => (inner === undefined || inner === null ? undefined : inner[key]), value);
}

function assertSubset(actual, expected, place) {
  if (expected !== null && typeof expected === 'object' && !Array.isArray(expected)) {
    assert.ok(actual !== null && typeof actual === 'object', `${place} is not an object`);
    for (const key of Object.keys(expected)) assertSubset(actual[key], expected[key], `${place}.${key}`);
  } else assert.deepEqual(actual, expected, place);
}

function check(answer, expect) {
  const shown = `answer: ${answer.status} ${answer.text().slice(0, 600)}`;
  if ('status' in expect) assert.equal(answer.status, expect.status, shown);
  if ('outcome' in expect) assert.equal(answer.outcome, expect.outcome === null ? undefined : expect.outcome, shown);
  const { chunks } = expect;
  assert.equal('content-length' in answer.headers, chunks === undefined, 'content-length');
  assert.deepEqual(answer.headers['transfer-encoding'], chunks === undefined ? undefined : ['chunked'], 'transfer-encoding');
  if (chunks) {
    assert.deepEqual((answer.chunks || []).map(String), chunks, 'chunks');
    assert.equal(answer.cut || false, expect.cut || false, 'cut');
  }
  for (const [name, value] of Object.entries(expect.headers || {})) {
    const wanted = value === null ? undefined : [].concat(value);
    assert.deepEqual(answer.headers[name], wanted, `header ${name}`);
  }
  if ('kind' in expect) assert.equal(answer.json().error, expect.kind, shown);
  if ('messageContains' in expect) {
    const wanted = expect.messageContains;
    for (const part of [].concat(typeof wanted === 'string' || Array.isArray(wanted) ? wanted : wanted.node)) {
      assert.ok(answer.json().message.includes(part), `${JSON.stringify(part)} is not in ${answer.json().message}`);
    }
  }
  if ('json' in expect) assert.deepEqual(answer.json(), expect.json);
  if ('text' in expect) assert.equal(answer.text(), expect.text);
  if ('base64' in expect) assert.equal(answer.body.toString('base64'), expect.base64);
  if ('bodyBytes' in expect) assert.equal(answer.body.length, expect.bodyBytes);
  if ('subset' in expect) assertSubset(answer.json(), expect.subset, 'answer');
  if (expect.hidden) assert.ok(!answer.text().includes(expect.hidden), shown);
  for (const name of expect.absent || []) assert.equal(at(answer.json(), name), undefined, `${name} is there`);
  for (const [name, pattern] of Object.entries(expect.matches || {})) {
    assert.match(String(at(answer.json(), name)), new RegExp(pattern), name);
  }
}

for (const name of fs.readdirSync(DIR).filter((file) => file.endsWith('.json')).sort()) {
  const group = JSON.parse(fs.readFileSync(path.join(DIR, name), 'utf8'));
  for (const one of group.cases) {
    const code = (one.code || group.code).node;
    if (code === undefined) continue;
    test(`${name}: ${one.name}`, async (t) => {
      const runner = await startRunner(t, code, { env: { ...group.env, ...one.env } });
      const request = one.request || {};
      for (const first of one.before || []) await runner.wire.ask(first);
      for (let i = 0; i < (one.repeat || 1); i += 1) {
        check(await runner.wire.ask(request), one.expect);
        if (one.expect.cut) runner.wire = await runner.edge.accept();
      }
      for (const stream of ['stdout', 'stderr']) {
        await until(() => runner[stream].includes(one.expect[stream] || ''), `the log on ${stream}`);
        if (one.expect.hidden) assert.ok(!runner[stream].includes(one.expect.hidden), `${stream}: ${runner[stream]}`);
      }
      // Whatever it was, the runner is still there.
      assert.equal((await runner.wire.ask({ target: '/health' })).status, 200);
    });
  }
}
