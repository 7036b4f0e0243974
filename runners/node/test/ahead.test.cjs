// Requests that are sent ahead of their turn, and called back.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const test = require('node:test');
const { encode, startRunner, until } = require('./harness.cjs');

const STEPS = `
  const fs = require('fs');
  let running = 0;
  const go = () => new Promise((resolve) => {
    const timer = setInterval(() => { if (fs.existsSync(__dirname + '/go')) { clearInterval(timer); resolve(); } }, 2);
  });
  exports.handler = async (event, context) => {
    running += 1;
    console.log('begun ' + event.path);
    if (event.path === '/first') await go();
    await new Promise((resolve) => setTimeout(resolve, 1));
    const answer = [event.path, running, context.getRemainingTimeInMillis() > 4000];
    running -= 1;
    return answer;
  };`;

const ahead = (target, turn, more = []) => encode({
  target: `/fn/hello${target}`,
  headers: [['x-grid-turn', String(turn)], ...more],
});

function callBack(runner, upto) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(upto));
  fs.writeFileSync(`${runner.dir}/recalls`, bytes);
}

test('they run one after the other, each with all of its time', async (t) => {
  const runner = await startRunner(t, STEPS);
  runner.wire.send(encode({ target: '/fn/hello/first' }));
  const deadline = [['x-grid-deadline-ms', '5000']];
  runner.wire.send(Buffer.concat([1, 2, 3].map((turn) => ahead(`/${turn}`, turn, deadline))));
  await until(() => runner.stdout.includes('begun /first'), 'the first one');
  await new Promise((resolve) => setTimeout(resolve, 1100)); // of the others' five seconds, if they counted
  fs.writeFileSync(`${runner.dir}/go`, '');
  for (const path of ['/first', '/1', '/2', '/3']) {
    assert.deepEqual((await runner.wire.read()).json(), [path, 1, true]);
  }
});

test('what is called back does not begin, and what comes later does', async (t) => {
  const runner = await startRunner(t, STEPS);
  runner.wire.send(Buffer.concat([encode({ target: '/fn/hello/first' }), ahead('/1', 1), ahead('/2', 2)]));
  await until(() => runner.stdout.includes('begun /first'), 'the first one');
  callBack(runner, 2);
  runner.wire.send(ahead('/3', 3));
  fs.writeFileSync(`${runner.dir}/go`, '');
  assert.equal((await runner.wire.read()).json()[0], '/first');
  for (let i = 0; i < 2; i += 1) {
    const answer = await runner.wire.read();
    assert.deepEqual([answer.status, answer.outcome, answer.text()], [200, 'called-back', '']);
  }
  assert.equal((await runner.wire.read()).json()[0], '/3');
  assert.ok(!/begun .[12]/.test(runner.stdout), runner.stdout);
});

test('none begins before the answer to the one before has left', async (t) => {
  const runner = await startRunner(t, `
    exports.handler = async (event) => {
      if (event.path !== '/large') return console.log('begun');
      setTimeout(() => console.log('much later'), 50);
      return 'x'.repeat(5000000);
    };`);
  runner.wire.socket.pause();
  runner.wire.send(Buffer.concat([encode({ target: '/fn/hello/large' }), ahead('/1', 1)]));
  await until(() => runner.stdout.includes('much later'), 'the large answer');
  assert.ok(!runner.stdout.includes('begun'));
  callBack(runner, 1);
  runner.wire.socket.resume();
  assert.equal((await runner.wire.read()).body.length, 5000002);
  assert.equal((await runner.wire.read()).outcome, 'called-back');
});

test('only the edge calls back', async (t) => {
  const runner = await startRunner(t, STEPS);
  callBack(runner, 9);
  const port = await runner.connectPort();
  port.send(ahead('/1', 1));
  assert.equal((await port.read()).json()[0], '/1');
});
