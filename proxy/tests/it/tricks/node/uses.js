// Takes all there is of something, or ends something. The order matters: what one leaves, the next one meets.

//= all of /tmp | ENOSPC
require('fs').writeFileSync('/tmp/full', Buffer.alloc(80 << 20));

//= all names in /tmp | ENOSPC
const fs = require('fs');
fs.rmSync('/tmp/full', {force: true});
for (let i = 0; i < 20000; i += 1) fs.closeSync(fs.openSync(`/tmp/${i}`, 'w'));

//= all open files | EMFILE
const fs = require('fs');
const all = [];
try {
  for (;;) all.push(fs.openSync('/dev/null'));
} finally {
  all.forEach((fd) => fs.closeSync(fd));
}

//= all processes | EAGAIN
const {spawn} = require('child_process');
const all = [];
try {
  for (let i = 0; i < 300; i += 1) {
    const c = spawn('sleep', ['600']);
    all.push(c);
    await new Promise((ok, no) => c.on('spawn', ok).on('error', no));
  }
} finally {
  all.forEach((c) => c.kill('SIGKILL'));
}

//= /tmp and memory | function_crashed / timeout / function_error
const fs = require('fs');
for (const n of fs.readdirSync('/tmp')) fs.rmSync(`/tmp/${n}`, {force: true, recursive: true});
fs.writeFileSync('/tmp/full', Buffer.alloc(60 << 20));
const all = [];
for (;;) all.push(Buffer.alloc(4 << 20, 1));

//= a log of long lines | written
const fs = require('fs');
const line = Buffer.from('\x1b[31m' + '\x1b]0;x\x07é\r\0'.repeat(100000) + '\n');
for (let i = 0; i < 30; i += 1)
  for (let at = 0; at < line.length;)
    try {
      at += fs.writeSync(1, line, at);
    } catch (e) {
      if (e.code !== 'EAGAIN') throw e;
    }
throw 'written';

//= many calls to the edge | called
const net = require('net');
const all = Array.from({length: 300}, () => net.connect('/run/grid/edge.sock').on('error', () => {}));
await Promise.all(all.map((s) => new Promise((ok) => s.on('connect', ok).on('close', ok))));
all.forEach((s) => s.write('HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx'));
throw 'called';

//= every core | timeout
const {spawn} = require('child_process');
for (let i = 0; i < 8; i += 1) spawn('sh', ['-c', 'while :; do :; done']);
return new Promise(() => {});

//= to stop itself | timeout
process.kill(process.pid, 'SIGSTOP');
return new Promise(() => {});

//= to stop everybody | timeout
require('child_process').spawn('sleep', ['600']);
process.kill(-1, 'SIGSTOP');
process.kill(process.pid, 'SIGSTOP');
return new Promise(() => {});

//= to kill process 1 | alive
process.kill(1, 'SIGKILL');
process.kill(1, 'SIGSTOP');
throw 'alive';

//= to end process 1 | function_crashed
process.kill(1, 'SIGTERM');
return new Promise(() => {});

//= to kill everybody | function_crashed
require('child_process').spawn('sh', ['-c', 'kill -9 -1']);
return new Promise(() => {});

//= to go somewhere else | gone
process.chdir('/proc/1');
process.umask(0o777);
throw 'gone';
