// What the guard costs: the check alone, the guarded binding and the guarded net.connect beside the
// plain ones, in turns, as medians. Run it where nothing can leave, so that the kernel answers
// ENETUNREACH at once (docker run --network none).
'use strict';

const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

const ROUNDS = 20000;
const { TCP, TCPConnectWrap } = process.binding('tcp_wrap');
const plain = TCP.prototype.connect;
const plainNet = net.Socket.prototype.connect;
const before = process.hrtime.bigint();
require('../guard.cjs');
const loading = process.hrtime.bigint() - before;
const guarded = TCP.prototype.connect;
const guardedNet = net.Socket.prototype.connect;

function median(times) {
  return Number(times.sort((a, b) => (a < b ? -1 : 1))[times.length >> 1]) / 1000;
}

function bindingTime(connect) {
  const handle = new TCP(0);
  const request = new TCPConnectWrap();
  const start = process.hrtime.bigint();
  connect.call(handle, request, '8.8.8.8', 80);
  const time = process.hrtime.bigint() - start;
  handle.close();
  return time;
}

function netTime(connect, host, lookup) {
  return new Promise((resolve) => {
    const socket = new net.Socket();
    const start = process.hrtime.bigint();
    socket.on('error', () => resolve(process.hrtime.bigint() - start));
    connect.call(socket, { host, port: 80, lookup });
  });
}

async function compare(name, rounds, measure, one, other) {
  const times = [[], []];
  for (let i = 0; i < rounds; i += 1) {
    // Which one goes first changes, so that neither has the warmer caches.
    for (const turn of [i % 2, 1 - (i % 2)]) times[turn].push(await measure(turn ? other : one));
  }
  const [without, withGuard] = times.map(median);
  console.log(`${name}: ${without.toFixed(2)} µs without, ${withGuard.toFixed(2)} µs with, ${(withGuard - without).toFixed(2)} µs more`);
}

async function main() {
  if (!Object.values(os.networkInterfaces()).flat().every((one) => one.internal)) {
    console.error('This needs a network namespace without a way out (docker run --network none).');
    process.exit(1);
  }
  console.log(`loading the guard: ${Number(loading / 1000n)} µs`);
  const file = path.join(__dirname, '..', '..', 'egress', 'ranges.txt');
  const judge = require('../guard-policy.cjs').parsePolicy(fs.readFileSync(file, 'utf8'));
  for (const address of ['8.8.8.8', '2606:4700:4700::1111']) {
    const times = [];
    for (let i = 0; i < ROUNDS; i += 1) {
      const start = process.hrtime.bigint();
      judge(address);
      times.push(process.hrtime.bigint() - start);
    }
    console.log(`checking ${address}: ${median(times).toFixed(2)} µs`);
  }
  await compare('the binding', ROUNDS, bindingTime, plain, guarded);
  // The plain net.connect still meets the guarded binding; add the line above to it.
  await compare('net.connect to an address', 2000, (connect) => netTime(connect, '8.8.8.8'), plainNet, guardedNet);
  const lookup = (host, options, done) => process.nextTick(done, null, '8.8.8.8', 4);
  await compare('net.connect to a name', 2000, (connect) => netTime(connect, 'a.example', lookup), plainNet, guardedNet);
}

// `node --test` runs every file of this folder.
if (!process.env.NODE_TEST_CONTEXT) main();
